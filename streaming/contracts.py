"""The contracts that a source has had: a table in the lake, the last of them in force; and what a flow starts with.

A new contract is registered by the first flow that starts with it, if the last one allows it. A flow that is asked to
start with any other, or with definitions that cannot be loaded, goes on as it last ran: by the contract in force and
with the versions that it wrote. So an edit on disk neither stops the stream nor gets in; `rtml deploy` refuses it
before anything restarts, and the watch says that the flow is `held`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import polars as pl
from deltalake import write_deltalake

from rtml import instants
from rtml.columns import TIMESTAMP
from rtml.define.compatibility import Change, compare, stored_types
from rtml.define.source import EventSource
from rtml.define.written import Contract, Kept
from rtml.errors import RequestError
from rtml.instants import SECOND, Instant
from rtml.lake import Lake
from rtml.online import keys
from rtml.projection import Projection
from rtml.registry import Registry, load
from streaming.delta import open_table, scan
from streaming.services import meanings_in_use
from streaming.versions import read_version

if TYPE_CHECKING:
    from redis import Redis

log = logging.getLogger(__name__)

SCHEMA: dict[str, pl.DataType] = {
    "version": pl.Int32(),
    "hash": pl.String(),
    "contract": pl.String(),
    "registered_at": TIMESTAMP,
    "compatibility": pl.String(),
}
LOCK_SECONDS = 60


class Registered(NamedTuple):
    """One version of a source's contract."""

    version: int
    contract: Contract
    registered_at: Instant
    compatibility: str


class Judgement(NamedTuple):
    """What a source's contract is to the one in force: nothing is in force before the first event flows."""

    contract: Contract
    in_force: Registered | None
    changes: list[Change]

    @property
    def refused(self) -> list[Change]:
        """The changes that may not be."""
        return [change for change in self.changes if not change.allowed]

    @property
    def is_new(self) -> bool:
        """Whether it is another contract than the one in force."""
        return self.in_force is None or self.in_force.contract.hash != self.contract.hash


def history(lake: Lake, source: str) -> list[Registered]:
    """Return the contracts that a source has had, the oldest first."""
    rows = scan(open_table(lake.contracts(source)), SCHEMA).sort("version").collect()
    return [
        Registered(row["version"], Contract.decode(row["contract"]), row["registered_at"], row["compatibility"])
        for row in rows.with_columns(pl.col("registered_at").dt.epoch("us")).iter_rows(named=True)
    ]


def judge(lake: Lake, source: EventSource, client: Redis | None = None) -> Judgement:
    """Hold a source's contract against the one in force; with a `client`, also against what is served."""
    had = history(lake, source.name)
    contract = Contract.of(source)
    if not had:
        return Judgement(contract, None, [])
    used = {} if client is None else columns_in_use(client, source.name)
    stored = stored_types(one.contract for one in had)
    changes = compare(had[-1].contract, contract, source.compatibility, stored=stored, used=used)
    return Judgement(contract, had[-1], changes)


def columns_in_use(client: Redis, source: str) -> dict[str, str]:
    """Return the columns without which what is written could not be, each with who needs it."""
    found: dict[str, str] = {}
    for view, version in written_versions(client, source):
        stored = read_version(client, view, version)
        if stored is None:
            continue
        projection = stored.projection
        derived = set() if projection is None else set(projection.derive)
        needed = {*stored.plan.key_names, *stored.plan.lanes, *_roots(view, projection)} - derived
        found |= dict.fromkeys(needed, f"view {view!r}, as it is written now,")
    return found


def _roots(view: str, projection: Projection | None) -> Iterable[str]:
    return () if projection is None else projection.roots(view)


def written_versions(client: Redis, source: str) -> list[tuple[str, str]]:
    """Return the versions that a source's tiles flow writes: view and version."""
    stored: set[Any] = client.smembers(keys.written(source))
    pairs = [name.decode().rpartition("@") for name in stored]
    return sorted((view, version) for view, _, version in pairs)


def is_served(client: Redis, source: str) -> bool:
    """Whether a service reads what a source's tiles flow writes."""
    in_use = meanings_in_use(client, instants.now())
    return any(view in in_use for view, _ in written_versions(client, source))


def refuse_other(lake: Lake, source: EventSource) -> None:
    """Let nothing be written to the lake by a contract that the one in force does not allow.

    Raises:
        RequestError: names the changes.
    """
    judgement = judge(lake, source)
    if judgement.refused:
        raise RequestError(refusal(source.name, judgement))


def refusal(source: str, judgement: Judgement) -> str:
    """Return in words why a contract is refused."""
    version = judgement.in_force.version if judgement.in_force else 0
    lines = [f"- {change}" for change in judgement.refused]
    words = f"source {source!r}: its contract is not compatible with version {version}, which is in force:"
    return "\n".join([words, *lines])


