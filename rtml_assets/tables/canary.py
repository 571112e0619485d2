"""The canary: what was served, against an offline recompute at the same instants with what the server had seen.

An event counts in the recompute when the server had it: an on-time one when it was ingested before the logged watermark
or by the entity's logged `last_ingested`, a late one when it was by the logged `published_to`; what a version's
published history holds, always. So an entity that the stream lost is found, whatever its own keys say. What was given
instead of values that were too old is not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import polars as pl

from quality.parity import Compared, Parity, compare, magnitude_columns
from rtml.algebra.family import EVENT_TIME
from rtml.columns import SPINE_TIME
from rtml.define.service import FeatureService
from rtml.define.source import EventSource
from rtml.define.views import StreamFeatureView
from rtml.instants import BEGINNING, to_datetime, to_instant
from rtml.lake import LAST_INGESTED, PUBLISHED_TO, REPLACED, STATUS, VERSION, WATERMARK, Lake, of_view
from rtml.plan import Plan, PlannedFeature
from rtml.point_in_time.join import point_in_time
from rtml.projection import INGESTED_AT, project
from rtml_assets.tables.cuts import settle
from rtml_assets.tables.events import load_events
from rtml_assets.tables.recompute import NEXT_LATE, SEALED, Vectors, agreeing, recomputed, replaced
from rtml_assets.tables.seen import AT, IS_LATE, KNOWN_AT, SEEN, SEEN_LATE, Asked
from rtml_assets.tables.served import logged_vectors
from rtml_assets.tables.touched import complete_now
from streaming.mended import mended_count
from streaming.versions import Version, read_version

if TYPE_CHECKING:
    from redis import Redis

Load = Callable[[Lake, EventSource, Sequence[date]], pl.LazyFrame]
"""Returns days of a source's events, each event once, `id64` unsigned."""

NEWEST = 20_000
"""How many vectors are looked at."""
_UNSEEN = "unseen"


@dataclass(frozen=True)
class Canary:
    """What became of the logged vectors."""

    parity: Parity
    vectors: int
    other_version: int
    """Vectors of another meaning, or of a version that is gone or was made before events were mended: not compared."""
    incomplete: int
    """Vectors that `events/` is not complete for yet: not compared."""
    publishing: int
    """Vectors that agree as soon as the late events count that were being published while they were served."""
    unseen: int
    """Events that had been ingested by the instants asked, in reach of a window, and that were not servable yet."""
    replaced: int = 0
    """Views' parts of vectors that have other values than were computed, as those were too old: not compared."""


@dataclass(frozen=True)
class Checked:
    """What became of one view's part of some vectors."""

    parity: Parity
    publishing: int = 0
    unseen: int = 0


def canary(
    lake: Lake,
    client: Redis,
    service: FeatureService,
    plans: Mapping[str, Plan],
    *,
    newest: int = NEWEST,
    days: Sequence[date] | None = None,
) -> Canary:
    """Recompute a service's newest logged vectors, and compare."""
    sources = {view.source.name: view.source for view in service.views}
    complete = {name: complete_now(lake, client, source) for name, source in sources.items()}
    mended = {name: mended_count(lake, source) for name, source in sources.items()}
    logged = logged_vectors(lake, service, plans, complete, newest=newest, days=days)
    checked, gone, replaced = [], 0, 0
    for view in service.views:
        named = of_view(view.name, VERSION)
        for (name,), rows in logged.rows.partition_by(named, as_dict=True, maintain_order=True).items():
            version = read_version(client, view.name, str(name))
            if version is None or version.mended < mended[view.source.name]:
                gone += rows.height
                continue
            computed = rows.filter(~pl.col(of_view(view.name, REPLACED)).fill_null(value=False))
            replaced += rows.height - computed.height
            if computed.height:
                features = [feature for of, feature in service.columns if of is view]
                checked.append(check_vectors(lake, view, plans[view.name], version, features, computed))
    return Canary(
        parity=Parity.joined([one.parity for one in checked]),
        vectors=logged.rows.height,
        other_version=logged.other_version + gone,
        incomplete=logged.incomplete,
        publishing=sum(one.publishing for one in checked),
        unseen=sum(one.unseen for one in checked),
        replaced=replaced,
    )


def check_vectors(
    lake: Lake,
    view: StreamFeatureView,
    plan: Plan,
    version: Version,
    features: Sequence[str],
    rows: pl.DataFrame,
    *,
    load: Load = load_events,
) -> Checked:
    """Compare one view's part of vectors that were served from one version.

    Args:
        lake: where the view's events are.
        view, plan, version: what was served.
        features: which features of the view.
        rows: the vectors, as `served/` has them.
        load: returns days of events, each event once, `id64` unsigned; by default from `events/`.
    """
    asked = Asked.of(view, plan, features)
    plan = asked.plan
    spine = _spine(asked, version, rows)
    spine = spine.with_columns(_next_publication(spine, version))
    given = Vectors(plan, _events(partial(load, lake, view.source), asked, version, spine), spine, rows)
    compared, publishing = _with_publication(given, recomputed(given))
    compared, unsettled = settle(given, compared)
    parity = compare(
        rows.select(*asked.whole.key_names, pl.col(SPINE_TIME).alias(AT)),
        compared,
        damaged=(rows[of_view(plan.view, STATUS)] == "damaged").to_numpy(),
        unsettled=unsettled,
    )
    return Checked(parity, publishing, _unseen(plan, given.events, spine))


