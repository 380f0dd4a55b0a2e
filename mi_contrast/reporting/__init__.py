"""Pages, tables and charts of runs, studies and judgements, made from their folders alone."""

from typing import Any

__all__ = ["render", "write_report"]


def __getattr__(name: str) -> Any:
    """Imports the page of a run when it is first used, because Altair takes half a second to import."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mi_contrast.reporting import page

    return getattr(page, name)
