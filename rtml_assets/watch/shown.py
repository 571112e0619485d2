"""Where a look can be seen: in Redis with the last hour of looks, and in a file, since Redis may be what is gone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rtml.online import keys
from rtml_assets.watch.report import Report, Service, Source, decode, encode

if TYPE_CHECKING:
    from redis import Redis

KEPT_LOOKS = 1_800


def report_file(home: Path) -> Path:
    """Return where the last look is."""
    return home / "watch" / "report.json"


def write_file(home: Path, report: Report) -> None:
    """Replace the file; who reads it sees one look or the next, never half of one."""
    file = report_file(home)
    file.parent.mkdir(parents=True, exist_ok=True)
    passing = file.with_suffix(f".{os.getpid()}")
    passing.write_bytes(encode(report))
    passing.replace(file)


def write_redis(client: Redis, report: Report) -> None:
    """Replace the last look, and put its point before the others, the newest first."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set(keys.WATCH, encode(report))
        pipeline.lpush(keys.WATCH_HISTORY, msgspec.json.encode(point(report)))
        pipeline.ltrim(keys.WATCH_HISTORY, 0, KEPT_LOOKS - 1)
        pipeline.execute()


def point(report: Report) -> dict[str, Any]:
    """Return what is kept of a look: `at` (µs), how many alerts are open, and the figures that are plotted."""
    return {
        "at": report.at,
        "alerts": len(report.alerts),
        "sources": {name: _source(source) for name, source in report.sources.items()},
        "views": {name: {"age_ms": view.age_ms} for name, view in report.views.items()},
        "services": {name: _service(service) for name, service in report.services.items()},
        "left": {f"{each.target} {each.name}": each.left for each in report.objectives if each.left is not None},
    }


def read_file(home: Path) -> Report | None:
    """Return the last look; `None` if there was none."""
    file = report_file(home)
    return decode(file.read_bytes()) if file.is_file() else None


def _source(source: Source) -> dict[str, Any]:
    tiles = source.flows.get("tiles")
    if tiles is None:
        return {"state": source.state}
    return {
        "state": source.state,
        "lag_ms": tiles.worst("lag_ms"),
        "heartbeat_ms": tiles.worst("heartbeat_ms"),
        "freshness_ms": tiles.freshness_p99_ms,
        "events_per_second": tiles.events_per_second,
    }


def _service(service: Service) -> dict[str, Any]:
    p99 = service.latency.p99 if service.latency else service.probe_ms
    return {"p99_ms": p99, "requests_per_second": service.requests_per_second, "age_ms": service.age_ms}
