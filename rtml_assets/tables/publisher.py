"""One publisher per view at a time: two at once would take each other's late events back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from redis.exceptions import LockError

from rtml.errors import NotReadyError
from rtml.online import keys

if TYPE_CHECKING:
    from redis import Redis

Hold = Callable[[], None]
"""Called between chunks of work: keeps the lock, and raises when it is somebody else's by now."""

HELD_SECONDS = 120.0
"""A publisher that is killed blocks the next one for so long."""
WAIT_SECONDS = HELD_SECONDS + 10


@contextmanager
def sole_publisher(client: Redis, view: str) -> Iterator[Hold]:
    """Wait until nobody else publishes a view, and keep it so.

    Raises:
        NotReadyError: another publisher is at work all the while, or this one was so slow that it lost its lock.
    """
    key = keys.publishing(view)
    lock = client.lock(key, timeout=HELD_SECONDS, blocking_timeout=WAIT_SECONDS, thread_local=False)
    if not lock.acquire():
        raise NotReadyError(
            f"view {view!r}: another publisher has been at work for {WAIT_SECONDS:g} s (it holds {key!r}); try again"
        )

    def hold() -> None:
        try:
            lock.extend(HELD_SECONDS, replace_ttl=True)
        except LockError:
            raise NotReadyError(
                f"view {view!r}: this publisher lost its lock {key!r}, which it had not renewed for "
                f"{HELD_SECONDS:g} s; it has stopped, so as not to undo what another one wrote. Publish again"
            ) from None

    try:
        yield hold
    finally:
        with suppress(LockError):  # it ran out: whoever has it now keeps it
            lock.release()


@contextmanager
def kept(hold: Hold) -> Iterator[None]:
    """Hold the lock through a block of work that cannot do so itself.

    Raises:
        NotReadyError: it was lost meanwhile.
    """
    done = threading.Event()
    failures: list[NotReadyError] = []

    def renew() -> None:
        while not done.wait(HELD_SECONDS / 4):
            try:
                hold()
            except NotReadyError as error:
                failures.append(error)
                return

    thread = threading.Thread(target=renew, name="rtml-hold", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    if failures:
        raise failures[0]
    hold()
