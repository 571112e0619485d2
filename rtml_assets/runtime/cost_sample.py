"""Some entities of a view as they are in Redis, taken apart: which bytes are what."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rtml.algebra.family import RAGGED, Family
from rtml.instants import Instant, format_duration
from rtml.online import codec, keys
from rtml.online.base import BASE, LATE_AT
from rtml.online.codec import FIELD_DTYPE, PREFIX, RAW, Header, Records, raw_count, unfield
from rtml.online.tail import TAIL, joined
from rtml.plan import Plan
from rtml.tiles import Tile
from streaming.positions import read_positions, watermark
from streaming.versions import Version

if TYPE_CHECKING:
    from redis import Redis

STATES, TILES, HOT, HASH, LATE = "states", "raw records", "raw records of hot tiles", "keys and fields", "late events"
UNREACHED = "not pruned yet"
SCANNED_AT_ONCE = 2_000
READ_AT_ONCE = 50
_OWN = {codec.HEADER: "header", codec.LATE: LATE, LATE_AT: LATE, TAIL: "tail", BASE: "base"}

Fields = Mapping[bytes, bytes]


@dataclass
class Sample:
    """Sums over the entities that were measured, in bytes; `sizes` has each entity's own."""

    entities: int = 0
    """How many there are in all, by the share of keys that were looked at; exact if `whole`."""
    whole: bool = False
    sizes: list[int] = field(default_factory=list)
    parts: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    windows: Counter[str] = field(default_factory=Counter)
    families: Counter[Family] = field(default_factory=Counter)
    heavy: set[str] = field(default_factory=set)
    events: int = 0
    written: int = 0
    """What all these events would have the stream write, if each came alone."""


