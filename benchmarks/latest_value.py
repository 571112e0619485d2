"""The latest values of 20,000 cards at 100,000 instants: a training set from Delta, beside Feast's from Parquet.

Every card has as many payments as any other, and all payments lie in reach of all rows: with frequent and rare cards
Feast, which pairs a row with all of its card's payments before it looks at their times, would need far more memory.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

import rtml
from benchmarks import feast_join
from benchmarks.feast_env import PeerError, environment, ran
from benchmarks.rows import Row, faster
from rtml import Entity, EventSource, FeatureService, Last, RedisStream, StreamFeatureView
from rtml.columns import SPINE_TIME, TIMESTAMP
from rtml.instants import DAY, SECOND
from rtml.lake import Lake
from rtml.registry import Registry
from rtml.settings import Settings
from rtml_assets.runtime.redis_server import EmbeddedRedis
from rtml_assets.store import FeatureStore
from rtml_assets.tables.events import compact_events
from rtml_assets.tables.land import land
from streaming.broker import connect

EVENTS, SPINE, CARDS, DAYS = 2_000_000, 100_000, 20_000, feast_join.TTL_DAYS
START = 1_767_225_600 * SECOND
"""The first instant: 2026-01-01."""
AIM = 20.0
RUNS = 5
PEER_FILES = 8
"""So many Parquet files hold Feast's events: of a single one its join takes longer."""
ANSWERING_SECONDS = 1_800


class Payment(rtml.Event):
    payment_id: str
    at: rtml.Timestamp
    card: int
    amount: float = rtml.Field(ge=0)
    merchant: int


payments = EventSource(
    name="payments", schema=Payment, timestamp="at", event_id="payment_id", stream=RedisStream("payments")
)
latest = StreamFeatureView(
    name=feast_join.VIEW,
    source=payments,
    entity=Entity(feast_join.KEY),
    features=[Last("amount", windows=[f"{DAYS}d"]), Last("merchant", windows=[f"{DAYS}d"])],
    tail="exact",
)
service = FeatureService("latest_values", features=[latest])


class Answer(NamedTuple):
    """The least seconds by the clock and of all processors, and the values in the spine's order."""

    seconds: float
    work: float
    values: pl.DataFrame


def run() -> list[Row]:
    """Return rows to print; without Feast, ours and the reason."""
    what = f"the latest {len(feast_join.FEATURES)} values, {SPINE:,} rows × {EVENTS:,} events: Feast, from Parquet"
    events, spine = history(), instants()
    with tempfile.TemporaryDirectory() as folder:
        ours = answered(Path(folder), events, spine)
        try:
            python = environment()
            peer = peer_answered(python, Path(folder), events, spine)
        except PeerError as error:
            return [Row(what, f"{ours.seconds:.2f} s", aim=f"≥ {AIM:g}×", verdict=f"not compared: {error}")]
    equal, compared = agreeing(ours.values, peer.values), spine.height * len(feast_join.FEATURES)
    return [
        faster(what, ours.seconds, peer.seconds, AIM),
        Row("  of all processors", f"{ours.work:.2f} s", f"{peer.work:.2f} s", f"{peer.work / ours.work:.1f}×"),
        Row(f"  values that are the same: {equal:,} of {compared:,}", "", "", f"{equal / compared:.4f}"),
        Row("  rows without a payment before them", f"{unpaid(ours.values):,}", f"{unpaid(peer.values):,}"),
    ]


