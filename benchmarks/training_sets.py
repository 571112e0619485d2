"""Point-in-time training sets: exact windows at a million instants over ten million events, beside DuckDB's windows."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import duck, history
from benchmarks.rows import Row, at_most, faster
from rtml.algebra.family import Values
from rtml.compile import compile_view
from rtml.define.views import StreamFeatureView
from rtml.instants import HOUR
from rtml.point_in_time.join import point_in_time

EVENTS, SPINE, DAYS = 10_000_000, 1_000_000, 30
PEER_SCALE = 10
"""DuckDB answers a tenth of the rows from a tenth of the events and keys: all of them take it many minutes."""
AIMS = {"moments": 20.0, "ends": 10.0}
LINEAR, MEMORY = 1.3, 4.0


def run(scale: int = PEER_SCALE) -> list[Row]:
    """Return rows to print; the peer gets one `scale`-th of the events, rows and keys."""
    rows = []
    for view in (history.moments, history.ends):
        rows += against_duckdb(view, scale)
    rows += [late_ones(scale), *full_size()]
    return rows


def against_duckdb(view: StreamFeatureView, scale: int) -> list[Row]:
    """Answer the same on both, and compare all values."""
    events, spine = inputs(view, EVENTS // scale, SPINE // scale, history.KEYS // scale, hindsight=True)
    plan = compile_view(view)
    ours, values = timed(view, events, spine)
    raw = history.events(EVENTS // scale, history.KEYS // scale, DAYS)
    peer = duck.events_and_spine(raw, spine)
    seconds = peer.timed(duck.windowed(plan))
    names = " ".join(dict.fromkeys(feature.aggregate for feature in plan.features))
    size = f"{spine.height:,} rows × {events.height:,} events"
    equal = agreeing(values, peer.made())
    compared = len(plan.features) * spine.height
    return [
        faster(f"{names} over 1h/24h/7d, {size}: DuckDB RANGE BETWEEN", ours, seconds, AIMS[view.name]),
        Row(f"  values that are the same: {equal:,} of {compared:,}", "", "", f"{equal / compared:.4f}"),
    ]


def agreeing(values: Mapping[str, Values], made: Mapping[str, np.ma.MaskedArray[Any, Any]]) -> int:
    """Count equal values: floats to nine digits, standard deviations to six."""
    equal = 0
    for name, (found, valid, _) in values.items():
        present = ~np.ma.getmaskarray(made[name])
        digits = 1e-6 if name.startswith("amount_stddev") else 1e-9
        close = np.isclose(found, made[name].filled(0), rtol=digits, atol=0)
        equal += int(np.sum(np.where(present & valid, close, present == valid)))
    return equal


def late_ones(scale: int) -> Row:
    """Measure what it costs that a twentieth of the events is late, and published an hour later."""
    view, count, keys = history.moments, EVENTS // scale, history.KEYS // scale
    events, spine = inputs(view, count, SPINE // scale, keys, hindsight=False)
    without, _ = timed(view, events, spine)
    seconds, _ = timed(view, history.with_late(events, 0.05, HOUR), spine)
    what = f"  {view.name}, {spine.height:,} rows × {count:,} events, 5 % of them late and published 1h later"
    return Row(what, f"{without:.2f} → {seconds:.2f} s", "", f"{seconds / without:.1f}×")


def full_size() -> list[Row]:
    """Measure ours at full size: both sights, growth, and memory."""
    rows, grown = [], {}
    for view in (history.moments, history.ends):
        for hindsight in (True, False):
            events, spine = inputs(view, EVENTS, SPINE, history.KEYS, hindsight=hindsight)
            seconds, _ = timed(view, events, spine)
            if view is history.moments and not hindsight:
                grown[EVENTS] = seconds
            sight = "hindsight" if hindsight else "what serving knew"
            rows.append(Row(f"{view.name}, {SPINE:,} rows × {EVENTS:,} events, {sight}", f"{seconds:.2f} s"))
    for count in (EVENTS // 10, 3 * EVENTS // 10):
        events, spine = inputs(history.moments, count, SPINE, history.KEYS, hindsight=False)
        grown[count], _ = timed(history.moments, events, spine)
    one = grown[EVENTS // 10]
    for count in (3 * EVENTS // 10, EVENTS):
        times, figure = count * 10 // EVENTS, f"{one:.2f} → {grown[count]:.2f} s"
        rows.append(at_most(f"  {times}× the events: time beyond {times}×", figure, grown[count] / one / times, LINEAR))
    rows += [peak(view) for view in (history.moments, history.ends)]
    return rows


def inputs(
    view: StreamFeatureView, events: int, spine: int, keys: int, *, hindsight: bool
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return events and spine as the engine takes them."""
    rows = history.known_events(view, history.events(events, keys, DAYS))
    return rows, history.spine(spine, keys, DAYS, hindsight=hindsight)


def timed(view: StreamFeatureView, events: pl.DataFrame, spine: pl.DataFrame) -> tuple[float, dict[str, Values]]:
    """Return the seconds that the engine takes, and its values."""
    plan = compile_view(view)
    started = time.perf_counter()
    values = point_in_time(plan, events, spine)
    return time.perf_counter() - started, values


def peak(view: StreamFeatureView) -> Row:
    """Measure a child's peak memory, from after its imports to the end: the inputs, all work, and the values."""
    with tempfile.TemporaryDirectory() as folder:
        events, spine = inputs(view, EVENTS, SPINE, history.KEYS, hindsight=False)
        events.write_ipc(Path(folder) / "events.arrow")
        spine.write_ipc(Path(folder) / "spine.arrow")
        size = events.estimated_size() + spine.estimated_size()
        del events, spine
        argv = [sys.executable, "-m", "benchmarks.training_sets", view.name, folder]
        used = json.loads(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)
    figure = f"{used / 2**20:,.0f} of {size / 2**20:,.0f} MiB"
    return at_most(f"  {view.name}: peak of inputs, work and values over inputs", figure, used / size, MEMORY)


def child(name: str, folder: Path) -> int:
    """Read the inputs, answer, and return by how many bytes the peak of resident memory rose since the imports."""
    before = _high_water()
    frames = [pl.read_ipc(folder / f"{part}.arrow") for part in ("events", "spine")]
    point_in_time(compile_view({"moments": history.moments, "ends": history.ends}[name]), *frames)
    return _high_water() - before


def _high_water() -> int:
    """Return the most bytes of memory that this process ever had resident (`ru_maxrss` would count its parent's)."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(child(sys.argv[1], Path(sys.argv[2]))))
