"""Vectors of which the log does not tell which events the server had: is there a cut that explains them?

Up to the watermark it had all, and nothing after the entity's `last_ingested`. Between them, where a source has several
partitions, one may have been read further than another; where an entity has partial states (salts), one may have been
written further than another. Of several events of the last instant only one is certain. And of the late events that
were being published, each partial state had all or none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import polars as pl

from quality.parity import LEAST, Compared, agreement
from rtml.algebra.distinct import CountDistinct
from rtml.algebra.family import EVENT_TIME, ID64, Array
from rtml.algebra.uniques import ApproxCountDistinct
from rtml.instants import BEGINNING, SECOND, parse_duration
from rtml.lake import of_view
from rtml.plan import PlannedFeature
from rtml.projection import INGESTED_AT
from rtml.texts import hashes
from rtml_assets.tables.recompute import NEXT_LATE, SEALED, Vectors, agreeing, recomputed, replaced
from rtml_assets.tables.seen import AT, IS_LATE, KNOWN_AT, SEEN, SEEN_LATE

MOST = 7
"""Up to so many doubts of a row, each set of them is tried; of more, values must lie within their events' bounds."""
UNBOUNDED = ("custom",)
"""Aggregates of which nobody can say between which values some events put them; nor of any list."""
EVENTS_AT_ONCE = 2_000_000
_ROW, _DOUBT, _BIT, _SET, _CUT, _SIZE = "__row", "__doubt", "__bit", "__set", "__cut", "__size"
_LEFT, _RIGHT = "__left", "__right"

Unsettled = dict[str, Array]
"""By feature: rows that differ from what is expected, and agree with some cut."""


def settle(given: Vectors, compared: Sequence[Compared]) -> tuple[list[Compared], Unsettled]:
    """Return which values a cut explains; where it explains only some of a row's, the others as that cut has them."""
    found = list(compared)
    unsettled = {one.feature: np.zeros(given.rows.height, dtype=bool) for one in found}
    wrong = np.flatnonzero(~agreeing(found))
    if not len(wrong):
        return found, unsettled
    inside = _inside(given, wrong)
    doubts = inside.group_by(_ROW).agg((pl.col(_BIT).max() + 1).alias(_SIZE)).drop_nulls()
    for cuts in _cuts(given, inside, doubts.filter(pl.col(_SIZE) <= MOST)):
        found = _explained(given, inside, cuts, found, unsettled)
    many = inside.join(doubts.filter(pl.col(_SIZE) > MOST), on=_ROW, how="semi")
    for feature in given.plan.features:
        name = of_view(given.plan.view, feature.name)
        unsettled[name][_within_bounds(given, feature, many)] = True
    return found, unsettled


def _inside(given: Vectors, wrong: Array) -> pl.DataFrame:
    """Return the events in reach of each row's windows that it may have counted, and which of them are doubtful.

    Those that share a bit are one doubt: they were all counted, or none of them was.
    """
    plan, ingested, seen = given.plan, pl.col(INGESTED_AT), pl.col(SEEN)
    rows = given.spine.with_columns(pl.int_range(pl.len()).alias(_ROW))[wrong]
    on_time = ~pl.col(IS_LATE) & (pl.col(KNOWN_AT) != BEGINNING) & (ingested >= pl.col(SEALED))
    tied = on_time & (ingested == seen)
    doubtful = tied & (tied.sum().over(_ROW) > 1)
    if plan.partitions > 1 or plan.salts > 1:
        doubtful |= on_time & (ingested < seen)
    publishing = pl.col(IS_LATE) & (pl.col(KNOWN_AT) > pl.col(SEEN_LATE))
    salt = (pl.col(ID64) % plan.salts).cast(pl.Int64) - plan.salts  # below all numbers of rows
    doubt = pl.when(publishing).then(salt).when(pl.col(_DOUBT)).then(pl.int_range(pl.len()))
    return (
        rows.lazy()
        .join(given.events.lazy(), on=list(plan.key_names), how="inner")
        .with_columns((doubtful | publishing).alias(_DOUBT))
        .filter(
            pl.col(EVENT_TIME) < pl.col(AT),
            pl.col(EVENT_TIME) >= pl.col(AT) - plan.reach - plan.tiles.finest,
            pl.col(KNOWN_AT) <= pl.when(IS_LATE).then(NEXT_LATE).otherwise(SEEN),
        )
        .with_columns((doubt.rank("dense").over(_ROW).cast(pl.Int64) - 1).alias(_BIT))
        .collect()
    )


