"""The proof before a promotion: what a version would serve now, against a recompute from all that is mirrored."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import polars as pl

from rtml.define.source import EventSource
from rtml.define.views import StreamFeatureView
from rtml.errors import InstantError, NotReadyError
from rtml.instants import BEGINNING, Instant, now, to_text
from rtml.lake import LAST_INGESTED, WATERMARK, Lake, of_view, raw_schema, unsigned
from rtml.online import keys
from rtml.plan import Plan
from rtml.registry import Registry
from rtml_assets.tables.canary import check_vectors
from rtml_assets.tables.delta import open_table, rows_by_day, scan
from rtml_assets.tables.events import deduplicate
from serving.client import fetch
from serving.features import Lookup, Question
from serving.reader import Turns
from serving.served_rows import served_frame
from serving.state import Snapshot
from streaming.mended import scan_mirrored
from streaming.positions import read_positions, watermark
from streaming.services import Service
from streaming.versions import Version, live_version

if TYPE_CHECKING:
    from redis import Redis

SAMPLE, SEED, ATTEMPTS = 200, 0, 10
RECENT_DAYS = 3
PATIENCE_SECONDS = 90.0
"""How long the mirror may take to hold what was just served."""


def prover(lake: Lake, client: Redis, registry: Registry) -> Callable[[Service], Iterator[str]]:
    """Return what proves a record: for each of its views, a sample of the entities that had events of late."""

    def prove(record: Service) -> Iterator[str]:
        for name, fingerprint in record.fingerprints.items():
            version = live_version(client, name, fingerprint)
            if version is not None:
                features = [feature for view, feature in record.columns if view == name]
                yield from _prove(lake, client, registry.views[name], version, features)

    return prove


def _prove(
    lake: Lake, client: Redis, view: StreamFeatureView, version: Version, features: Sequence[str]
) -> Iterator[str]:
    entities = sample_entities(lake, view, version.plan)
    if not entities or _alone(client, version, features).reach(version) == BEGINNING:
        return
    rows, at = _served_now(client, version, features, entities)
    seen = rows.select(pl.max_horizontal(pl.col(of_view(view.name, LAST_INGESTED), WATERMARK).dt.epoch("us")).max())
    _wait_for_mirror(client, view, seen.item())
    parity = check_vectors(lake, view, version.plan, version, features, rows, load=load_mirrored).parity
    if not parity.agrees:
        yield f"view {view.name!r}: {version.version} at {to_text(at)} is not what the lake says: {parity}"


def sample_entities(lake: Lake, view: StreamFeatureView, plan: Plan) -> list[dict[str, Any]]:
    """Return a seeded sample of the entities with events on the newest days, by their join keys."""
    table = open_table(lake.raw(view.source.name))
    days = sorted(rows_by_day(table))[-RECENT_DAYS:]
    known = scan(table, raw_schema(view.source), days).select(plan.key_names).unique().sort(plan.key_names).collect()
    chosen = random.Random(SEED).sample(range(known.height), min(SAMPLE, known.height))  # nosec B311
    return known[sorted(chosen)].to_dicts()


def load_mirrored(lake: Lake, source: EventSource, days: Sequence[date]) -> pl.LazyFrame:
    """Return days of `raw/`, each event once, `id64` unsigned: what is mirrored, compacted or not."""
    events, _ = deduplicate(source, scan_mirrored(lake, source, days).collect())
    return events.lazy().with_columns(unsigned())


def _alone(client: Redis, version: Version, features: Sequence[str]) -> Snapshot:
    """Return a look at one version, as if a service of its view's name read it."""
    plan = version.plan
    columns = tuple((version.view, feature) for feature in features)
    service = Service(version.view, 1, columns, {version.view: plan.fingerprint})
    streamed = watermark(read_positions(client, keys.position(plan.source), plan.partitions))
    live = {version.view: {plan.fingerprint: version}}
    return Snapshot({service.name: service}, live, {plan.source: streamed})


def _served_now(
    client: Redis, version: Version, features: Sequence[str], entities: Sequence[Mapping[str, Any]]
) -> tuple[pl.DataFrame, Instant]:
    """Return what is served at the watermark, and that; a replay may go past it while it is being read."""
    for attempt in range(ATTEMPTS):
        snapshot = _alone(client, version, features)
        at = snapshot.reach(version)
        try:
            return _serve(client, Question.of(snapshot, version.view, at, "watermark", 0), entities), at
        except InstantError:
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


def _serve(client: Redis, question: Question, entities: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    lookup = Lookup(question, Turns(), question.rows(entities))
    fetch(client, lookup)
    return served_frame(question, entities, lookup.vectors(), now())


def _wait_for_mirror(client: Redis, view: StreamFeatureView, until: Instant) -> None:
    """Return when the lake holds all that was ingested up to an instant."""
    source, deadline = view.source, time.monotonic() + PATIENCE_SECONDS
    while True:
        mirrored = watermark(read_positions(client, keys.mirrored(source.name), source.stream.partitions))
        if mirrored >= until:
            return
        if time.monotonic() > deadline:
            raise NotReadyError(
                f"view {view.name!r} cannot be proven: the mirror of {source.name!r} is at {to_text(mirrored)}, and "
                f"has not come to {to_text(until)} in {PATIENCE_SECONDS:g} s; is its flow running?"
            )
        time.sleep(0.05)
