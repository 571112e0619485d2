"""What is read from a partition in one go, before anything is known of it."""

from __future__ import annotations

from dataclasses import dataclass

from rtml.instants import Instant


@dataclass(frozen=True)
class Entries:
    """Entries of one partition, in order, column by column."""

    partition: int
    offsets: list[str]
    arrived: list[Instant]
    """When the broker took each entry, by its id; freshness is measured from here."""
    ingested_at: list[Instant]
    """The same, or the stamp that the entry carries where those are accepted."""
    payloads: list[bytes]
    heartbeat: str | None = None
    """The id of the newest heartbeat that was read with them, or behind them."""
    covered: Instant | None = None
    """An instant of ingestion up to which all of the partition is servable by now, whoever had to write it."""

    def __len__(self) -> int:
        """Return how many entries there are."""
        return len(self.offsets)