def history() -> pl.DataFrame:
    """Return payments as `land` takes them, at even microseconds, no two of a card at the same."""
    rng = np.random.default_rng(1)
    times = START + 2 * rng.integers(0, DAYS * DAY // 2, EVENTS)
    frame = pl.DataFrame(
        {
            "payment_id": np.arange(EVENTS).astype(str),
            "at": times,
            "card": rng.integers(0, CARDS, EVENTS),
            "amount": rng.gamma(2.0, 30.0, EVENTS),
            "merchant": rng.integers(0, 5_000, EVENTS),
            "ingested_at": times + rng.integers(0, 2 * SECOND, EVENTS),
        }
    )
    once = frame.unique(["card", "at"], keep="first", maintain_order=True)
    return once.sort("at").with_columns(pl.col("at", "ingested_at").cast(TIMESTAMP))


def instants() -> pl.DataFrame:
    """Return a spine at odd microseconds: where an instant is an event's, Feast counts the event and we do not.

    Feast returns one row for a card and an instant, however often they are asked for; here none is twice.
    """
    rng = np.random.default_rng(2)
    at = START + 2 * rng.integers(0, DAYS * DAY // 2, SPINE * 2) + 1
    drawn = pl.DataFrame({feast_join.KEY: rng.integers(0, CARDS, SPINE * 2), SPINE_TIME: at})
    once = drawn.unique(maintain_order=True).head(SPINE).with_row_index(feast_join.NUMBER)
    return once.with_columns(pl.col(feast_join.NUMBER).cast(pl.Int64), pl.col(SPINE_TIME).cast(TIMESTAMP))


def answered(folder: Path, events: pl.DataFrame, spine: pl.DataFrame) -> Answer:
    """Land and compact the events, and answer from Delta."""
    with EmbeddedRedis(folder) as server, connect(server.url) as client:
        settings = Settings(home=str(folder), redis_url=server.url)
        lake = Lake(settings.lake_root)
        land(lake, client, payments, events)
        compact_events(lake, payments, events["at"].dt.date().unique().sort().to_list())
        with FeatureStore(settings, Registry.of([service])) as store:
            runs, answers = [], spine
            for _ in range(RUNS):
                started, worked = time.perf_counter(), time.process_time()
                answers = store.get_historical_features(service.name, spine, known_at="hindsight")
                runs.append((time.perf_counter() - started, time.process_time() - worked))
    names = {f"{latest.name}__{name}_last_{DAYS}d": name for name in feast_join.FEATURES}
    values = answers.select(feast_join.NUMBER, *names).rename(names)
    return Answer(min(seconds for seconds, _ in runs), min(work for _, work in runs), values)


def peer_answered(python: Path, folder: Path, events: pl.DataFrame, spine: pl.DataFrame) -> Answer:
    """Answer the same rows with Feast, from Parquet.

    Feast leaves a row out whose card has payments, but all of them after it: that is a null here.

    Raises:
        PeerError: it failed.
    """
    (folder / feast_join.EVENTS).mkdir()
    kept = events.select(feast_join.KEY, feast_join.TIME, *feast_join.FEATURES)
    for number, part in enumerate(kept.iter_slices(-(-kept.height // PEER_FILES))):
        part.write_parquet(folder / feast_join.EVENTS / f"{number}.parquet")
    spine.rename({SPINE_TIME: "event_timestamp"}).write_parquet(folder / feast_join.SPINE)
    script = str(Path(feast_join.__file__))
    printed = ran([str(python), "-I", script, str(folder)], ANSWERING_SECONDS, "Feast failed")
    answers = pl.read_parquet(folder / feast_join.ANSWERS)
    made = spine.select(feast_join.NUMBER).join(answers, on=feast_join.NUMBER, how="left", maintain_order="left")
    figures = json.loads(printed.splitlines()[-1])
    return Answer(figures["seconds"], figures["work"], made)


def agreeing(found: pl.DataFrame, made: pl.DataFrame) -> int:
    """Count the values that are the same to the last bit, or missing in both."""
    return sum(int(_numbers(found, name).eq_missing(_numbers(made, name)).sum()) for name in feast_join.FEATURES)


def unpaid(answers: pl.DataFrame) -> int:
    """Count the rows without a value."""
    return int(_numbers(answers, feast_join.FEATURES[0]).null_count())


def _numbers(frame: pl.DataFrame, name: str) -> pl.Series:
    """Return a column as Pandas has it where something is missing: floats, though missing is null."""
    return frame[name].cast(pl.Float64).fill_nan(None)
