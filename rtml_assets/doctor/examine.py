"""The whole examination: each probe bounded in time and apart from the others, so that one that fails hides nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec
import redis

from rtml import instants
from rtml.errors import SettingsError
from rtml.instants import Instant
from rtml.lake import Lake
from rtml.registry import Registry, load
from rtml.settings import Settings, load_settings
from rtml_assets.doctor import lake_tables, processes, redis_server, replica, stream, versions
from rtml_assets.doctor.finding import Finding, found
from rtml_assets.doctor.subject import Subject
from rtml_assets.watch.observe import Observer
from streaming.broker import connect

Probe = Callable[[Subject], list[Finding]]
PROBES: Mapping[str, Probe] = {
    "Redis": redis_server.examine,
    "the replica": replica.examine,
    "the stream": stream.examine,
    "the lake": lake_tables.examine_room,
    "its tables": lake_tables.examine_tables,
    "versions": versions.examine,
    "processes": processes.examine,
}
OF_REDIS = ("the stream", "its tables", "versions")
"""The probes that see nothing without Redis."""
PATIENCE = 10.0
"""Seconds that all probes together may take."""
BETWEEN = 1.5
"""Seconds between the two looks that what moves is judged by."""
REDIS_SECONDS = 2.0


class Examination(msgspec.Struct, frozen=True):
    """What was found, the worst first, and which probes could not look, with the reason."""

    at: Instant
    findings: list[Finding]
    unseen: dict[str, str]

    @property
    def is_critical(self) -> bool:
        """Whether something has to be done at once."""
        return any(finding.severity == "critical" for finding in self.findings)


def examine_project(folder: Path | None = None, between: float = BETWEEN, patience: float = PATIENCE) -> Examination:
    """Examine the project of a folder, by default of this one, as its settings and definitions say."""
    try:
        settings = load_settings(folder=folder)
    except (SettingsError, ValueError, OSError) as error:  # a TOML or JSON that is none is a ValueError
        return Examination(instants.now(), [found("settings_wrong", str(error))], {})
    try:
        registry = load(settings.features)
    # Whatever a module of definitions may raise.
    except Exception as error:  # noqa: BLE001
        wrong = found("definitions_wrong", f"{settings.features} cannot be loaded: {error}", features=settings.features)
        rest = examine(settings, Registry({}, {}, {}, {}), between=between, patience=patience)
        return msgspec.structs.replace(rest, findings=[wrong, *rest.findings])
    return examine(settings, registry, between=between, patience=patience)


def examine(
    settings: Settings, registry: Registry, *, between: float = BETWEEN, patience: float = PATIENCE
) -> Examination:
    """Look twice at what runs, then ask every probe."""
    with subject_of(settings, registry, between) as subject:
        blind = () if subject.second.platform.redis.up else OF_REDIS
        findings, unseen = ask({name: probe for name, probe in PROBES.items() if name not in blind}, subject, patience)
        unseen |= dict.fromkeys(blind, "Redis does not answer")
    findings.sort(key=lambda finding: (finding.severity != "critical", finding.target, finding.name))
    return Examination(subject.now, findings, unseen)


@contextmanager
def subject_of(settings: Settings, registry: Registry, between: float) -> Iterator[Subject]:
    """Look twice at what runs, some seconds apart."""
    with Observer(settings, registry) as observer, connect(settings, timeout=REDIS_SECONDS) as client:
        first = observer.look()
        time.sleep(between)
        second = observer.look()
        yield Subject(settings, registry, client, Lake(settings.lake_root), first, second, instants.now())


def ask(probes: Mapping[str, Probe], subject: Subject, patience: float) -> tuple[list[Finding], dict[str, str]]:
    """Return what probes found in time, and of the others why they did not."""
    findings: dict[str, list[Finding]] = {}
    unseen: dict[str, str] = {}

    def run(name: str, probe: Probe) -> None:
        try:
            findings[name] = probe(subject)
        except redis.RedisError as error:
            unseen[name] = f"Redis does not answer: {error}"
        # Whatever it is: the other probes have their say, and the reason is shown.
        except Exception as error:  # noqa: BLE001
            unseen[name] = f"{type(error).__name__}: {error}"

    threads = {
        name: threading.Thread(target=run, args=(name, probe), name=f"rtml-doctor-{name}", daemon=True)
        for name, probe in probes.items()
    }
    deadline = time.monotonic() + patience
    for thread in threads.values():
        thread.start()
    for name, thread in threads.items():
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            unseen[name] = f"it did not end within {patience:g} s"
    return [finding for name in probes for finding in findings.get(name, ())], dict(unseen)
