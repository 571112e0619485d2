"""`FeatureStore`: features for a notebook, as Polars frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import polars as pl

from rtml.instants import Instant
from rtml.projection import KEY_TYPES
from rtml.settings import Settings, load_settings
from serving.client import FeatureClient
from serving.feature_log import FeatureLog
from serving.features import FeatureVectors, LeadingEdge
from streaming.versions import Version

Entities = Sequence[Mapping[str, Any]] | pl.DataFrame
At = datetime | Instant | str | None
_VALUES: dict[str, pl.DataType] = {"f64": pl.Float64(), "i64": pl.Int64()}


class FeatureStore:
    """Features of a project as frames; a context manager, or `close` it.

    Args:
        settings: where the online store is; by default those of this process.
        log: takes what is served online, as a feature server would.
    """

    def __init__(self, settings: Settings | None = None, *, log: FeatureLog | None = None) -> None:
        """Connect when first asked."""
        settings = settings or load_settings()
        self._client = FeatureClient(settings.redis_url, epoch=settings.tile_epoch_us, background=False, log=log)

    def __enter__(self) -> FeatureStore:
        """Return the store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def get_online_features(
        self, service: str, entities: Entities, at: At = None, *, leading_edge: LeadingEdge = "wall_clock"
    ) -> pl.DataFrame:
        """Return a service's features: one row an entity in their order, the join keys, then columns `view__feature`.

        Args:
            service: a feature service's name.
            entities: a mapping of join keys each, or a frame with a column for each join key.
            at: the instant that windows end at; by default the `leading_edge`.
            leading_edge: `wall_clock` (now), or `watermark`: up to where all of the service's sources are servable.

        Raises:
            UnknownNameError, RequestError, NotReadyError, InstantError, UnavailableError: it cannot be answered.
        """
        rows, vectors = self._ask(service, entities, at, leading_edge)
        versions = self._versions(service)
        columns = zip(*vectors.rows, strict=True) if vectors.rows else [()] * len(vectors.features)
        named = zip(vectors.features, columns, strict=True)
        values = [pl.Series(name, list(column), dtype=_dtype(versions, name)) for name, column in named]
        return pl.DataFrame([*_keys(versions, rows), *values])

    def statuses(
        self, service: str, entities: Entities, at: At = None, *, leading_edge: LeadingEdge = "wall_clock"
    ) -> pl.DataFrame:
        """Return the same shape with each value's status: `fresh`, `stale`, `partial`, `missing` or `damaged`."""
        rows, vectors = self._ask(service, entities, at, leading_edge)
        statuses = [pl.Series(name, vectors.status[name.split("__")[0]], dtype=pl.String) for name in vectors.features]
        return pl.DataFrame([*_keys(self._versions(service), rows), *statuses])

    def watermark(self, service: str) -> Instant:
        """Return up to when all of a service's sources are servable, in µs; the beginning of time if one is not."""
        snapshot = self._client.snapshot()
        return snapshot.watermark(snapshot.versions(snapshot.service(service)))

    def _ask(
        self, service: str, entities: Entities, at: At, leading_edge: LeadingEdge
    ) -> tuple[Sequence[Mapping[str, Any]], FeatureVectors]:
        rows = entities.to_dicts() if isinstance(entities, pl.DataFrame) else list(entities)
        return rows, self._client.get(service, rows, at=at, leading_edge=leading_edge)

    def _versions(self, service: str) -> list[Version]:
        """Return the versions that answered: `snapshot` would look anew."""
        snapshot = self._client.state.snapshot
        return snapshot.versions(snapshot.service(service))


def _keys(versions: list[Version], rows: Sequence[Mapping[str, Any]]) -> list[pl.Series]:
    """Return the join keys of all views, each once."""
    kinds = {name: kind for version in versions for name, kind in version.plan.keys}
    return [pl.Series(name, [row[name] for row in rows], dtype=KEY_TYPES[kind]) for name, kind in kinds.items()]


def _dtype(versions: list[Version], column: str) -> pl.DataType:
    view, feature = column.split("__")
    plan = next(version.plan for version in versions if version.view == view)
    return _VALUES[plan.feature(feature).output]
