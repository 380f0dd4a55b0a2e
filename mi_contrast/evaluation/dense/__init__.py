"""Dense transfer: a backbone inside torchvision's Faster, Mask or Keypoint R-CNN, on COCO-format data.

Needs the extra `[torch]` (torch, torchvision, pycocotools), which nothing outside this room imports.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_contrast.core.errors import UserError
from mi_contrast.evaluation.asked import Judgement
from mi_contrast.interchange import Loaded
from mi_contrast.interchange.torch_build import MissingToolError, tool

__all__ = ["judge"]

TOOLS = ("torch", "torchvision", "pycocotools.mask")
FIX = "pip install 'mi-contrast[torch]'"


def judge(config: Mapping[str, Any], backbone: Loaded, workdir: Path | None = None, *, twin: bool = False) -> Judgement:
    """As `detection.judge`. UserError where torch, torchvision or pycocotools is missing, or doesn't run here."""
    check_tools()
    detection = importlib.import_module("mi_contrast.evaluation.dense.detection")
    found: Judgement = detection.judge(config, backbone, workdir, twin=twin)
    return found


def check_tools() -> None:
    """UserError where a tool is missing, or torchvision came without its operators."""
    try:
        torch, torchvision, _ = (tool(name) for name in TOOLS)
        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except MissingToolError as error:
        raise UserError(f"detection can't run: {error}", fix=FIX) from None
    except RuntimeError:
        versions = f"torchvision {torchvision.__version__} has no operators beside torch {torch.__version__}"
        raise UserError(versions, fix=f"install the two together, in an environment of their own: {FIX}") from None
