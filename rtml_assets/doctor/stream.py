"""The flows: whether they run, move on, have all their partitions, and run by the contract that is defined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rtml.instants import SECOND, Duration, Instant
from rtml_assets.doctor.finding import Finding, found
from rtml_assets.doctor.subject import Subject
from rtml_assets.watch.report import Flow, Partition, Source
from streaming.contracts import history, running

GRACE = 5 * SECOND
"""How much longer than two epochs a flow may be silent."""


class SourceState(NamedTuple):
    """What was seen of one source."""

    name: str
    first: Source
    second: Source
    silent_after: dict[str, Duration]
    """By flow: how old its figures may be."""
    now: Instant
    held: str = ""
    """Why its flows do not run by the definitions."""
    version: int = 0
    """That of the contract in force."""
    behind: tuple[str, ...] = ()
    """Flows that run by another contract."""


def examine(subject: Subject) -> list[Finding]:
    """Look, and judge."""
    return [finding for name in subject.registry.sources for finding in judge(look(subject, name))]


def look(subject: Subject, name: str) -> SourceState:
    """Return what there is to see of a source.

    Raises:
        redis.RedisError: Redis does not answer.
    """
    settings = subject.settings
    epochs = {"tiles": settings.tile_epoch_us, "mirror": settings.mirror_epoch_us}
    had = history(subject.lake, name)
    flows = running(subject.client, name)
    return SourceState(
        name,
        subject.first.sources[name],
        subject.second.sources[name],
        {flow: 2 * epoch + GRACE for flow, epoch in epochs.items()},
        subject.now,
        subject.second.sources[name].held,
        had[-1].version if had else 0,
        tuple(sorted(flow for flow, contract in flows.items() if had and contract != had[-1].contract.hash)),
    )


def judge(state: SourceState) -> Iterator[Finding]:
    """Return what is wrong with a source."""
    target = f"source:{state.name}"
    if state.held:
        yield found("contract_held", "its flows go on under the contract in force", target, words=state.held)
    elif state.behind:
        words = f"flow {' and '.join(state.behind)} runs by another contract than version {state.version}"
        yield found("contract_behind", words, target, flows=list(state.behind), version=state.version)
    for name, flow in state.second.flows.items():
        yield from _flow(target, name, flow, state)
    yield from _partitions(target, state.second)


def _flow(target: str, name: str, flow: Flow, state: SourceState) -> Iterator[Finding]:
    if flow.updated_at is None:
        yield found("flow_never_ran", f"flow {name!r} never ran", target, flow=name)
        return
    age = state.now - flow.updated_at
    if age > state.silent_after[name]:
        words = f"flow {name!r} was last heard of {age / SECOND:.0f} s ago"
        yield found("flow_silent", words, target, flow=name, silent_s=round(age / SECOND, 1))
    before = {part.partition: part for part in state.first.flows[name].partitions} if name in state.first.flows else {}
    for part in flow.partitions:
        if _is_stuck(before.get(part.partition), part, state.silent_after[name]):
            words = f"flow {name!r} does not move in partition {part.partition}: {part.lag_entries:,} entries wait"
            yield found(
                "position_stuck",
                words,
                target,
                flow=name,
                partition=part.partition,
                offset=part.offset,
                lag_entries=part.lag_entries,
                lag_ms=part.lag_ms,
            )


def _is_stuck(before: Partition | None, part: Partition, bound: Duration) -> bool:
    """Whether entries have waited for longer than they should, and none was taken between the looks."""
    waits = bool(part.lag_entries) and (part.lag_ms or 0.0) * 1_000 > bound
    return waits and before is not None and before.offset == part.offset


def _partitions(target: str, source: Source) -> Iterator[Finding]:
    tiles = source.flows.get("tiles")
    if tiles is None:
        return
    never = [part.partition for part in tiles.partitions if part.lag_entries is None and part.ingested_at is None]
    if len(never) == len(tiles.partitions):
        yield found("source_never_written", "no event was ever sent", target, partitions=len(never))
    elif never:
        words = f"partition {', '.join(map(str, never))} of {len(tiles.partitions)} was never written"
        yield found("partition_never_written", words, target, partitions=[str(number) for number in never])
