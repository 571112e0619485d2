"""Bodies of requests: read whole and in time, or thrown away so that their senders get to read the answer.

A body that never ends would hold one of the server's connections, and its stop, for as long as its sender likes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol

from serving.correlation import Headers
from serving.wire import LateBodyError, TooLargeError

READ_SECONDS = 10.0
"""So long a body may take."""
DISCARD_SECONDS = 3.0
MOST_DISCARDED, LEAST_DISCARDED = 16, 16_777_216
"""So many times the longest body, and at least so many bytes, are read and thrown away."""
HURRY_SECONDS = 1.0


class Exchange(Protocol):
    """The RSGI way to read a request's body."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Read the body piece by piece."""


class Bodies:
    """All bodies of one server; `most` is the longest in bytes."""

    def __init__(self, most: int) -> None:
        """Take the bound."""
        self.most = most
        self.waiting: set[asyncio.Timeout] = set()
        self._hurried = False

    def of(self, headers: Headers, exchange: Exchange) -> Incoming:
        """Return the body of one request; nothing is read yet."""
        return Incoming(self, headers, exchange)

    def limit(self, seconds: float) -> asyncio.Timeout:
        """Return how long one may be waited for."""
        return asyncio.timeout(min(seconds, HURRY_SECONDS) if self._hurried else seconds)

    def hurry(self) -> None:
        """Wait for none much longer: the server is about to stop."""
        self._hurried = True
        soon = asyncio.get_running_loop().time() + HURRY_SECONDS
        for limit in self.waiting:
            if not limit.expired():
                limit.reschedule(min(soon, limit.when() or soon))


class Incoming:
    """The body of one request."""

    __slots__ = ("_all", "_exchange", "_headers", "_is_read", "_pieces")

    def __init__(self, bodies: Bodies, headers: Headers, exchange: Exchange) -> None:
        """Take where it comes from."""
        self._all, self._headers, self._exchange = bodies, headers, exchange
        self._is_read = False
        self._pieces: AsyncIterator[bytes] | None = None

    async def read(self) -> bytes:
        """Return it.

        Raises:
            TooLargeError: it is longer than allowed; what is left of it is for `discard`.
            LateBodyError: it did not come to its end in time.
        """
        said = self._headers.get("content-length")
        most = self._all.most
        if said is not None and said.isdecimal() and int(said) > most:
            raise _too_large(most, said)
        pieces: list[bytes] = []
        length = 0
        limit = self._all.limit(READ_SECONDS)
        self._all.waiting.add(limit)
        try:
            async with limit:
                async for piece in self:
                    length += len(piece)
                    if length > most:
                        raise _too_large(most, said or f"more than {most}")
                    pieces.append(piece)
        except TimeoutError:
            self._is_read = True  # as far as it ever will be
            raise LateBodyError(f"the body did not end within {READ_SECONDS:g} s; got {length} bytes of it") from None
        finally:
            self._all.waiting.discard(limit)
        self._is_read = True
        return b"".join(pieces)

    async def discard(self) -> None:
        """Read what nobody has read, for a while; an answer to who is still sending would be lost.

        Who asked whether to send at all (`Expect: 100-continue`) is told so by the answer.
        """
        if self._is_read or not self._is_sent() or (self._headers.get("expect") or "").lower() == "100-continue":
            return
        left = max(MOST_DISCARDED * self._all.most, LEAST_DISCARDED)
        limit = self._all.limit(DISCARD_SECONDS)
        self._all.waiting.add(limit)
        try:
            async with limit:
                async for piece in self:
                    left -= len(piece)
                    if left < 0:
                        break
        except TimeoutError:  # its sender reads the answer, or does not
            return
        finally:
            self._all.waiting.discard(limit)

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Go on where reading was left: an exchange gives out its pieces once only.

        Not by `anext`: with a default, it ends the process on what Granian returns.
        """
        if self._pieces is None:
            self._pieces = aiter(self._exchange)
        return self._pieces

    def _is_sent(self) -> bool:
        headers = self._headers
        return headers.get("content-length") not in (None, "0") or headers.get("transfer-encoding") is not None


def _too_large(most: int, said: str) -> TooLargeError:
    return TooLargeError(f"a body may have {most} bytes (RTML_MAX_BODY_BYTES); got {said}")