def take_sample(client: Redis, version: Version, most: int, seconds: float) -> Sample:
    """Measure entities as SCAN finds them, which is in no order of theirs, for so long at most."""
    deadline = time.monotonic() + seconds
    tags, sample = _find(client, version, most, deadline)
    sample.heavy = {family_label(family) for family in version.plan.states.families if family.heavy}
    plan = version.plan
    reached = watermark(read_positions(client, keys.position(plan.source), plan.partitions))
    step = max(1, READ_AT_ONCE // plan.salts)
    for start in range(0, len(tags), step):
        if sample.sizes and time.monotonic() >= deadline:
            break
        _measure(client, version, reached, tags[start : start + step], sample)
    return sample


def family_label(family: Family) -> str:
    """Return what a family is called: its kind, and of which column."""
    return f"{family.code}({family.column})" if family.column else str(family.code)


def _find(client: Redis, version: Version, most: int, deadline: float) -> tuple[list[str], Sample]:
    """Return the tags of some entities, and how many there are."""
    suffix = keys.versioned(version.view, version.version)
    found: dict[str, None] = {}
    cursor, seen = 0, 0
    while True:
        scanned: Any = client.scan(cursor, count=SCANNED_AT_ONCE)
        cursor, names = scanned
        seen += len(names)
        ours = [name.decode() for name in names if name.startswith(b"rtml:{") and name.endswith(suffix.encode())]
        found |= dict.fromkeys(keys.parted(name.removesuffix(suffix))[0] for name in ours)
        if cursor == 0 or len(found) >= most or time.monotonic() >= deadline:
            break
    size: Any = client.dbsize()
    entities = len(found) if cursor == 0 else round(len(found) / max(1, seen) * size)
    return list(found)[:most], Sample(entities, whole=cursor == 0)


def _measure(client: Redis, version: Version, reached: Instant, tags: Sequence[str], sample: Sample) -> None:
    """Read some entities whole, with all of their partial states, and ask what Redis takes for them."""
    plan, suffix = version.plan, keys.versioned(version.view, version.version)
    salted = tags if plan.salts == 1 else [keys.salted(tag, salt) for tag in tags for salt in range(plan.salts)]
    names = [(tag + suffix).encode() for tag in salted]
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.hgetall(name)
        pipeline.memory_usage(name, samples=0)
        pipeline.memory_usage(name + b":s", samples=0)
    replies = pipeline.execute()
    entities = list(zip(names, replies[::3], replies[1::3], replies[2::3], strict=True))
    hot = _hot(client, entities)
    packed: list[bytes] = []
    sizes = [0] * len(tags)
    for number, (name, fields, taken, texts) in enumerate(entities):
        if not fields:
            continue  # it went meanwhile, or has no event of that salt
        sizes[number // plan.salts] += taken + (texts or 0) + hot[name]
        sample.parts["texts"] += texts or 0
        sample.parts[HOT] += hot[name]
        sample.parts[HASH] += taken - sum(len(one) + len(value) for one, value in fields.items())
        packed += _take_apart(plan, reached, fields, sample)
    sample.sizes += [size for size in sizes if size]
    _add_families(plan, packed, sample)


def _hot(client: Redis, entities: Sequence[tuple[bytes, Fields, int, int | None]]) -> dict[bytes, int]:
    """Return what the keys of raw records of hot tiles take, by entity."""
    pipeline, owners = client.pipeline(transaction=False), []
    for name, fields, _, _ in entities:
        for tile, value in _tiles(fields).items():
            if tile.level == 0 and value[0] != RAW:
                pipeline.memory_usage(keys.raw(name.decode(), tile.index), samples=0)
                owners.append(name)
    taken = {name: 0 for name, *_ in entities}
    for name, size in zip(owners, pipeline.execute(), strict=True):
        taken[name] += size or 0
    return taken


def _tiles(fields: Fields) -> dict[Tile, bytes]:
    return {unfield(name): value for name, value in fields.items() if len(name) == FIELD_DTYPE.itemsize}


def _take_apart(plan: Plan, reached: Instant, fields: Fields, sample: Sample) -> list[bytes]:
    """Count the bytes of an entity's fields by what they are; return its packed states."""
    for name, part in _OWN.items():
        if name in fields:
            sample.parts[part] += len(name) + len(fields[name])
    tiles = _tiles(fields)
    for tile, value in tiles.items():
        size = FIELD_DTYPE.itemsize + len(value)
        sample.parts[TILES if value[0] == RAW else STATES] += size
        sample.levels[format_duration(plan.ladder[tile.level])] += size
        sample.windows[_needed_by(plan, tile, reached)] += size
        _count_events(plan, tile, tiles, fields.get(TAIL), sample)
    if codec.LATE in fields:
        sample.events += (len(fields[codec.LATE]) - 1) // Records.of(plan).wide.itemsize
    return [value[PREFIX:] for value in tiles.values() if value[0] != RAW]


def _needed_by(plan: Plan, tile: Tile, reached: Instant) -> str:
    """Return the label of the shortest window that may still look at a tile; all that reach further do as well."""
    edge = plan.tiles.end(tile) + plan.lateness + plan.tiles.finest
    for window in sorted(plan.windows, key=lambda window: window.reach):
        if window.lifetime or edge + window.reach > reached:
            return window.label
    return UNREACHED


def _count_events(plan: Plan, tile: Tile, tiles: Mapping[Tile, bytes], tail: bytes | None, sample: Sample) -> None:
    """Count a leaf's events, and what each of them has the stream write: its leaf, and the states above or the tail."""
    layout, value = Records.of(plan), tiles[tile]
    width = layout.of_level(tile.level).itemsize
    if value[0] == RAW:
        events, own = (len(value) - 1) // width, len(value) // 2  # it grew from nothing to what it is
    elif tile.level == 0:
        events = raw_count(value) + joined(plan, tail, tile.index)
        own = width + (0 if plan.tailed else len(value))
    else:
        return
    above = [
        Tile(level, plan.tiles.start(tile) // size) for level, size in enumerate(plan.ladder) if level > tile.level
    ]
    states = sum(len(tiles[one]) for one in above if one in tiles)
    if plan.tailed and (states or value[0] != RAW):
        folded = states + (0 if value[0] == RAW else len(value))
        states = plan.tail_limit // 2 * layout.tailed.itemsize + folded // plan.tail_limit
    sample.events += events
    sample.written += events * (own + states + len(Header().encode()))


def _add_families(plan: Plan, packed: list[bytes], sample: Sample) -> None:
    """Count what each family takes of states, packed."""
    if not packed:
        return
    ragged = plan.states.unpack_bytes(packed) if plan.states.ragged else {}
    for family in plan.states.families:
        for name, kind in family.columns.items():
            if kind == RAGGED:
                sample.families[family] += sum(4 + len(entry) for entry in ragged[name])
            else:
                sample.families[family] += len(packed) * plan.states.types[name].itemsize
