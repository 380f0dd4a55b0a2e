"""Pages about a run, made from its run directory alone."""

from mi_contrast.reporting.page import render, write_report

__all__ = ["render", "write_report"]
