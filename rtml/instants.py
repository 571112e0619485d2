"""Instants and durations: the only place that converts between datetimes, text and microseconds.

An instant is an `int` of microseconds since the epoch, UTC; a duration is an `int` of microseconds.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache

from rtml.errors import InstantError

Instant = int
Duration = int

UNITS: dict[str, Duration] = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
SECOND, MINUTE, HOUR, DAY = UNITS["s"], UNITS["m"], UNITS["h"], UNITS["d"]
BEGINNING: Instant = -(2**63)
"""The instant before all others: the position of a partition that was never written."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
LONGEST_DURATION: Duration = 36_500 * DAY
"""Beyond it, sums of instants and durations would one day leave 64 bits."""
_LONGEST_TEXT = 64
_PART = re.compile(r"([0-9]+)(us|ms|s|m|h|d|w)")
_WHOLE = re.compile(r"(?:[0-9]+(?:us|ms|s|m|h|d|w))+")


def now() -> Instant:
    """Return the machine's present instant."""
    return time.time_ns() // 1_000


def parse_duration(text: str) -> Duration:
    """Return the microseconds of a duration such as `5m`, `24h` or `1h30m`.

    Raises:
        InstantError: the text is no positive duration, or one beyond `LONGEST_DURATION`.
    """
    if not isinstance(text, str) or not _WHOLE.fullmatch(text):
        raise InstantError(f"a duration must look like '30s', '5m', '24h' or '7d'; got {text!r}")
    short = len(text) <= _LONGEST_TEXT
    micros = sum(int(number) * UNITS[unit] for number, unit in _PART.findall(text)) if short else LONGEST_DURATION + 1
    if micros > LONGEST_DURATION:
        longest = format_duration(LONGEST_DURATION)
        raise InstantError(f"a duration may be {longest} at most; got {text[:_LONGEST_TEXT]!r}")
    if micros <= 0:
        raise InstantError(f"a duration must be longer than nothing; got {text!r}")
    return micros


def format_duration(micros: Duration) -> str:
    """Return the shortest text that `parse_duration` reads back as the same duration."""
    for unit in ("d", "h", "m", "s", "ms"):
        if micros and micros % UNITS[unit] == 0:
            return f"{micros // UNITS[unit]}{unit}"
    return f"{micros}us"


def to_instant(value: object) -> Instant:
    """Return the instant of an aware datetime, RFC 3339 text, a date (its first moment, UTC) or integer microseconds.

    Raises:
        InstantError: the value has no time zone, or is no time at all.
    """
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise InstantError(f"a timestamp must carry a time zone; got the naive {value!r}")
        return (value - _EPOCH) // _MICROSECOND
    if isinstance(value, date):
        return to_instant(datetime(value.year, value.month, value.day, tzinfo=UTC))
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _parse_text(value)
    raise InstantError(f"a timestamp must be a datetime, RFC 3339 text or integer microseconds; got {value!r}")


def _parse_text(text: str) -> Instant:
    try:
        if len(text) == 10:
            return to_instant(date.fromisoformat(text))
        return to_instant(datetime.fromisoformat(text))
    except ValueError:
        raise InstantError(f"a timestamp must be RFC 3339 with an offset; got {text!r}") from None


def to_datetime(instant: Instant) -> datetime:
    """Return the aware UTC datetime of an instant."""
    return _EPOCH + timedelta(microseconds=instant)


@lru_cache(maxsize=1024)
def to_text(instant: Instant) -> str:
    """Return an instant as RFC 3339 text in UTC, or `never` for the beginning of time."""
    if instant == BEGINNING:
        return "never"
    return to_datetime(instant).isoformat().replace("+00:00", "Z")


def floor(instant: Instant, size: Duration) -> Instant:
    """Return the latest multiple of `size` that is not after `instant`."""
    return instant // size * size
