"""An answer as a Polars frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from rtml.lake import STATUS, of_view
from rtml.values import value_type

if TYPE_CHECKING:
    from serving.features import FeatureVectors


def frame_of(vectors: FeatureVectors, *, statuses: bool) -> pl.DataFrame:
    """Return a column a feature, each of its type whatever its values, then a column of statuses a view, if wanted."""
    columns = zip(*vectors.rows, strict=True) if vectors.rows else [()] * len(vectors.features)
    named = zip(vectors.features, columns, vectors.outputs, strict=True)
    frame = [pl.Series(name, list(column), dtype=value_type(output)) for name, column, output in named]
    if statuses:
        frame += [pl.Series(of_view(view, STATUS), found, dtype=pl.String) for view, found in vectors.status.items()]
    return pl.DataFrame(frame)