def _cuts(given: Vectors, inside: pl.DataFrame, doubts: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Return all cuts, that is sets of the doubts, of some rows, so many at a time that their events fit in memory."""
    rows = given.spine.with_columns(pl.int_range(pl.len()).alias(_ROW))
    asked = rows.select(_ROW, AT, SEEN, pl.col(NEXT_LATE).alias(SEEN_LATE))
    events = inside.group_by(_ROW).len()
    weight = pl.col("len").cast(pl.Int64) * pl.lit(2, dtype=pl.Int64).pow(pl.col(_SIZE))
    doubted = doubts.join(events, on=_ROW).sort(_ROW).with_columns(weight.cum_sum() // EVENTS_AT_ONCE)
    for some in doubted.partition_by("len", maintain_order=True):
        sets = pl.int_ranges(pl.lit(2, dtype=pl.Int64).pow(pl.col(_SIZE)))
        cuts = some.select(_ROW, sets.alias(_SET)).explode(_SET).join(asked, on=_ROW)
        yield cuts.with_columns(pl.int_range(pl.len()).alias(_CUT))


def _explained(
    given: Vectors, inside: pl.DataFrame, cuts: pl.DataFrame, compared: Sequence[Compared], unsettled: Unsettled
) -> list[Compared]:
    """Take each row to have been served from the cut that agrees with most of its values."""
    weight = pl.lit(2, dtype=pl.Int64).pow(pl.col(_BIT).clip(0, MOST))
    counted = ~pl.col(_DOUBT) | (pl.col(_SET) // weight % 2 == 1)
    events = inside.drop(AT, SEEN, SEEN_LATE).join(cuts.select(_ROW, _SET, _CUT), on=_ROW).filter(counted)
    plan = msgspec.structs.replace(given.plan, keys=((_CUT, "int"),))
    again = recomputed(Vectors(plan, events, cuts, given.rows[cuts[_ROW].to_numpy()]))
    agreed = np.array([agreement(one) for one in again])
    best = (
        cuts.select(_ROW, _SET, _CUT, pl.Series("agreed", agreed.sum(axis=0)))
        .sort("agreed", _SET, descending=True, maintain_order=True)
        .unique(_ROW, keep="first", maintain_order=True)
    )
    rows, places = best[_ROW].to_numpy(), best[_CUT].to_numpy()
    found = []
    for one, two, agrees in zip(compared, again, agreed, strict=True):
        settled = agrees[places]
        unsettled[one.feature][rows] = settled & ~agreement(one)[rows]
        found.append(replaced(one, rows[~settled], two, places[~settled]))
    return found


def _within_bounds(given: Vectors, feature: PlannedFeature, inside: pl.DataFrame) -> Array:
    """Return the rows whose value could be that of some of the events in a window that holds doubtful ones."""
    plan, name = given.plan, of_view(given.plan.view, feature.name)
    if feature.output.width or feature.aggregate in UNBOUNDED:
        return np.empty(0, dtype=np.int64)
    left, right = feature.span.edges(pl.col(AT), plan.tiles.finest)
    got = given.rows.select(pl.int_range(pl.len()).alias(_ROW), pl.col(name).alias("got"))
    low, high, may_be_null = _bounds(feature, _sure())
    if feature.output.kind == "str":
        # The hash of a string is no bound of another: it is that of an event, or it is not.
        got = got.with_columns(hashes(got["got"]))
        there = (pl.col(feature.column) == pl.col("got")).any()
        low, high = pl.when(there).then(pl.col("got").first()), pl.when(there).then(pl.col("got").first())
    within = pl.when(pl.col("got").is_null()).then(pl.col("null")).otherwise(pl.col("got").is_between("low", "high"))
    return (
        inside.join(got, on=_ROW)
        .with_columns(left.alias(_LEFT), right.alias(_RIGHT))
        .filter(pl.col(EVENT_TIME) >= pl.col(_LEFT), pl.col(EVENT_TIME) < pl.col(_RIGHT))
        .group_by(_ROW)
        .agg(
            pl.col("got").first(),
            (~_sure()).any().alias("doubt"),
            low.alias("low"),
            high.alias("high"),
            may_be_null.alias("null"),
        )
        .filter("doubt", within.fill_null(value=False))[_ROW]
        .to_numpy()
    )


def _sure() -> pl.Expr:
    """Whether an event of a row was certainly counted."""
    return ~pl.col(_DOUBT) & (~pl.col(IS_LATE) | (pl.col(KNOWN_AT) <= pl.col(SEEN_LATE)))


def _bounds(feature: PlannedFeature, sure: pl.Expr) -> tuple[pl.Expr, pl.Expr, pl.Expr]:
    """Return the least and the greatest value of the certain events and some others, and whether it may be null."""
    if not feature.column:
        return *_bounds_of_counts(feature, sure), pl.lit(value=False)
    value = pl.col(feature.column)
    if feature.aggregate == "decayed_sum":
        value = value * _weight(feature)
    known = value.filter(sure)
    if feature.aggregate in ("count_distinct", "approx_count_distinct"):
        return *_distinct_bounds(feature, known, value), pl.lit(value=False)
    may_be_null = known.count() < {"variance": 2, "stddev": 2, "skew": 3, "kurtosis": 4}.get(feature.aggregate, 1)
    if feature.aggregate in ("skew", "kurtosis"):
        # Whatever the numbers, G₁ is at most √n, and G₂ lies between −6 and n; both are null where all are the same.
        most = value.count().cast(pl.Float64) * (1 + 1e-6)
        low, high = (-most.sqrt(), most.sqrt()) if feature.aggregate == "skew" else (pl.lit(-6.0 - 1e-6), most)
        return low, high, may_be_null | (known.min() == known.max())
    spread = value.max() - value.min()
    noise = 1e-9 * value.abs().sum() + LEAST if feature.kind == "f64" or feature.output.kind == "f64" else pl.lit(0)
    others = value.filter(~sure)
    least = known.sum() + others.clip(upper_bound=0).sum() - noise
    greatest = known.sum() + others.clip(0).sum() + noise
    bounds = {
        "sum": (least, greatest),
        "decayed_sum": (least, greatest),
        "sum_rate": (least / _seconds(), greatest / _seconds()),
        "variance": (pl.lit(0.0), spread.cast(pl.Float64) ** 2 / 2 * (1 + 1e-6) + noise),
        "stddev": (pl.lit(0.0), spread / np.sqrt(2) * (1 + 1e-6) + noise),
        **dict.fromkeys(("mean", "share", "decayed_mean"), (value.min() - noise, value.max() + noise)),
    }
    return *bounds.get(feature.aggregate, (value.min(), value.max())), may_be_null


def _distinct_bounds(feature: PlannedFeature, known: pl.Expr, value: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Return how many different values there are at least and at most; a sketch may be off by six standard errors."""
    least, greatest = (some.drop_nulls().n_unique() for some in (known, value))
    aggregate = feature.definition
    if isinstance(aggregate, CountDistinct):
        return least.clip(upper_bound=aggregate.most), greatest.clip(upper_bound=aggregate.most)
    assert isinstance(aggregate, ApproxCountDistinct)
    slack = 6 * aggregate.relative_error
    return least * (1 - slack), greatest * (1 + slack)


def _bounds_of_counts(feature: PlannedFeature, sure: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    if feature.aggregate == "rate":
        return sure.sum() / _seconds(), pl.len() / _seconds()
    if feature.aggregate == "decayed_count":
        weight = _weight(feature)
        return weight.filter(sure).sum() * (1 - 1e-9) - LEAST, weight.sum() * (1 + 1e-9) + LEAST
    return sure.sum(), pl.len()


def _weight(feature: PlannedFeature) -> pl.Expr:
    """Return what is left of each event at its row's instant."""
    half_life = parse_duration(str(dict(feature.parameters)["half_life"]))
    return pl.lit(2.0).pow((pl.col(EVENT_TIME) - pl.col(_RIGHT)).cast(pl.Float64) / half_life)


def _seconds() -> pl.Expr:
    """Return the length of each row's window."""
    return (pl.col(_RIGHT).first() - pl.col(_LEFT).first()) / SECOND
