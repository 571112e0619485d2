"""`FeatureStore`: features for a notebook, as Polars frames."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from rtml.columns import KEY_TYPES
from rtml.define.label import LabelSource
from rtml.errors import LeftOutWarning, NotBuiltWarning
from rtml.instants import Instant, to_instant
from rtml.lake import Lake
from rtml.registry import Registry, load
from rtml.settings import Settings, load_settings
from rtml_assets.tables.arrivals import Arrivals
from rtml_assets.tables.logged import logged_features
from rtml_assets.tables.training_set import Progress, TrainingSet
from rtml_assets.tables.written import write_pieces
from serving.client import FeatureClient
from serving.entities import Entities as Given
from serving.entities import Rows, as_rows
from serving.feature_log import FeatureLog
from serving.features import FeatureVectors, LeadingEdge
from streaming.versions import Version

Entities = Given | pl.DataFrame
At = datetime | Instant | str | None
Labels = Sequence[str | LabelSource] | None


class FeatureStore:
    """Features of a project as frames; a context manager, or `close` it.

    Args:
        settings: where the online store and the lake are; by default those of this process.
        registry: the definitions; by default those that the settings name, loaded when they are first needed, which
            is for what is computed from the lake. That needs no Redis, as what is online needs no lake.
        log: takes what is served online, as a feature server would.
    """

    def __init__(
        self, settings: Settings | None = None, registry: Registry | None = None, *, log: FeatureLog | None = None
    ) -> None:
        """Connect when first asked."""
        self._settings = settings = settings or load_settings()
        if registry is not None:
            self.__dict__["registry"] = registry
        self._lake = Lake(settings.lake_root)
        self._arrivals = Arrivals(settings, settings.mirror_epoch_us)
        self._client = FeatureClient(settings, epoch=settings.tile_epoch_us, background=False, log=log)

    def __enter__(self) -> FeatureStore:
        """Return the store itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    @cached_property
    def registry(self) -> Registry:
        """The definitions."""
        return load(self._settings.features)

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def get_online_features(
        self, service: str, entities: Entities, at: At = None, *, leading_edge: LeadingEdge = "wall_clock"
    ) -> pl.DataFrame:
        """Return a service's features: one row an entity in their order, the join keys, then columns `view__feature`.

        Args:
            service: a feature service's name.
            entities: a mapping of join keys each, or a column for each join key: a frame, or a mapping of lists, where
                one value without a list is for all rows.
            at: the instant that windows end at; by default the `leading_edge`.
            leading_edge: `wall_clock` (now), or `watermark`: up to where all of the service's sources are servable.

        Raises:
            UnknownNameError, RequestError, TooLargeError, NotReadyError, StaleError, InstantError, UnavailableError: it
                cannot be answered.
        """
        rows, vectors = self._ask(service, entities, at, leading_edge)
        versions = self._versions(service)
        return pl.DataFrame([*_keys(versions, rows), *vectors.to_polars(statuses=False)])

    def statuses(
        self, service: str, entities: Entities, at: At = None, *, leading_edge: LeadingEdge = "wall_clock"
    ) -> pl.DataFrame:
        """Return the same shape with each value's status, one of `rtml.staleness.Status`."""
        rows, vectors = self._ask(service, entities, at, leading_edge)
        statuses = [pl.Series(name, vectors.status[name.split("__")[0]], dtype=pl.String) for name in vectors.features]
        return pl.DataFrame([*_keys(self._versions(service), rows), *statuses])

    def watermark(self, service: str) -> Instant:
        """Return up to when all of a service's sources are servable, in µs; the beginning of time if one is not."""
        snapshot = self._client.snapshot()
        return snapshot.watermark(snapshot.versions(snapshot.service(service)))

    def get_historical_features(
        self,
        service: str,
        spine: pl.DataFrame | pl.LazyFrame,
        known_at: str = "serving",
        labels: Labels = None,
        progress: Progress | None = None,
    ) -> pl.DataFrame:
        """Return a training set: the spine as it is, columns `view__feature` as of each row's instant, then labels.

        It is computed from the tables `events/<source>`: a warning names what rows look at that is not there, such as
        days that are not compacted yet. A window is `[timestamp − w, timestamp)`: a row never sees its own event.
        About 8 million events are in memory at a time, besides the spine and its features.

        Args:
            service: a feature service's name.
            spine: the join keys of all of the service's views, `timestamp` (`Datetime("us", "UTC")`), and any other
                columns, such as labels of one's own. Its rows keep their order and number.
            known_at: `serving` counts what serving had at a row's instant: events that had arrived, and late ones
                that had been published; `hindsight` counts by event time alone.
            labels: label sources, or their names; the spine then has their join keys as well.
            progress: called with the rows done, and all rows.

        Raises:
            UnknownNameError: there is no such service or label source.
            RequestError, InstantError: the spine, `known_at` or `labels` are not what they should be.
            NotReadyError: a view's source has no table `events/`.
        """
        wanted = TrainingSet.of(self._lake, self.registry, service, known_at, labels, arrivals=self._arrivals)
        checked = wanted.check(spine)
        for words in wanted.missing(checked):
            warnings.warn(words, NotBuiltWarning, stacklevel=2)
        return wanted.compute(checked, progress)

    def write_historical_features(
        self,
        service: str,
        spine: pl.DataFrame | pl.LazyFrame,
        destination: str | Path,
        known_at: str = "serving",
        labels: Labels = None,
        progress: Progress | None = None,
    ) -> int:
        """Write the training set that `get_historical_features` returns, a million rows at a time; return its rows.

        `destination` is a file `….parquet`, with the rows in order, or a folder or URL for a Delta table; what is
        there is replaced. A large spine is best sorted by time: then each piece reads the events of its own days only.
        """
        wanted = TrainingSet.of(self._lake, self.registry, service, known_at, labels, arrivals=self._arrivals)
        checked = wanted.check(spine)
        for words in wanted.missing(checked):
            warnings.warn(words, NotBuiltWarning, stacklevel=2)
        schema = pl.Schema({**checked.rows.schema, **wanted.columns})
        return write_pieces(wanted.pieces(checked, progress), schema, str(destination))

    def get_logged_features(
        self, service: str, start: At = None, end: At = None, labels: Labels = None, past: bool = False
    ) -> pl.DataFrame:
        """Return a training set from the log of what was served at instants in `[start, end)`; nothing is recomputed.

        The columns are those of the table `served/<service>`: join keys, `timestamp` (the instant that was asked for),
        values, versions and statuses, ordered by `timestamp`; then labels. Answers for an instant that was past when it
        was asked for may count what arrived after it: they are left out with a `LeftOutWarning`, but for `past=True`.

        Raises:
            UnknownNameError: there is no such service or label source.
            RequestError: nothing is logged, or a label's join keys are not in the log.
        """
        first, last = (None if bound is None else to_instant(bound) for bound in (start, end))

        def warn(words: str) -> None:
            warnings.warn(words, LeftOutWarning, stacklevel=5)

        return logged_features(
            self._lake, self.registry, service, first, last, labels, self._arrivals, past=past, warn=warn
        )

    def _ask(self, service: str, entities: Entities, at: At, leading_edge: LeadingEdge) -> tuple[Rows, FeatureVectors]:
        given = entities.to_dicts() if isinstance(entities, pl.DataFrame) else entities
        rows = as_rows(given, self._settings.max_entities)
        return rows, self._client.get(service, rows, at=at, leading_edge=leading_edge)

    def _versions(self, service: str) -> list[Version]:
        """Return the versions that answered: `snapshot` would look anew."""
        snapshot = self._client.state.snapshot
        return snapshot.versions(snapshot.service(service))


def _keys(versions: list[Version], rows: Sequence[Mapping[str, Any]]) -> list[pl.Series]:
    """Return the join keys of all views, each once."""
    kinds = {name: kind for version in versions for name, kind in version.plan.keys}
    return [pl.Series(name, [row[name] for row in rows], dtype=KEY_TYPES[kind]) for name, kind in kinds.items()]
