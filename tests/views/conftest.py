"""The references that the ops are compared with."""

import numpy as np
import pytest

LIBRARIES = []  # a declaration lives as long as its library


@pytest.fixture(scope="session")
def torchvision():
    """Torchvision, its compiled ops declared by name where they don't fit the torch at hand (transforms use none)."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    pytest.importorskip("PIL")
    try:
        import torchvision.transforms
    except ImportError:
        pytest.skip("torchvision is not installed")
    except RuntimeError:
        LIBRARIES.append(torch.library.Library("torchvision", "DEF"))
        for name in ("nms", "qnms"):
            LIBRARIES[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision.transforms
    return torchvision


def pictures(height, width):
    """float32 [height, width, 3] images in [0, 1]: noise, a smooth one, and the extremes, by name."""
    draws = np.random.default_rng(0)
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    board = (np.indices((height, width)).sum(0) % 2).astype(np.float32)
    made = {
        "noise": draws.random((height, width, 3)),
        "smooth": np.stack([across, down, 0.5 + 0.5 * np.sin(9 * across * down)], -1),
        "black": np.zeros((height, width, 3)),
        "white": np.ones((height, width, 3)),
        "grey": np.full((height, width, 3), 0.3),
        "red": np.broadcast_to([1.0, 0.0, 0.0], (height, width, 3)),
        "board": np.stack([board, 1 - board, np.zeros_like(board)], -1),
        "eight": draws.integers(0, 2, (height, width, 3)),
        "greys": np.repeat(draws.random((height, width, 1)), 3, -1),
    }
    # whole 8-bit values, so that the references that work on bytes see the same image
    return {name: (np.round(255 * image) / 255).astype(np.float32) for name, image in made.items()}
