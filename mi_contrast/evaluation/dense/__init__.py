"""Judges a backbone by detection: in torchvision's Faster, Mask or Keypoint R-CNN, on data in COCO's format.

Needs the extra `[torch]` (torch, torchvision, pycocotools). Nothing outside this folder imports these packages.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_contrast.core.errors import UserError
from mi_contrast.evaluation.task_config import Judgement
from mi_contrast.interchange import LoadedBackbone
from mi_contrast.interchange.torch_build import MissingToolError, import_tool

__all__ = ["judge"]

TOOLS = ("torch", "torchvision", "pycocotools.mask")
FIX = "pip install 'mi-contrast[torch]'"


def judge(
    config: Mapping[str, Any], backbone: LoadedBackbone, workdir: Path | None = None, *, untrained: bool = False
) -> Judgement:
    """Judges a backbone by object detection and returns the Judgement; see `detection.judge`.

    Raises:
      UserError: torch, torchvision or pycocotools is missing or does not run here.
    """
    check_tools()
    detection = importlib.import_module("mi_contrast.evaluation.dense.detection")
    judgement: Judgement = detection.judge(config, backbone, workdir, untrained=untrained)
    return judgement


def check_tools() -> None:
    """Raises UserError if a package is missing, or if torchvision has no compiled operators."""
    try:
        torch, torchvision, _ = (import_tool(name) for name in TOOLS)
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except MissingToolError as error:
        raise UserError(f"detection can't run: {error}", fix=FIX) from None
    except RuntimeError:
        versions = f"torchvision {torchvision.__version__} has no operators for torch {torch.__version__}"
        raise UserError(versions, fix=f"install the two together, in an environment of their own: {FIX}") from None
