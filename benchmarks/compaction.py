"""Compaction: a day of ten million events to three levels of tiles, beside DuckDB's `GROUP BY` of the same."""

from __future__ import annotations

import time

from benchmarks import duck, history
from benchmarks.rows import Row, faster
from rtml.compile import compile_view
from rtml_assets.tables.tiles import build_tiles

EVENTS = 10_000_000
AIM = 1.0


def run() -> list[Row]:
    """Return rows to print."""
    plan = compile_view(history.tiled)
    events = history.events(EVENTS, history.KEYS, 1)
    started = time.perf_counter()
    tiles = build_tiles(history.tiled, plan, events.lazy())
    ours = time.perf_counter() - started
    amounts = {"card": events["card"].to_numpy(), "t": duck.times(events), "amount": events["amount"].to_numpy()}
    peer = duck.Duck(events=amounts)
    seconds = peer.timed(duck.tiled(plan))
    made = peer.count()
    return [
        faster(f"{EVENTS:,} events of a day, {history.KEYS:,} Zipf keys, to three levels of tiles", ours, seconds, AIM),
        Row("  tiles", f"{tiles.height:,}", f"{made:,}"),
    ]
