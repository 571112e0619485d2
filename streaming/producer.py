"""Putting events into a source's stream, live or under stamps of another time."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
import polars as pl

from rtml import instants
from rtml.columns import TIMESTAMP
from rtml.define.source import EventSource
from rtml.errors import SendError, near_miss
from rtml.instants import BEGINNING, Instant
from rtml.online import keys
from rtml.projection import INGESTED_AT
from streaming.heartbeats import last_event
from streaming.partitioning import partitions_of
from streaming.positions import arrived_at, read_positions

if TYPE_CHECKING:
    from redis import Redis

CHUNK = 2_000


class Producer:
    """Appends events of a source to its stream, each to the partition of its key's hash.

    Args:
        client: the broker.
        source: whose events.
        key: columns whose values choose the partition; by default the event id.
        accept_stamps: whether events may carry their own `ingested_at`.
    """

    def __init__(
        self, client: Redis, source: EventSource, *, key: Sequence[str] = (), accept_stamps: bool = False
    ) -> None:
        """Take the broker and the source."""
        self._client = client
        self._source = source
        self._key = tuple(key) or ((source.event_id,) if source.event_id else ())
        self._accept_stamps = accept_stamps

    def send(
        self, frame: pl.DataFrame, *, ingested_at: datetime | Instant | str | None = None, partition: int | None = None
    ) -> int:
        """Append a frame's rows in the order of their stamps, and a tick to every partition; return how many rows.

        Args:
            frame: events, with the contract's columns; other columns are sent along and ignored.
            ingested_at: an instant for all, or the column that holds each one's; by default the broker's clock.
            partition: the partition for all rows; by default each row's key decides.

        Raises:
            SendError: stamps that are not accepted, null, naive, or before what a partition has already.
        """
        stamps = self._stamps(frame, ingested_at)
        if frame.is_empty():
            return 0
        if stamps is None:
            self._warn_when_all_late(frame)
        else:
            frame = frame.with_columns(stamps.alias("__stamp")).sort("__stamp", maintain_order=True)
            stamps = frame["__stamp"]
            frame = frame.drop("__stamp")
            self._check_order(stamps)
            self._client.set(keys.replay_time(self._source.name), 1)
        rows = list(zip(self._partitions(frame, partition), self._payloads(frame, ingested_at), strict=True))
        for start in range(0, len(rows), CHUNK):
            self._append(
                rows[start : start + CHUNK], None if stamps is None else stamps[start : start + CHUNK].to_list()
            )
        self.tick(None if stamps is None else int(stamps[-1]))
        return len(rows)

    def send_bytes(self, payloads: Sequence[bytes], *, ingested_at: Instant | None = None, partition: int = 0) -> None:
        """Append messages as they are, right or wrong."""
        if ingested_at is not None:
            self._stamps(pl.DataFrame(), ingested_at)
            self._check_order(pl.Series([ingested_at]))
            self._client.set(keys.replay_time(self._source.name), 1)
        rows = [(partition, payload) for payload in payloads]
        self._append(rows, None if ingested_at is None else [ingested_at] * len(rows))
        self.tick(ingested_at)

    def tick(self, stamp: Instant | None = None) -> None:
        """Tell every partition that nothing before a stamp (by default: now) is still to come."""
        fields: dict[Any, Any] = {"tick": 1} if stamp is None else {"tick": 1, INGESTED_AT: stamp}
        pipeline = self._client.pipeline(transaction=False)
        for partition in range(self._source.stream.partitions):
            pipeline.xadd(self._source.stream.key(partition), fields)
        pipeline.execute()

    def _append(self, rows: Sequence[tuple[int, bytes]], stamps: list[Instant] | None) -> None:
        pipeline = self._client.pipeline(transaction=False)
        for row, (partition, payload) in enumerate(rows):
            fields: dict[Any, Any] = {"data": payload}
            if stamps is not None:
                fields[INGESTED_AT] = stamps[row]
            pipeline.xadd(self._source.stream.key(partition), fields)
        pipeline.execute()

    def _stamps(self, frame: pl.DataFrame, ingested_at: datetime | Instant | str | None) -> pl.Series | None:
        if ingested_at is None:
            return None
        if not self._accept_stamps:
            raise SendError(f"source {self._source.name!r}: stamps are accepted only where RTML_ACCEPT_STAMPS is set")
        if not isinstance(ingested_at, str):
            return pl.Series([instants.to_instant(ingested_at)] * frame.height, dtype=pl.Int64)
        if ingested_at not in frame.columns:
            raise SendError(
                f"ingested_at: the frame has no column {ingested_at!r}.{near_miss(ingested_at, frame.columns)}"
            )
        column = frame[ingested_at]
        if column.dtype == TIMESTAMP or (isinstance(column.dtype, pl.Datetime) and column.dtype.time_zone):
            column = column.dt.epoch("us")
        if column.dtype != pl.Int64 or column.null_count():
            raise SendError(
                f"ingested_at: column {ingested_at!r} must be non-null Datetime('us', 'UTC') or int64 microseconds; "
                f"got {frame[ingested_at].dtype} with {column.null_count()} nulls"
            )
        return column

    def _check_order(self, stamps: pl.Series) -> None:
        """Stamps may not go back in a partition: the watermark has passed there."""
        count = self._source.stream.partitions
        first = int(stamps[0])
        for key in (keys.position(self._source.name), keys.mirrored(self._source.name)):
            for number, position in enumerate(read_positions(self._client, key, count)):
                landed = position.offset == "0-0"
                if not landed and position.ingested_at > first:
                    raise self._went_back(number, position.ingested_at, first)
        for number in range(count):
            newest = self._newest_stamp(number)
            if newest > first:
                raise self._went_back(number, newest, first)

    def _went_back(self, partition: int, newest: Instant, first: Instant) -> SendError:
        return SendError(
            f"source {self._source.name!r}: partition {partition} is at {instants.to_text(newest)} already; "
            f"events stamped {instants.to_text(first)} would go back in time"
        )

    def _newest_stamp(self, partition: int) -> Instant:
        newest = last_event(self._client, self._source.stream.key(partition))
        if newest is None:
            return BEGINNING
        offset, fields = newest
        return int(fields.get(INGESTED_AT.encode(), arrived_at(offset)))

    def _partitions(self, frame: pl.DataFrame, partition: int | None) -> Iterator[int]:
        count = self._source.stream.partitions
        if partition is not None:
            if not 0 <= partition < count:
                raise SendError(f"source {self._source.name!r} has partitions 0 to {count - 1}; got {partition}")
            return iter([partition] * frame.height)
        return partitions_of(frame, self._key, count)

    @staticmethod
    def _payloads(frame: pl.DataFrame, ingested_at: object) -> Iterator[bytes]:
        if isinstance(ingested_at, str) and ingested_at == INGESTED_AT:
            frame = frame.drop(INGESTED_AT)
        times = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Datetime)]
        naive = [name for name in times if frame.schema[name].time_zone is None]  # type: ignore[attr-defined]
        if naive:
            raise SendError(f"column {naive[0]!r} must carry a time zone; got {frame.schema[naive[0]]}")
        plain = frame.with_columns(pl.col(name).dt.epoch("us") for name in times)
        # msgspec writes NaN and infinities as null; the gate is to see, and refuse, what they are.
        finite = plain.select(pl.all_horizontal(pl.selectors.float().is_finite().fill_null(value=True)).all()).item()
        encode = msgspec.json.Encoder().encode if finite else lambda row: json.dumps(row).encode()
        return (encode(row) for row in plain.iter_rows(named=True))

    def _warn_when_all_late(self, frame: pl.DataFrame) -> None:
        name = self._source.timestamp
        if not frame.height or not isinstance(frame.schema.get(name), pl.Datetime):
            return
        newest = instants.to_instant(frame[name].max())
        if instants.now() - newest > self._source.lateness_us:
            warnings.warn(
                f"all {frame.height} events of {self._source.name!r} are late: the newest is of "
                f"{instants.to_text(newest)}, lateness is {self._source.lateness}; pass ingested_at= to send them "
                "under stamps of their own time",
                stacklevel=3,
            )
