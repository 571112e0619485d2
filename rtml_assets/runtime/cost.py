"""What a view costs: figures from what Redis and the lake hold, or from the plan where they hold nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import polars as pl

from rtml.algebra.family import Family, with_needs
from rtml.instants import DAY
from rtml.lake import Lake
from rtml.plan import Plan
from rtml_assets.runtime.cost_estimate import Estimate, estimate
from rtml_assets.runtime.cost_sample import HASH, HOT, LATE, Sample, family_label, take_sample
from rtml_assets.tables.delta import open_table
from streaming.versions import Version

if TYPE_CHECKING:
    from redis import Redis

MUCH = 0.2
"""From such a share of an entity's bytes on, it is said how to have fewer."""


class Spread(msgspec.Struct, frozen=True):
    """Bytes of an entity; `error` is twice the standard error of the mean of the sample, 0 where all were measured."""

    mean: float
    p50: float
    p95: float
    max: float
    error: float


class FamilyCost(msgspec.Struct, frozen=True):
    """What one family of states takes of an entity, in bytes, and which features read it."""

    family: str
    bytes: float
    features: list[str]


class Table(msgspec.Struct, frozen=True):
    """What a table of the lake takes; `per_event` is by the events of `events/`, of `raw/` by its own rows."""

    bytes: int
    rows: int
    per_event: float | None


class Online(msgspec.Struct, frozen=True):
    """What Redis holds of a view: bytes of an entity are means over the sample, but for `per_entity`."""

    version: str
    entities: int
    entities_exact: bool
    sampled: int
    per_entity: Spread
    parts: dict[str, float]
    levels: dict[str, float]
    windows: dict[str, float]
    """By how far windows reach: bytes of tiles that no shorter window needs."""
    families: list[FamilyCost]
    events: float
    """Events of an entity that its tiles have."""
    per_event: float | None
    written_per_event: float | None
    """What an event makes the stream write, where it comes alone; those that come together share it."""


class Cost(msgspec.Struct, frozen=True):
    """What a view costs; `online` is none where nothing of it is in Redis, and then `estimates` are from the plan."""

    view: str
    entities: int
    """For how many entities `projected` is."""
    projected: float | None
    online: Online | None
    estimates: list[Estimate]
    lake: dict[str, Table]
    advice: list[str]


def cost(
    client: Redis | None,
    version: Version | None,
    plan: Plan,
    lake: Lake,
    *,
    entities: int | None = None,
    sample: int = 1_000,
    seconds: float = 10.0,
) -> Cost:
    """Measure what a view costs online and in the lake; by default the projection is for the entities that there are.

    Args:
        client, version: where and what is served of it, if anything is.
        plan: what is defined.
        lake: where its tables are.
        entities: for how many to project.
        sample: the most entities that are measured.
        seconds: how long to look for them at most.
    """
    found = None if client is None or version is None else take_sample(client, version, sample, seconds)
    tables = _tables(lake, plan)
    if found is None or version is None or not found.sizes:
        return Cost(plan.view, entities or 0, None, None, estimate(plan), tables, [])
    online = _online(version, found)
    count = entities or found.entities
    return Cost(
        plan.view, count, count * online.per_entity.mean, online, [], tables, _advice(version.plan, online, found)
    )


def _online(version: Version, found: Sample) -> Online:
    plan, sampled = version.plan, len(found.sizes)
    families = [
        FamilyCost(family_label(family), found.families[family] / sampled, _readers(plan, family))
        for family in plan.states.families
    ]
    return Online(
        version=version.version,
        entities=found.entities,
        entities_exact=found.whole,
        sampled=sampled,
        per_entity=_spread(found),
        parts=_shares(found.parts, sampled),
        levels=_shares(found.levels, sampled),
        windows=_shares(found.windows, sampled),
        families=sorted(families, key=lambda family: -family.bytes),
        events=found.events / sampled,
        per_event=sum(found.sizes) / found.events if found.events else None,
        written_per_event=found.written / found.events if found.events else None,
    )


def _shares(counts: dict[str, int], sampled: int) -> dict[str, float]:
    return {name: count / sampled for name, count in counts.items()}


def _spread(found: Sample) -> Spread:
    sizes = pl.Series(found.sizes, dtype=pl.Float64)
    mean, p50, p95 = (float(pl.select(value).item()) for value in (sizes.mean(), sizes.median(), sizes.quantile(0.95)))
    whole = found.whole and len(found.sizes) == found.entities
    deviation = sizes.std()
    error = 0.0 if whole or not isinstance(deviation, float) else 2 * deviation / len(found.sizes) ** 0.5
    return Spread(mean, p50, p95, float(max(found.sizes)), error)


def _readers(plan: Plan, family: Family) -> list[str]:
    """Return the features that need a family."""
    return [feature.name for feature in plan.features if family in with_needs(feature.families)]


def _tables(lake: Lake, plan: Plan) -> dict[str, Table]:
    """Return what the tables of the lake take of which a view is made."""
    uris = {"raw": lake.raw(plan.source), "events": lake.events(plan.source), "tiles": lake.tiles(plan.view)}
    sizes = {name: _size(uri) for name, uri in uris.items()}
    known = {name: size for name, size in sizes.items() if size is not None}
    events = known.get("events", (0, 0))[1]
    return {
        name: Table(taken, rows, taken / of if (of := rows if name == "raw" else events) else None)
        for name, (taken, rows) in known.items()
    }


def _size(uri: str) -> tuple[int, int] | None:
    """Return the bytes and rows of a table's files of now, if there is such a table."""
    table = open_table(uri)
    if table is None:
        return None
    files = pl.DataFrame(table.get_add_actions(flatten=True))
    return int(files["size_bytes"].sum()), int(files["num_records"].sum())


def _advice(plan: Plan, online: Online, found: Sample) -> list[str]:
    """Say what would have an entity take less, where that is much of it."""
    total = online.per_entity.mean

    def share(part: float) -> str:
        return f"{part / total:.0%}"

    told = []
    parts = online.parts
    if parts.get(HOT, 0) > MUCH * total and plan.longest_exact > DAY:
        told.append(
            f"{share(parts[HOT])} are raw records that exact tails keep: windows with tail='tile' do without them"
        )
    heavy = [family for family in online.families if family.family in found.heavy and family.bytes > MUCH * total]
    told += [f"{share(one.bytes)} are states of {one.family}, read by {', '.join(one.features)}" for one in heavy]
    longest = max(plan.windows, key=lambda window: window.reach).label
    if len(plan.windows) > 1 and online.windows.get(longest, 0) > MUCH * total:
        told.append(f"{share(online.windows[longest])} are tiles that only the window of {longest} reaches")
    if parts[HASH] > 2 * MUCH * total:
        told.append(
            f"{share(parts[HASH])} are what Redis itself takes for keys and fields: views of one source and entity "
            "that are made one view share a key"
        )
    if parts.get(LATE, 0) > MUCH * total:
        told.append(f"{share(parts[LATE])} are late events: `rtml backfill {plan.view} --rebuild` has them in tiles")
    return told
