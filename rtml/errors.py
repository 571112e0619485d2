"""Every error rtml raises on purpose, in one tree.

RtmlError
├── DefinitionError      a definition that cannot mean what it says
├── SettingsError        a setting that is missing or malformed
├── InstantError         a time without a zone, or outside what can be answered
├── UnknownNameError     a name that nothing has; offers the nearest one
├── RequestError         a request that does not fit what it asks for
├── SendError            events that may not be appended to a stream
├── TooLargeError        a request for more than one may ask for at once
├── NotReadyError        a view whose version is not (yet) servable
├── StaleError           a view whose stream is further behind than a service allows
├── UnavailableError     Redis, or another part, did not answer
├── CodecError           bytes that this version of rtml cannot read
└── OverflowedError      an integer sum beyond 64 bits

NotBuiltWarning          a warning: offline tables lag behind what was mirrored
LeftOutWarning           a warning: logged rows that may know of their future are left out
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice


class RtmlError(Exception):
    """The root of all errors that rtml raises on purpose."""


class DefinitionError(RtmlError):
    """A definition that cannot mean what it says."""

    @classmethod
    def at(cls, where: str, parameter: str, expected: str, got: object) -> DefinitionError:
        """Name the definition, its parameter, what was expected and what was got."""
        return cls(f"{where}: {parameter} must be {expected}; got {got!r}")


class SettingsError(RtmlError):
    """A setting that is missing or malformed."""


class InstantError(RtmlError):
    """A time without a zone, or outside what can be answered."""


class UnknownNameError(RtmlError):
    """A name that nothing has."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str], where: str = "") -> UnknownNameError:
        """Say which name was not found, where, and the nearest one that is."""
        return cls(f"no {kind} {name!r:.{LONGEST_NAME}}{f' in {where}' if where else ''}.{near_miss(name, known)}")


class RequestError(RtmlError):
    """A request that does not fit what it asks for."""


class SendError(RtmlError):
    """Events that may not be appended to a stream."""


class TooLargeError(RtmlError):
    """A request for more than one may ask for at once: a body too long, or too many entities."""


class NotReadyError(RtmlError):
    """A view whose version is not (yet) servable."""


class StaleError(RtmlError):
    """A view whose stream is further behind than a service with `on_stale="refuse"` allows."""


class UnavailableError(RtmlError):
    """Redis, or another part, did not answer."""


class CodecError(RtmlError):
    """Bytes that this version of rtml cannot read."""


class OverflowedError(RtmlError):
    """An integer sum beyond 64 bits."""


class NotBuiltWarning(UserWarning):
    """Events that rows look at and the offline tables do not hold: what is computed from them lacks those events."""


class LeftOutWarning(UserWarning):
    """Logged answers for instants that were past when they were asked for: a training set leaves them out."""


LONGEST_NAME, MOST_NAMES, MOST_SHOWN = 200, 2_000, 100
"""Names beyond these are looked at by nobody: they come from a request, and comparing them takes time."""


def near_miss(name: str, known: Iterable[str]) -> str:
    """Return ` Did you mean 'x'?`, or the known names when none is near."""
    names = sorted(islice((one for one in known if len(one) <= LONGEST_NAME), MOST_NAMES))
    close = get_close_matches(name, names, n=1, cutoff=0.6) if len(name) <= LONGEST_NAME else []
    if close:
        return f" Did you mean {close[0]!r}?"
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return f" Known: {', '.join(names[:MOST_SHOWN])}{more}." if names else " There are none."