def _spine(asked: Asked, version: Version, rows: pl.DataFrame) -> pl.DataFrame:
    """Return whose features were asked for, at which instant, and what the server had seen.

    The watermark was taken before the read, and all that was ingested before it is servable. One that is no later than
    the version's boundary may be the boundary itself, which says nothing of the stream.
    """

    def instant(name: str) -> pl.Expr:
        return pl.col(name).dt.epoch("us").fill_null(BEGINNING)

    sealed = pl.when(instant(WATERMARK) > version.boundary).then(instant(WATERMARK)).otherwise(BEGINNING + 1)
    return rows.select(
        *(pl.col(name).alias(asked.renamed.get(name, name)) for name in asked.whole.key_names),
        instant(SPINE_TIME).alias(AT),
        pl.max_horizontal(instant(of_view(asked.view.name, LAST_INGESTED)), sealed - 1).alias(SEEN),
        instant(of_view(asked.view.name, PUBLISHED_TO)).alias(SEEN_LATE),
        sealed.alias(SEALED),
    )


def _events(
    load: Callable[[Sequence[date]], pl.LazyFrame], asked: Asked, version: Version, spine: pl.DataFrame
) -> pl.DataFrame:
    """Return the events that any row may count, and from when on each may be known."""
    plan, at = asked.plan, spine[AT].to_numpy()
    last = to_datetime(int(at.max())).date()
    begin = to_instant(min(last, asked.view.source.first_day))
    first = to_datetime(max(begin, int(at.min()) - plan.reach - plan.tiles.finest)).date()
    days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
    time, ingested = pl.col(EVENT_TIME), pl.col(INGESTED_AT)
    late = ingested - time > plan.lateness
    in_history = (time < version.boundary) & (~late | (ingested < version.folded_to))
    entities = spine.lazy().select(plan.key_names).unique()
    return (
        project(asked.view, asked.whole, load(days))
        .rename(asked.renamed, strict=False)
        .join(entities, on=list(plan.key_names), how="semi")
        .filter(~in_history | (time >= version.history_from))
        .with_columns(
            *magnitude_columns(plan),
            pl.when(in_history).then(pl.lit(BEGINNING, dtype=pl.Int64)).otherwise(ingested).alias(KNOWN_AT),
            (late & ~in_history).alias(IS_LATE),
        )
        .collect()
    )


def _next_publication(spine: pl.DataFrame, version: Version) -> pl.Series:
    """Return up to when late events were published after the publication that may have been going on, row by row.

    What is published becomes servable entity by entity, of one with salts by partial state, and `published_to` moves
    when all of it is.
    """
    seen = spine[SEEN_LATE].to_numpy()
    known = np.unique(np.append(seen, version.published_to))
    after = np.searchsorted(known, seen, side="right")
    return pl.Series(NEXT_LATE, known[np.minimum(after, len(known) - 1)], dtype=pl.Int64)


def _with_publication(given: Vectors, compared: list[Compared]) -> tuple[list[Compared], int]:
    """Take rows that differ to have been served amid a publication, where all of them agrees then."""
    later = (given.spine[NEXT_LATE] > given.spine[SEEN_LATE]).to_numpy()
    wrong = np.flatnonzero(~agreeing(compared) & later)
    if not len(wrong):
        return compared, 0
    spine = given.spine[wrong].with_columns(pl.col(NEXT_LATE).alias(SEEN_LATE))
    again = recomputed(replace(given, spine=spine, rows=given.rows[wrong]))
    settled = np.flatnonzero(agreeing(again))
    found = [replaced(one, wrong[settled], two, settled) for one, two in zip(compared, again, strict=True)]
    return found, len(settled)


def _unseen(plan: Plan, events: pl.DataFrame, spine: pl.DataFrame) -> int:
    """Count the on-time events that had been ingested by the instants asked, and were not seen."""
    longest = max(plan.windows, key=lambda window: window.reach)
    counting = PlannedFeature(_UNSEEN, "count", "", "i64", longest.reach, longest.exact)
    count = msgspec.structs.replace(plan, features=(counting,))
    later = spine.with_columns(pl.max_horizontal(SEEN, AT).alias(SEEN))
    had, was = (point_in_time(count, events, some)[_UNSEEN].values for some in (spine, later))
    return int((was - had).sum())
