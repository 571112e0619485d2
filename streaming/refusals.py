"""Refused events in the log: which ones, and why; never what they say."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from rtml import instants
from rtml.instants import MINUTE, Instant
from streaming.decode import Reason
from streaming.gate import Refused

if TYPE_CHECKING:
    from rtml.define.source import EventSource

LONGEST_ID = 64
_log = logging.getLogger("rtml.stream")


class RefusalLog:
    """Logs refused events: the first of each reason a minute as a warning, and all at debug.

    The line has the event's partition, offset and, where it can be read, its id. A payload, or a value of it, is never
    in the log: `quarantine/<source>` has them.
    """

    def __init__(self, source: EventSource, now: Callable[[], Instant] = instants.now) -> None:
        """Take the source, whose event ids are shown."""
        self._source, self._now = source, now
        self._warned: dict[Reason, Instant] = {}
        self._silent: dict[Reason, int] = {}

    def note(self, refused: list[Refused]) -> None:
        """Log what is to be logged of some refused events."""
        debugging = _log.isEnabledFor(logging.DEBUG)
        for event in refused:
            reason = event.failures[0].reason
            if self._is_due(reason):
                more = self._silent.pop(reason, 0)
                since = f"; {more} more since the last such line" if more else ""
                _log.warning("refused an event: %s%s", reason.value, since, extra=self._said(event))
            else:
                self._silent[reason] = self._silent.get(reason, 0) + 1
                if debugging:
                    _log.debug("refused an event: %s", reason.value, extra=self._said(event))

    def _is_due(self, reason: Reason) -> bool:
        now = self._now()
        warned = self._warned.get(reason)
        if warned is not None and now - warned < MINUTE:
            return False
        self._warned[reason] = now
        return True

    def _said(self, event: Refused) -> dict[str, object]:
        return {
            "source": self._source.name,
            "event_id": event_id(event.payload, self._source.event_id),
            "partition": event.partition,
            "offset": event.offset,
            "reasons": sorted({failure.reason.value for failure in event.failures}),
        }


def event_id(payload: bytes, field: str | None) -> str | None:
    """Return a refused event's id, as far as there is one to be read."""
    if field is None:
        return None
    try:
        message = msgspec.json.decode(payload)
    except (ValueError, RecursionError):  # which msgspec's errors are, and Python's of what is no UTF-8
        return None
    found = message.get(field) if isinstance(message, dict) else None
    return str(found)[:LONGEST_ID] if isinstance(found, (str, int)) else None
