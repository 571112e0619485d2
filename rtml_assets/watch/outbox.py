"""The outbox: what is to be told lies in the ledger until its channel has taken it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from rtml.instants import DAY, SECOND, Instant
from rtml.instants import now as present
from rtml_assets.watch.channels import Channel, DeliveryError
from rtml_assets.watch.ledger import Ledger, Notice
from rtml_assets.watch.message import Links, message

LEASE = 30 * SECOND
"""For so long a message is one process's to send; if that dies over it, another sends it then."""
FIRST_DELAY, LONGEST_DELAY = SECOND, 300 * SECOND
GIVEN_UP_AFTER = DAY
POLL_SECONDS = 0.25

logger = logging.getLogger(__name__)


class _Claimed(NamedTuple):
    id: int
    notice: Notice
    attempts: int


class Outbox:
    """Sends what is due; a channel that fails is tried again later, and its messages keep their order.

    Args:
        ledger: where the messages are.
        channels: who takes them.
        links: where readers are sent to.
        now: the present.
        warn: hears of messages that were not taken.
    """

    def __init__(
        self,
        ledger: Ledger,
        channels: Sequence[Channel],
        links: Links,
        now: Callable[[], Instant] = present,
        warn: Callable[[str], None] = logger.warning,
    ) -> None:
        """Take the parts."""
        self._warn = warn
        self._ledger, self._channels, self._links, self._now = ledger, channels, links, now
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def deliver(self, channel: Channel) -> int:
        """Send a channel all that is due, until it fails; return how many it took."""
        taken = 0
        while (claimed := self._claim(channel.name)) is not None:
            try:
                channel.send(message(claimed.notice, self._links))
            except DeliveryError as error:
                self._failed(claimed, error)
                break
            self._sent(claimed)
            taken += 1
        return taken

    def deliver_all(self, seconds: float = 15.0) -> int:
        """Send all channels what is due, and begin nothing new after so many seconds; return how many were taken."""
        deadline = time.monotonic() + seconds
        return sum(self.deliver(channel) for channel in self._channels if time.monotonic() < deadline)

    def tell_past_the_ledger(self, notice: Notice) -> None:
        """Send a message to all channels at once, and only once: for when the ledger itself cannot be written."""
        for channel in self._channels:
            try:
                channel.send(message(notice, self._links))
            except DeliveryError as error:
                self._warn(f"{notice.alert.alert} was not told ({error})")

    def start(self) -> None:
        """Send from now on, each channel in a thread of its own: none waits for another, and nobody for them."""
        for channel in self._channels:
            thread = threading.Thread(target=self._run, args=(channel,), name=f"rtml-{channel.name}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, seconds: float = 6.0) -> None:
        """Send no more; what is under way may end, for so many seconds."""
        self._stopped.set()
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._threads.clear()

    def _run(self, channel: Channel) -> None:
        while not self._stopped.wait(POLL_SECONDS):
            try:
                self.deliver(channel)
            except Exception:
                # A thread that ends is a channel that is never told again; the ledger still has its messages.
                logger.exception("telling %s of alerts failed", channel.name)
                self._stopped.wait(FIRST_DELAY / SECOND)

    def _claim(self, channel: str) -> _Claimed | None:
        now = self._now()
        with self._ledger.transaction() as db:
            row = db.execute(
                "SELECT id, notice, attempts, due FROM outbox WHERE channel = ? AND sent_at IS NULL AND NOT given_up"
                " ORDER BY id LIMIT 1",
                (channel,),
            ).fetchone()
            # What is due later than anything can be was put off before the clock was set back.
            if row is None or now < row[3] <= now + LONGEST_DELAY:
                return None
            db.execute("UPDATE outbox SET due = ?, attempts = ? WHERE id = ?", (now + LEASE, row[2] + 1, row[0]))
        return _Claimed(row[0], msgspec.json.decode(row[1], type=Notice), row[2] + 1)

    def _sent(self, claimed: _Claimed) -> None:
        with self._ledger.transaction() as db:
            db.execute("UPDATE outbox SET sent_at = ?, error = NULL WHERE id = ?", (self._now(), claimed.id))

    def _failed(self, claimed: _Claimed, error: DeliveryError) -> None:
        now = self._now()
        due = now + min(FIRST_DELAY * 2 ** min(claimed.attempts - 1, 20), LONGEST_DELAY)
        given_up = now - claimed.notice.at > GIVEN_UP_AFTER
        name = f"{claimed.notice.alert.alert} {claimed.notice.alert.target}"
        words = "given up" if given_up else f"tried again in {(due - now) / SECOND:g} s"
        self._warn(f"{name} was not told ({error}): {words}")
        with self._ledger.transaction() as db:
            db.execute(
                "UPDATE outbox SET due = ?, given_up = ?, error = ? WHERE id = ?",
                (due, given_up, str(error), claimed.id),
            )
