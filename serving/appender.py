"""Appending pushed events to their source's stream, by the contract that its flows run by.

What they run by is read from Redis with every push, so that no definitions are loaded here, and a new contract counts
at once. The flows judge again: a push only says at once, and to whom it concerns, what they would.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import redis

from rtml import instants
from rtml.define.written import Kept
from rtml.errors import UnavailableError
from rtml.instants import Instant
from rtml.online import keys
from rtml.online.commands import Command
from rtml.settings import Settings
from serving.pushed import Pushed, RefusedEvent, ReplayTimeError, UnknownSourceError
from serving.wire import LONGEST_MESSAGE
from streaming.broker import connect, pipelined
from streaming.entries import Entries
from streaming.gate import Gate, Refused
from streaming.partitioning import partitions_of
from streaming.positions import START, arrived_at, parse_positions
from streaming.refusals import event_id

PIECE = 500
"""So many events are judged, and appended, at once; others get their turn between."""


class Judge(NamedTuple):
    """What judges the events of a source, as long as its flows run by the same."""

    stored: bytes
    kept: Kept
    gate: Gate


class Look(NamedTuple):
    """What Redis says before a push."""

    judge: Judge
    clock: Instant
    unread: list[int]
    """Partitions that the tiles flow has read nothing of: nothing of the source is servable before it has."""


class Judged(NamedTuple):
    """The events that were accepted: their places in the push, times and partitions; and those that were refused."""

    places: list[int]
    times: list[Instant]
    partitions: list[int]
    refused: list[RefusedEvent]


class Appender:
    """Appends events to streams; several threads may at once."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings, whose Redis is the one to write to."""
        self._client = connect(settings, timeout=settings.redis_timeout_seconds)
        self._judges: dict[str, Judge] = {}

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def append(self, source: str, pushes: Sequence[Sequence[bytes]]) -> list[Pushed]:
        """Append what a source's contract allows of some pushes, together; return what came of each.

        Raises:
            UnknownSourceError: no flow has ever run for it.
            ReplayTimeError: it runs on carried stamps.
            UnavailableError: Redis did not take them; says whether they can be pushed again.
        """
        look = self._look(source)
        events = [event for push in pushes for event in push]
        judged = _judged(look.judge, events, look.clock)
        arrived = self._write(look.judge, judged, events, look.unread) if judged.places else []
        told, start = [], 0
        for push in pushes:
            told.append(_told(look.judge.kept, judged, arrived, range(start, start + len(push))))
            start += len(push)
        return told

    def _look(self, source: str) -> Look:
        asked: list[Command] = [
            ("TIME",),
            ("HGET", keys.contract(source), keys.KEPT),
            ("EXISTS", keys.replay_time(source)),
            ("HGETALL", keys.position(source)),
        ]
        try:
            replies = self._ask(asked)
        except redis.ConnectionError:  # Redis may have been restarted since the last push: reading may be repeated
            try:
                replies = self._ask(asked)
            except (redis.RedisError, OSError) as error:
                raise _away(error) from None
        except (redis.RedisError, OSError) as error:
            raise _away(error) from None
        (seconds, micros), stored, replayed, positions = replies
        if stored is None:
            raise UnknownSourceError(f"no source {source!r} that a flow runs for.")
        if replayed:
            raise ReplayTimeError(
                f"source {source!r} runs on replay time: its entries carry the stamps of another time, and events of "
                "now would move its watermark past them; send them with stamps (`Producer.send(…, ingested_at=…)`)"
            )
        judge = self._judge(source, stored)
        read = parse_positions(dict(zip(positions[::2], positions[1::2], strict=True)), judge.kept.partitions)
        unread = [number for number, position in enumerate(read) if position.offset == START]
        # The stream's ids are whole milliseconds: what is not too early for this one is for none of them.
        clock = int(seconds) * 1_000_000 + int(micros) // 1_000 * 1_000
        return Look(judge, clock, unread)

    def _judge(self, source: str, stored: bytes) -> Judge:
        judge = self._judges.get(source)
        if judge is None or judge.stored != stored:
            kept = msgspec.json.decode(stored, type=Kept)
            judge = self._judges[source] = Judge(stored, kept, Gate(kept))
        return judge

    def _write(self, judge: Judge, judged: Judged, events: Sequence[bytes], unread: Sequence[int]) -> list[Instant]:
        """Append the accepted events, and return when each arrived.

        Where a push can be repeated they go in pieces, so that Redis answers others between; else all of them or none.
        """
        key, idle = judge.kept.redis_stream.key, sorted({*unread}.difference(judged.partitions))
        accepted = zip(judged.places, judged.partitions, strict=True)
        commands: list[Command] = [("XADD", key(number), "*", "data", events[place]) for place, number in accepted]
        commands += [("XADD", key(number), "*", "tick", 1) for number in idle]
        step = len(commands) if judge.kept.event_id is None else PIECE
        offsets: list[bytes] = []
        try:
            for start in range(0, len(commands), step):
                *_, written = self._ask([("MULTI",), *commands[start : start + step], ("EXEC",)])
                offsets += _without_errors(written)
        except (redis.RedisError, OSError) as error:
            raise _not_taken(judge.kept, error) from None
        return [arrived_at(offset) for offset in offsets[: len(judged.places)]]

    def _ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands in one go; an error among the replies is raised."""
        pool = self._client.connection_pool
        connection: Any = pool.get_connection()
        try:
            return _without_errors(pipelined(connection, commands))
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            connection.disconnect()  # what is left of the replies is nobody else's
            raise
        finally:
            pool.release(connection)


def _without_errors(replies: list[Any]) -> list[Any]:
    error = next((reply for reply in replies if isinstance(reply, redis.RedisError)), None)
    if error is not None:
        raise error
    return replies


def _judged(judge: Judge, events: Sequence[bytes], clock: Instant) -> Judged:
    """Hold events against the contract, a piece at a time."""
    all_of_it = Judged([], [], [], [])
    for start in range(0, len(events), PIECE):
        piece = events[start : start + PIECE]
        places = range(start, start + len(piece))
        gated = judge.gate(
            Entries(0, [str(place) for place in places], [clock] * len(piece), [clock] * len(piece), list(piece))
        )
        refused = [_refused(judge.kept, one) for one in gated.refused]
        barred = {one.index for one in refused}
        all_of_it.places.extend(place for place in places if place not in barred)
        all_of_it.times.extend(gated.good[judge.kept.timestamp].dt.epoch("us").to_list())
        all_of_it.partitions.extend(partitions_of(gated.good, judge.kept.key, judge.kept.partitions))
        all_of_it.refused.extend(refused)
    return all_of_it


def _told(kept: Kept, judged: Judged, arrived: Sequence[Instant], places: range) -> Pushed:
    """Return what came of the events at some places, as whoever pushed those counts them."""
    one = slice(bisect_left(judged.places, places.start), bisect_left(judged.places, places.stop))
    lateness, own = kept.lateness_us, arrived[one]
    late = [
        place - places.start
        for place, time, at in zip(judged.places[one], judged.times[one], own, strict=True)
        if at - time > lateness
    ]
    first, behind = (bisect_left(judged.refused, place, key=_index) for place in (places.start, places.stop))
    refused = [
        msgspec.structs.replace(event, index=event.index - places.start) for event in judged.refused[first:behind]
    ]
    last = instants.to_text(max(own)) if own else None
    return Pushed(len(own), refused, late, idempotent=kept.event_id is not None, ingested_at=last)


def _index(event: RefusedEvent) -> int:
    return event.index


def _refused(kept: Kept, one: Refused) -> RefusedEvent:
    message = "; ".join(failure.detail.removesuffix(".") for failure in one.failures)
    return RefusedEvent(
        int(one.offset), one.failures[0].reason, message[:LONGEST_MESSAGE], event_id(one.payload, kept.event_id)
    )


def _away(error: Exception) -> UnavailableError:
    return UnavailableError(f"Redis does not answer: {error}; no event was appended")


def _not_taken(kept: Kept, error: Exception) -> UnavailableError:
    """Say what who pushed may do now."""
    if kept.event_id is not None:
        what = "push all of them again: those that were appended already count once"
    elif isinstance(error, redis.ResponseError):
        what = "no event was appended"
    else:
        what = f"whether they were appended is not known, and events of source {kept.name!r} have no id to tell"
    return UnavailableError(f"Redis did not take the events: {error}; {what}")
