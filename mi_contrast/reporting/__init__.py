"""Pages about a run, made from its run directory alone."""

from mi_contrast.reporting.page import render, write

__all__ = ["render", "write"]
