"""What reads of a partition bring, as one micro-batch, and how far they come."""

from __future__ import annotations

from dataclasses import replace

from rtml.instants import BEGINNING, Instant
from streaming.entries import Entries
from streaming.heartbeats import is_heartbeat
from streaming.positions import Position, arrived_at
from streaming.sources.reads import Read


class Intake:
    """One micro-batch as it is read, behind a position; nothing of it counts before all of it is there.

    Args:
        partition: which one.
        position: where the reads begin.
        accept_stamps: whether entries may carry their instant of ingestion.
    """

    def __init__(self, partition: int, position: Position, *, accept_stamps: bool) -> None:
        """Begin with nothing."""
        self.position = position
        """How far the reads have come."""
        self.stamped = False
        """Whether an entry's own stamp was accepted: its source is on replay time."""
        self.ticked = False
        """Whether there were ticks."""
        self._accept_stamps = accept_stamps
        self._heartbeat: bytes | None = None
        self._entries = Entries(partition, [], [], [], [])

    def __len__(self) -> int:
        """Return how many events there are."""
        return len(self._entries)

    @property
    def entries(self) -> Entries:
        """The events, and the newest heartbeat among them or behind them."""
        return self._entries if self._heartbeat is None else replace(self._entries, heartbeat=self._heartbeat.decode())

    @property
    def is_worth_passing_on(self) -> bool:
        """Whether there is anything but ticks."""
        return len(self) > 0 or self._heartbeat is not None

    def add(self, read: Read) -> None:
        """Take what a read found, in order."""
        entries = self._entries
        ingested: Instant = BEGINNING
        milliseconds, arrived = b"", BEGINNING
        for offset, pairs in read.entries:
            if (head := offset[: offset.find(b"-")]) != milliseconds:  # mostly that of the entry before
                milliseconds, arrived = head, arrived_at(offset)
            if len(pairs) == 2 and pairs[0] == b"data":  # as nearly all are
                ingested, payload = arrived, pairs[1]
            else:
                fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
                if is_heartbeat(fields):
                    self._heartbeat = offset
                    ingested = ingested if read.replayed else arrived
                    continue
                ingested = self._stamp(fields, arrived)
                if b"tick" in fields and b"data" not in fields:
                    self.ticked = True
                    continue
                payload = fields.get(b"data", b"")
            entries.offsets.append(offset.decode())
            entries.arrived.append(arrived)
            entries.ingested_at.append(ingested)
            entries.payloads.append(payload)
        covered = max(self.position.ingested_at, ingested)
        self.position = Position(read.entries[-1][0].decode(), covered)

    def _stamp(self, fields: dict[bytes, bytes], arrived: Instant) -> Instant:
        """Return the carried stamp where it is accepted and one at all."""
        stamp = fields.get(b"ingested_at")
        if stamp is None or not self._accept_stamps or not stamp.isdigit() or len(stamp) > len(str(arrived)):
            return arrived
        self.stamped = True
        return int(stamp)
