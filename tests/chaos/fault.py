"""What a fault is, how one is gone through, and what that came to."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

from rtml.instants import Instant, now, to_instant
from rtml_assets.watch.ledger import Alert
from tests.chaos.definitions import SOURCE
from tests.chaos.world import World, seconds_between, until

FIRES_WITHIN = 60.0
"""Seconds from the cause to the alert."""
RESOLVES_WITHIN = 200.0
"""Seconds from the mend to the alert's end: what is counted over the last minutes takes these."""
OF_SOURCE = f"source:{SOURCE}"


class Fault:
    """One thing that goes wrong, and is mended."""

    name: ClassVar[str]
    does: ClassVar[str]
    """What is done, in words."""
    holds: ClassVar[str]
    """What is asserted while it lasts, in words."""
    alert: ClassVar[str]
    target: ClassVar[str] = "platform"
    also: ClassVar[tuple[str, ...]] = ()
    """Alerts that rightly come with it."""
    lingers: ClassVar[bool] = False
    """Whether its alert is about the last minutes, so that its end is awaited while other things go on."""

    def prepare(self, world: World) -> None:
        """Do what must be done before it breaks."""

    def cause(self, world: World) -> None:
        """Break it."""
        raise NotImplementedError

    def behaves(self, world: World) -> None:
        """Assert what must hold while it lasts."""

    def mend(self, world: World) -> None:
        """Mend it, as the runbook says."""


@dataclass
class Outcome:
    """What going through a fault came to; seconds."""

    fault: Fault
    caused: Instant
    detected: float
    mended: Instant
    recovered: float
    """From the mend to when online agrees with the oracle again, everything settled."""
    compared: int
    lost: int
    resolved: float | None = None
    """From the mend to when the alert has resolved."""


def go_through(fault: Fault, world: World) -> Outcome:
    """Cause a fault, and assert its alert, what holds meanwhile, and that after the mend all is as if never."""
    until(lambda: (fault.alert, fault.target) not in world.open(), f"{fault.alert} of before resolves", 200, world.open)
    fault.prepare(world)
    caused = now()
    try:
        fault.cause(world)
        detected = await_alert(fault, world, caused)
        fault.behaves(world)
    except BaseException:
        with suppress(Exception):
            fault.mend(world)  # for those that come after
        raise
    mended = now()
    fault.mend(world)
    compared = world.agree()
    recovered = seconds_between(mended, None)
    outcome = Outcome(fault, caused, detected, mended, recovered, compared, world.lost())
    print(f"  detected in {detected:.1f} s, recovered in {recovered:.1f} s, {compared:,} values agree", flush=True)
    assert detected <= FIRES_WITHIN
    assert outcome.lost == 0
    if not fault.lingers:
        await_end(outcome, world)
    return outcome


def await_alert(fault: Fault, world: World, caused: Instant) -> float:
    """Return how many seconds after the cause the alert fired, when it was told."""
    said = until(
        lambda: world.told("fired", fault.alert, fault.target, caused),
        f"{fault.alert} fires",
        2 * FIRES_WITHIN,
        lambda: sorted(world.open()),
    )
    print(f"\n{fault.name}: {said[0]['words']}", flush=True)
    return seconds_between(caused, first_alert(fault, world, caused).fired_at)


def await_end(outcome: Outcome, world: World) -> None:
    """Return when a fault's alert has resolved: it was told once that it is, and once that it is no more."""
    fault = outcome.fault
    until(
        lambda: world.told("resolved", fault.alert, fault.target, outcome.caused),
        f"{fault.alert} resolves",
        RESOLVES_WITHIN,
        lambda: sorted(world.open()),
    )
    alert = first_alert(fault, world, outcome.caused)
    outcome.resolved = seconds_between(outcome.mended, alert.resolved_at)
    for kind in ("fired", "resolved"):
        said = world.told(kind, fault.alert, fault.target, alert.since)
        assert [to_instant(each["since"]) for each in said].count(alert.since) == 1, said
    print(f"  {fault.name}: resolved {outcome.resolved:.1f} s after the mend", flush=True)


def first_alert(fault: Fault, world: World, since: Instant) -> Alert:
    """Return the first of a fault's alerts that fired from an instant on; another fault may raise the same later."""
    mine = [alert for alert in world.ledger() if (alert.alert, alert.target) == (fault.alert, fault.target)]
    return min((alert for alert in mine if alert.since >= since), key=lambda alert: alert.since)
