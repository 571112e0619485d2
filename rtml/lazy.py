"""Polars, loaded when it is first used.

What merges states and finalizes values is numpy alone. A server that only reads features has no use for Polars, which
would be a third of its memory and of its start: modules on its way take `pl` from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl
else:

    class _Polars:
        """Stands for the module, whose names it gives out."""

        def __getattr__(self, name: str) -> Any:
            import polars  # noqa: PLC0415

            return getattr(polars, name)

    pl = _Polars()

__all__ = ["pl"]
