"""A view's events with what serving knew of them: from when on each of them could count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Literal, get_args

import msgspec
import polars as pl

from rtml.algebra.family import EVENT_TIME, ID64
from rtml.define.views import StreamFeatureView
from rtml.errors import RequestError, near_miss
from rtml.instants import BEGINNING, Instant
from rtml.lake import LATE, Lake, unsigned
from rtml.plan import Plan
from rtml.projection import INGESTED_AT, project
from rtml.texts import text_column
from rtml_assets.tables.delta import open_table, scan
from rtml_assets.tables.events import load_events
from rtml_assets.tables.spans import Reach

KnownAt = Literal["serving", "hindsight"]
NEVER: Instant = 2**63 - 1
AT, SEEN, SEEN_LATE, KNOWN_AT, IS_LATE = "at", "seen", "seen_late", "known_at", "late"
PUBLISHED_AT = "published_at"
_TAKEN = frozenset({AT, SEEN, SEEN_LATE, KNOWN_AT, IS_LATE, PUBLISHED_AT, EVENT_TIME, INGESTED_AT, ID64})


def check_known_at(known_at: str) -> KnownAt:
    """Return which events count, or an error with the nearest word.

    Raises:
        RequestError: neither `serving` nor `hindsight`.
    """
    words = get_args(KnownAt)
    for word in words:
        if known_at == word:
            chosen: KnownAt = word
            return chosen
    raise RequestError(f"known_at must be 'serving' or 'hindsight'; got {known_at!r}.{near_miss(str(known_at), words)}")


@dataclass(frozen=True)
class Asked:
    """Some features of a view, and its plan cut down to them: only the columns that they need are read.

    Columns of a user's that are called as one of ours (a view may well derive `late`) get another name in `plan`.
    """

    view: StreamFeatureView
    whole: Plan

    @classmethod
    def of(cls, view: StreamFeatureView, plan: Plan, names: Sequence[str]) -> Asked:
        """Cut a view's plan down to some features."""
        return cls(view, msgspec.structs.replace(plan, features=tuple(plan.feature(name) for name in names)))

    @cached_property
    def renamed(self) -> dict[str, str]:
        """The columns that get another name."""
        own = [*self.whole.key_names, *self.whole.lanes]
        found = {name: _free(name, {*own, *_TAKEN}) for name in own if name in _TAKEN}
        return found | {text_column(name): text_column(found[name]) for name in self.whole.texts if name in found}

    @cached_property
    def plan(self) -> Plan:
        """The plan, with our names."""
        keys = tuple((self.renamed.get(name, name), kind) for name, kind in self.whole.keys)
        features = tuple(
            msgspec.structs.replace(feature, column=self.renamed.get(feature.column, feature.column))
            for feature in self.whole.features
        )
        return msgspec.structs.replace(self.whole, keys=keys, features=features)

    @property
    def reach(self) -> Reach:
        """How far a row that asks for what came before its instant looks back, counted from the last such instant."""
        return Reach(self.plan.reach + self.plan.tiles.finest, 0)

    def events(self, lake: Lake, days: Sequence[date], known_at: KnownAt) -> pl.LazyFrame:
        """Return days of the view's events with `known_at` (int64 µs) and `late`: from when on each may count.

        The texts of strings come along.
        """
        events = project(self.view, self.whole, load_events(lake, self.view.source, days), texts=True)
        events = events.rename(self.renamed)
        late = pl.col(INGESTED_AT) - pl.col(EVENT_TIME) > self.plan.lateness
        events = events.with_columns(late.alias(IS_LATE))
        if known_at == "hindsight":
            return events.with_columns(pl.lit(BEGINNING, dtype=pl.Int64).alias(KNOWN_AT)).drop(INGESTED_AT)
        published = published_at(lake, self.view, days).lazy()
        known = pl.when(IS_LATE).then(pl.col(PUBLISHED_AT).fill_null(NEVER)).otherwise(INGESTED_AT)
        joined = events.join(published, on=[EVENT_TIME, ID64], how="left")
        return joined.with_columns(known.alias(KNOWN_AT)).drop(PUBLISHED_AT, INGESTED_AT)


def published_at(lake: Lake, view: StreamFeatureView, days: Sequence[date]) -> pl.DataFrame:
    """Return when late events of some days became servable in any version of a view: times in int64 µs."""
    rows = scan(open_table(lake.late(view.source.name)), LATE, days).filter(pl.col("view") == view.name)
    times = [pl.col(name).dt.epoch("us") for name in (EVENT_TIME, PUBLISHED_AT)]
    kept = rows.with_columns(*times, unsigned(ID64))
    return kept.group_by(EVENT_TIME, ID64).agg(pl.col(PUBLISHED_AT).min()).collect()


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name