def register(client: Redis, lake: Lake, source: EventSource, *, force: bool = False) -> Judgement:
    """Put a source's contract in force if the one before allows it, and say what it is to that one.

    `force` puts one in force that is refused, but for what the platform could not follow.
    """
    with client.lock(keys.contract_lock(source.name), timeout=LOCK_SECONDS):
        judgement = judge(lake, source, client)
        insist = force and not any(change.final for change in judgement.refused)
        if judgement.is_new and (insist or not judgement.refused):
            _append(client, lake, source, judgement)
            log.info("%s: contract version %d is in force", source.name, _next(judgement))
            return Judgement(judgement.contract, judgement.in_force, [] if insist else judgement.changes)
    return judgement


def former_contracts(lake: Lake, source: EventSource) -> list[tuple[Instant, EventSource]]:
    """Return a source as it was with each of its former contracts, and up to when that was in force."""
    kept = Kept.of(source)
    return [
        (after.registered_at, kept.source(before.contract)) for before, after in pairwise(history(lake, source.name))
    ]


def _append(client: Redis, lake: Lake, source: EventSource, judgement: Judgement) -> None:
    seconds, micros = client.time()  # the clock by which entries arrive
    row = {
        "version": [_next(judgement)],
        "hash": [judgement.contract.hash],
        "contract": [judgement.contract.encode().decode()],
        "registered_at": pl.Series([seconds * SECOND + micros]).cast(TIMESTAMP),
        "compatibility": [source.compatibility],
    }
    write_deltalake(lake.contracts(source.name), pl.DataFrame(row, schema=SCHEMA), mode="append")


def _next(judgement: Judgement) -> int:
    return 1 if judgement.in_force is None else judgement.in_force.version + 1


def runs_by(client: Redis, lake: Lake, name: str, flow: str, features: str) -> tuple[EventSource, Registry]:
    """Return what a source's flow runs by, and note it: its definition, or what it ran by before where that may not be.

    Where it may not, the registry is empty: the flow writes what it wrote.

    Raises:
        RequestError: it may not, and never ran; with the reason.
        UnknownNameError: the source is defined no longer, and nothing that it fills is served.
    """
    source, registry = _chosen(client, lake, name, features)
    client.hset(keys.contract(name), flow, Contract.of(source).hash)
    return source, registry


def _chosen(client: Redis, lake: Lake, name: str, features: str) -> tuple[EventSource, Registry]:
    try:
        registry = load(features)
    except Exception as error:  # noqa: BLE001
        return _go_on(client, lake, name, f"source {name!r}: the definitions cannot be loaded: {error}")
    if name not in registry.sources and is_served(client, name):
        return _go_on(client, lake, name, f"source {name!r} is defined no longer, and what it fills is served")
    source = registry.source(name)
    kept = Kept.of(source, registry.partition_key(name))
    judgement = register(client, lake, source)
    if judgement.refused:
        return _go_on(client, lake, name, refusal(name, judgement), kept)
    _note(client, kept, "")
    return source, registry


def _go_on(
    client: Redis, lake: Lake, name: str, reason: str, defined: Kept | None = None
) -> tuple[EventSource, Registry]:
    """Return what a source's flow last ran by; a Redis that lost that has to be told by a definition that loads."""
    stored: Any = client.hget(keys.contract(name), keys.KEPT)
    kept = defined if stored is None else msgspec.json.decode(stored, type=Kept)
    if kept is None:
        raise RequestError(reason)
    if had := history(lake, name):
        kept = msgspec.structs.replace(kept, contract=had[-1].contract)
    words = f"{reason}\nThe flow goes on as before: by the contract in force, with the versions that it wrote"
    log.error(words)
    _note(client, kept, words)
    return kept.source(), Registry({}, {}, {}, {})


def _note(client: Redis, kept: Kept, held: str) -> None:
    """Note what a source's flows run by, which is also what pushed events are judged by."""
    noted: dict[Any, Any] = {keys.KEPT: msgspec.json.encode(kept), keys.HELD: held}
    client.hset(keys.contract(kept.name), mapping=noted)


def held(client: Redis, source: str) -> str:
    """Return why a source's flows do not run by the definitions; empty when they do."""
    words: Any = client.hget(keys.contract(source), keys.HELD)
    return words.decode() if words else ""


def running(client: Redis, source: str) -> dict[str, str]:
    """Return the hash of the contract that each of a source's flows runs by."""
    stored: dict[Any, Any] = client.hgetall(keys.contract(source))
    return {
        flow.decode(): text.decode() for flow, text in stored.items() if flow.decode() not in (keys.KEPT, keys.HELD)
    }
