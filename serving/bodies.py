"""Bodies of requests: read whole and in time, or thrown away so that their senders get to read the answer.

A body that never ends would hold one of the server's connections, and its stop, for as long as its sender likes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from time import monotonic
from typing import Protocol

from rtml.errors import TooLargeError
from serving.correlation import Headers
from serving.wire import LateBodyError

READ_SECONDS = 10.0
"""So long a body may take."""
DISCARD_SECONDS = 3.0
MOST_DISCARDED, LEAST_DISCARDED = 16, 16_777_216
"""So many times the longest body, and at least so many bytes, are read and thrown away."""
SHORT_BYTES = 16_384
HURRY_SECONDS = 1.0
LOOK_SECONDS = 0.25


class Exchange(Protocol):
    """The RSGI way to read a request's body."""

    def __call__(self) -> Awaitable[bytes]:
        """Read all of the body at once."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Read the body piece by piece."""


class Bodies:
    """All bodies of one server; `most` is the longest in bytes."""

    def __init__(self, most: int) -> None:
        """Take the bound."""
        self.most = most
        self.waiting: dict[asyncio.Task[object], Wait] = {}
        self._patience = READ_SECONDS
        self._timer: asyncio.TimerHandle | None = None

    def of(self, headers: Headers, exchange: Exchange) -> Incoming:
        """Return the body of one request; nothing is read yet."""
        return Incoming(self, headers, exchange)

    def limit(self, seconds: float) -> Wait:
        """Return how long one may be waited for."""
        return Wait(self, min(seconds, self._patience))

    def hurry(self) -> None:
        """Wait for none much longer: the server is about to stop."""
        self._patience = HURRY_SECONDS
        soon = monotonic() + HURRY_SECONDS
        for wait in self.waiting.values():
            wait.until = min(wait.until, soon)

    def watch(self) -> None:
        """Look now and then, as long as anything is waited for, whether that has taken too long."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        now = monotonic()
        for task, wait in self.waiting.items():
            if wait.until <= now and not wait.is_over:
                wait.is_over = True
                task.cancel()
        if self.waiting:
            self.watch()


class Wait:
    """A block that may take so long; `TimeoutError` otherwise. A tenth of what `asyncio.timeout` costs a request."""

    __slots__ = ("_all", "_task", "is_over", "until")

    def __init__(self, bodies: Bodies, seconds: float) -> None:
        """Take how long, from now on."""
        self._all, self.until, self.is_over = bodies, monotonic() + seconds, False

    def __enter__(self) -> None:
        """Begin."""
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._all.waiting[task] = self
        self._all.watch()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """End; what was cancelled for its time is no longer."""
        del self._all.waiting[self._task]
        if self.is_over and self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise TimeoutError


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
        try:
            with self._all.limit(READ_SECONDS):
                if is_short(self._headers):
                    # One wait for all of it, where pieces and their end would be three.
                    pieces.append(await self._exchange())
                else:
                    async for piece in self:
                        length += len(piece)
                        if length > most:
                            raise _too_large(most, said or f"more than {most}")
                        pieces.append(piece)
        except TimeoutError:
            self._is_read = True  # as far as it ever will be
            raise LateBodyError(f"the body did not end within {READ_SECONDS:g} s; got {length} bytes of it") from None
        self._is_read = True
        return b"".join(pieces)

    async def discard(self) -> None:
        """Read what nobody has read, for a while; an answer to who is still sending would be lost.

        Who asked whether to send at all (`Expect: 100-continue`) is told so by the answer.
        """
        if self._is_read or not self._is_sent() or (self._headers.get("expect") or "").lower() == "100-continue":
            return
        left = max(MOST_DISCARDED * self._all.most, LEAST_DISCARDED)
        try:
            with self._all.limit(DISCARD_SECONDS):
                async for piece in self:
                    left -= len(piece)
                    if left < 0:
                        break
        except TimeoutError:  # its sender reads the answer, or does not
            return

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


def is_short(headers: Headers) -> bool:
    """Whether a body says that it is short: it came with its headers, or right behind them."""
    said = headers.get("content-length")
    return said is not None and said.isdecimal() and int(said) <= SHORT_BYTES


def _too_large(most: int, said: str) -> TooLargeError:
    return TooLargeError(f"a body may have {most} bytes (RTML_MAX_BODY_BYTES); got {said}")
