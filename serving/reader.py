"""Reading features: the Redis commands of a request, and what their replies mean (design §6, I5).

A `Lookup` does no I/O: whoever has a connection, blocking or not, sends `commands()`, hands the replies to `absorb`,
and repeats while that returns more commands: once, but for rare heads and torn raw records.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from rtml.errors import InstantError
from rtml.instants import BEGINNING, Instant, to_text
from rtml.kernel.answer import Columns, answer_columns
from rtml.online import keys
from rtml.online.base import Base
from rtml.online.codec import FIELD_DTYPE, NO_HEADER, Header, unfield
from rtml.online.commands import AnyCommand
from rtml.plan import Plan
from rtml.reading import Fetched, Reading, Turn, own_fields
from serving.text_cache import TextCache
from streaming.versions import Version

ATTEMPTS = 3
"""How often a raw edge that is shorter than its count is read before it is called damaged."""


class Turns:
    """The latest turns of each plan, so that a cover is worked out once and not with every request."""

    def __init__(self) -> None:
        """Start with none."""
        self.texts = TextCache()
        """The strings that were served of late."""
        self._known: dict[tuple[str, str, Instant, tuple[int, ...]], Turn] = {}

    def at(self, plan: Plan, at: Instant, based_to: Instant = BEGINNING) -> Turn:
        """Return the turn of a plan at an instant; `based_to` is its version's."""
        key = (plan.view, plan.fingerprint, based_to, Turn.key(plan, at))
        turn = self._known.get(key)
        if turn is None:
            if len(self._known) > 1024:
                self._known.clear()
            turn = self._known[key] = Turn(plan, at, based_to)
        return turn


class _Row:
    """One entity of one view, as far as it was read."""

    __slots__ = ("attempts", "damaged", "fetched", "head", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self.fetched = _UNREAD
        self.damaged = False
        self.attempts = 0
        self.head = False


class ViewLookup:
    """The reading of one version of a view, for some entities, at an instant."""

    def __init__(self, version: Version, turn: Turn, tags: Sequence[str], at: Instant) -> None:
        """Take the entities' tags (`keys.entity_tag`).

        There is a row for each; of a plan with salts for each partial state, an entity's following one another.
        """
        self.version = version
        self.plan = version.plan
        self.at = at
        self.turn = turn
        suffix = keys.versioned(self.plan.view, version.version)
        if self.plan.salts > 1:
            tags = [keys.salted(tag, salt) for tag in tags for salt in range(self.plan.salts)]
        self.rows = [_Row(tag + suffix) for tag in tags]
        self._pending: list[_Row] = self.rows

    def commands(self) -> Iterator[AnyCommand]:
        """The commands of this round trip: for each pending entity one `HMGET`, then one `MGET` of all raw edges."""
        edges: list[str] = []
        for row in self._pending:
            reading = self._reading(row)
            if self.turn.whole:
                yield ("HGETALL", row.key)
            else:
                yield reading.command.of(row.key)
            if reading.raw:
                edges += [keys.raw(row.key, index) for index in reading.raw]
        if edges:
            yield ("MGET", *edges)

    def absorb(self, replies: Iterator[Any]) -> None:
        """Take the replies to `commands`, and decide what must be read again."""
        pending = self._pending
        values = list(islice(replies, len(pending)))
        raw: list[bytes | None] = next(replies) if any(self._reading(row).raw for row in pending) else []
        again, at = [], 0
        for row, found in zip(pending, values, strict=True):
            reading = self._reading(row)
            edges = raw[at : at + len(reading.raw)]
            at += len(edges)
            row.fetched = self._fetched(reading, found, edges)
            is_short, lacks_head = self._is_short(row, reading), self._lacks_head(row)
            if is_short or lacks_head:
                again.append(row)
        self._pending = again

    def _fetched(self, reading: Reading, found: Any, edges: list[bytes | None]) -> Fetched:
        """Return what the replies about an entity say: that to `HMGET`, which is taken apart, and its raw edges."""
        plan = self.plan
        if self.turn.whole:
            reading, found = _of_hash(plan, found, reading.raw)
        header, late = found[0], found[1]
        del found[:2]
        fetched = Fetched(Header.decode(header) if header else NO_HEADER, late, reading, found)
        if plan.lifetime:
            fetched.base, fetched.late_at = found[0], found[1]
            del found[:2]
        if plan.tailed:
            fetched.tail = found.pop(0)
        if edges.count(None) < len(edges):
            fetched.raw = {index: data for index, data in zip(reading.raw, edges, strict=True) if data is not None}
        return fetched

    def _is_short(self, row: _Row, reading: Reading) -> bool:
        """Whether raw edges must be read again: they are shorter than their tiles' counts."""
        row.attempts += 1
        row.damaged = bool(reading.raw) and bool(row.fetched.damaged(self.plan))
        return row.damaged and row.attempts < ATTEMPTS

    def _lacks_head(self, row: _Row) -> bool:
        """Whether there are events at or after the instant, so that more must be read."""
        lacks = not (row.head or self.turn.whole) and row.fetched.needs_head(self.plan, self.at)
        row.head |= lacks
        return lacks

    def check_reach(self) -> None:
        """Refuse an instant behind which the stream has forgotten in the meantime.

        Raises:
            InstantError: an entity's fence or base says so, or the version's bases.
        """
        forgotten = max((row.fetched.header.fence for row in self.rows), default=BEGINNING) - self.plan.lateness
        if self.plan.lifetime:
            bases = [Base.decode(row.fetched.base).up_to for row in self.rows]
            forgotten = max(forgotten, self.version.based_to, *bases)
        if self.at < forgotten:
            raise InstantError(
                f"view {self.plan.view!r} moved on while it was read, and can be asked from {to_text(forgotten)} on; "
                f"got {to_text(self.at)}"
            )

    @property
    def entities(self) -> int:
        """How many entities were asked for."""
        return len(self.rows) // self.plan.salts

    def rows_of(self, start: int, stop: int | None = None) -> list[_Row]:
        """Return the rows of all entities, or of some."""
        salts = self.plan.salts
        return self.rows[start * salts : None if stop is None else stop * salts]

    @property
    def unfinished(self) -> bool:
        """Whether another round trip is needed."""
        return bool(self._pending)

    def answer(self, start: int = 0, stop: int | None = None) -> Columns:
        """Return the features' values, of all entities or of some.

        Rows with damaged edges lack what those held: `damaged` tells which.
        """
        fetched = [row.fetched for row in self.rows_of(start, stop)]
        return answer_columns(self.plan, self.at, fetched, self.version.based_to)

    def _reading(self, row: _Row) -> Reading:
        return self.turn.wide if row.head or self.turn.whole else self.turn.narrow


_UNREAD = Fetched()


def _of_hash(
    plan: Plan, reply: dict[bytes, bytes] | list[bytes], raw: tuple[int, ...]
) -> tuple[Reading, list[bytes | None]]:
    """Return a whole hash as what was read, and as the reply to an `HMGET`."""
    stored = reply if isinstance(reply, dict) else dict(zip(reply[::2], reply[1::2], strict=True))
    tiles = {unfield(name): value for name, value in stored.items() if len(name) == FIELD_DTYPE.itemsize}
    own = [stored.get(name) for name in own_fields(plan)]
    return Reading(plan, tuple(tiles), raw), [*own, *tiles.values()]
