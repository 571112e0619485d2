"""`rtml contracts`: what definitions ask of events against what is in force, and what was in force before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rtml.define.source import EventSource
from rtml.define.written import Contract
from rtml.errors import NotReadyError, UnknownNameError
from rtml.instants import to_text
from rtml.lake import Lake
from rtml.registry import Registry
from streaming.contracts import Judgement, history, judge, refusal, register, running

if TYPE_CHECKING:
    from redis import Redis


def judged(client: Redis, lake: Lake, sources: Iterable[EventSource]) -> dict[str, Judgement]:
    """Return what each source's contract is to the one in force."""
    return {source.name: judge(lake, source, client) for source in sources}


def rendered(found: dict[str, Judgement]) -> RenderableType:
    """Return every change as a line, under what each source's contract is to the one in force."""
    return Group(*(line for name, judgement in found.items() for line in _lines(name, judgement)))


def behind(client: Redis, found: dict[str, Judgement]) -> list[str]:
    """Say which flows run by another contract than the one in force: they would refuse what only that one accepts."""
    return [
        f"flow {flow!r} of source {name!r} does not run by version {one.in_force.version} yet: wait with new events"
        for name, one in found.items()
        if one.in_force is not None
        for flow, running_by in running(client, name).items()
        if running_by != one.in_force.contract.hash
    ]


def _lines(name: str, judgement: Judgement) -> Iterator[RenderableType]:
    if judgement.in_force is None:
        yield Text(f"{name}: no contract is in force yet; the first flow that starts registers this one")
        return
    version = judgement.in_force.version
    if not judgement.is_new:
        yield Text(f"{name}: as version {version}, which is in force", "green")
        return
    verdict = Text("refused", "bold red") if judgement.refused else Text("allowed", "green")
    yield Text(f"{name}: another contract than version {version}, which is in force: ").append(verdict)
    table = Table(box=None, show_header=False, pad_edge=True, padding=(0, 2, 0, 0))
    for change in judgement.changes:
        word = Text("allowed", "green") if change.allowed else Text("refused", "red")
        table.add_row(Text(change.column), Text(change.what), word, Text(change.reason))
    yield table


def listed(lake: Lake, source: str, known: Iterable[str]) -> RenderableType:
    """Return the contracts that a source has had, the newest first, each with what it changed.

    Raises:
        UnknownNameError: it has had none, and there is no source of that name.
    """
    had = history(lake, source)
    if not had and source not in (names := list(known)):
        raise UnknownNameError.of("source", source, names)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("version", "in force from", "hash", "compatibility", "changes"):
        table.add_column(column, overflow="fold")
    for number, one in reversed(list(enumerate(had))):
        changes = _named(had[number - 1].contract, one.contract) if number else f"{len(one.contract.columns)} columns"
        registered = to_text(one.registered_at)
        table.add_row(str(one.version), registered, one.contract.hash, one.compatibility, changes)
    return table if had else Text(f"{source}: no contract is in force yet")


def _named(old: Contract, new: Contract) -> str:
    before, after = ({column.name: column for column in one.columns} for one in (old, new))
    words = [f"+ {name}" for name in after if name not in before]
    words += [f"− {name}" for name in before if name not in after]
    words += [f"± {name}" for name in after if name in before and before[name] != after[name]]
    return ", ".join(words) or "event time or event id"


def differences(client: Redis, lake: Lake, registry: Registry) -> RenderableType | None:
    """Return the contracts that are not in force, for `rtml diff`; nothing where all are."""
    found = judged(client, lake, registry.sources.values())
    other = {name: one for name, one in found.items() if one.is_new and one.in_force is not None}
    return rendered(other) if other else None


def put_in_force(client: Redis, lake: Lake, registry: Registry, *, force: bool = False) -> None:
    """Let a deployment go on only by contracts that may be in force; with `force` also by those that are refused.

    An allowed one is registered by the first flow that starts with it, not before.

    Raises:
        NotReadyError: one is refused; names the changes, and what to do.
    """
    found = judged(client, lake, registry.sources.values())
    refused = {name: one for name, one in found.items() if one.refused}
    final = [one for one in refused.values() if any(change.final for change in one.refused)]
    if refused and (final or not force):
        words = [refusal(name, one) for name, one in refused.items()]
        raise NotReadyError("\n".join([*words, _advice(forced=force)]))
    for name in refused:
        register(client, lake, registry.source(name), force=True)


def _advice(*, forced: bool) -> str:
    if forced:
        return "--force cannot do this: no part of the platform could follow"
    return "Add a column instead, or give the source another name; --force breaks the promise"
