"""The lake: whether it takes writes, has room, and whether what comes in is built on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import date
from typing import Any, NamedTuple

import msgspec
from deltalake import DeltaTable

from rtml.instants import HOUR, Duration, Instant
from rtml.online import keys
from rtml_assets.doctor.finding import Finding, found
from rtml_assets.doctor.subject import Subject
from rtml_assets.tables.delta import open_table
from rtml_assets.tables.touched import touched_days
from rtml_assets.watch.conditions import DISK_CRITICAL, DISK_WARNING
from rtml_assets.watch.report import Disk, LakeLook

LONG = 3 * HOUR
"""Compaction runs hourly; so long without one is too long."""
NEWEST = 200
"""So many refused events are looked at for their reasons."""


class SourceTables(NamedTuple):
    """What was seen of one source's tables."""

    name: str
    touched: list[date]
    since: Instant | None
    """When `events/` was last written, or `raw/` begun where it never was; wall clock."""
    refused: int
    """In the last minute."""
    reasons: Counter[str]
    """Of the newest refused events."""


def examine_room(subject: Subject) -> list[Finding]:
    """Judge the lake and the disks by the second look."""
    platform = subject.second.platform
    return list(judge_room(platform.lake, platform.disks))


def examine_tables(subject: Subject) -> list[Finding]:
    """Look at each source's tables, and judge."""
    return [finding for name in subject.registry.sources for finding in judge_tables(look(subject, name), subject.now)]


def judge_room(lake: LakeLook, disks: dict[str, Disk]) -> Iterator[Finding]:
    """Return what keeps the platform from writing."""
    if lake.writable is False:
        yield found("lake_unwritable", lake.words)
    for name, disk in disks.items():
        free = disk.free
        if free is not None and free < DISK_WARNING:
            words = f"the disk of {name} ({disk.path}) has {free:.1%} free"
            severity = "critical" if free < DISK_CRITICAL else "warning"
            yield found("disk_full", words, severity=severity, free_bytes=disk.free_bytes, total_bytes=disk.total_bytes)  # type: ignore[arg-type]


def look(subject: Subject, name: str) -> SourceTables:
    """Return what there is to see of a source's tables.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    lake, source = subject.lake, subject.registry.source(name)
    plans = [subject.registry.plans[view.name] for view in subject.registry.views_of(name)]
    raw, events = open_table(lake.raw(name)), open_table(lake.events(name))
    since = _last_commit(events) if events is not None else _begun(raw)
    newest: Any = subject.client.lrange(keys.dead(name), 0, NEWEST - 1)
    reasons = Counter(str(msgspec.json.decode(text)["detail"]).partition(":")[0] for text in newest)
    flows = subject.second.sources[name].flows.values()  # both pass the same gate, and one of them counts
    refused = max((flow.minute.get("refused", 0) for flow in flows), default=0)
    return SourceTables(name, touched_days(lake, source, plans), since, refused, reasons)


def _last_commit(table: DeltaTable) -> Instant:
    return int(table.history(limit=1)[0]["timestamp"]) * 1_000


def _begun(table: DeltaTable | None) -> Instant | None:
    created = None if table is None else table.metadata().created_time
    return None if created is None else created * 1_000


def judge_tables(tables: SourceTables, now: Instant, long: Duration = LONG) -> Iterator[Finding]:
    """Return what a source's tables lack."""
    target = f"source:{tables.name}"
    if tables.touched and tables.since is not None and now - tables.since > long:
        hours = (now - tables.since) / HOUR
        words = f"{len(tables.touched):,} days are not built from all events, and none was for {hours:.1f} h"
        days = [str(day) for day in (tables.touched[0], tables.touched[-1])]
        yield found(
            "not_compacted", words, target, days=len(tables.touched), first_and_last=days, hours=round(hours, 1)
        )
    if tables.refused:
        common = [f"{reason}: {count}" for reason, count in tables.reasons.most_common(3)]
        words = f"{tables.refused:,} events were refused in the last minute"
        yield found("quarantine_grows", words, target, refused=tables.refused, newest_reasons=common)
