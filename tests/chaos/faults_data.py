"""What producers send: a broken schema, late events, a wrong clock, one entity that has nearly all."""

from __future__ import annotations

from typing import ClassVar

from rtml.instants import now
from tests.chaos.definitions import SOURCE
from tests.chaos.fault import OF_SOURCE, Fault
from tests.chaos.faults_redis import answers
from tests.chaos.traffic import HOT
from tests.chaos.world import World

FIX = '''
import json

import polars as pl


def to_numbers(rows):
    """Read amounts that came as strings."""
    messages = [json.loads(payload) for payload in rows["payload"]]
    mended = [json.dumps({**message, "amount": float(message["amount"])}) for message in messages]
    return rows.with_columns(pl.Series("payload", mended))
'''


class SchemaBreak(Fault):
    """A producer's new release writes a number as a string."""

    name: ClassVar = "a producer breaks the schema"
    does: ClassVar = "30 % of events have a string for a number"
    holds: ClassVar = (
        "those are quarantined, all others are servable at once; `rtml quarantine replay`, with a fix, mends them"
    )
    alert: ClassVar = "refused"
    target: ClassVar = OF_SOURCE
    also: ClassVar = ("stream_lag", "freshness", "stream_restarts")
    lingers: ClassVar = True

    def cause(self, world: World) -> None:
        world.traffic.change(broken=0.3)

    def behaves(self, world: World) -> None:
        assert world.agree() > 0
        assert world.truth.wrong
        assert world.lost() == 0
        assert "wrong_type" in world.rtml("quarantine", "list", SOURCE)

    def mend(self, world: World) -> None:
        world.traffic.change()
        world.traffic.pause()
        world.settle()
        world.traffic.resume()
        released, fixes = now(), world.home / "fixes.py"
        fixes.write_text(FIX)
        said = world.rtml("quarantine", "replay", SOURCE, "--reason", "wrong_type", "--fix", f"{fixes}:to_numbers")
        world.truth.read()
        assert f"{len(world.truth.wrong):,} released" in said, said
        world.truth.released = released
        world.rebuilt()


class LateFlood(Fault):
    """A producer sends what it had kept for minutes."""

    name: ClassVar = "a flood of late events"
    does: ClassVar = "40 % of events are older than the lateness"
    holds: ClassVar = "those do not count online, all others do; the next compaction publishes them"
    alert: ClassVar = "late"
    target: ClassVar = OF_SOURCE
    lingers: ClassVar = True

    def cause(self, world: World) -> None:
        world.traffic.change(late=0.4)

    def behaves(self, world: World) -> None:
        assert world.agree() > 0

    def mend(self, world: World) -> None:
        world.traffic.change()
        world.compact()


class ClockSkew(Fault):
    """One of many producers has a wrong clock."""

    name: ClassVar = "a producer's clock is wrong"
    does: ClassVar = "4.5 % of events are stamped 10 minutes ahead"
    holds: ClassVar = "those are quarantined as `future`, all others are servable at once"
    alert: ClassVar = "clock_skew"
    target: ClassVar = OF_SOURCE
    lingers: ClassVar = True

    def cause(self, world: World) -> None:
        world.traffic.change(ahead=0.045)

    def behaves(self, world: World) -> None:
        assert world.agree() > 0
        assert world.lost() == 0

    def mend(self, world: World) -> None:
        world.traffic.change()


class HotKey(Fault):
    """A script has found a customer."""

    name: ClassVar = "a hot key"
    does: ClassVar = "one entity gets 90 % of the traffic, which is four times the usual"
    holds: ClassVar = "its features are exact like all others"
    alert: ClassVar = "hot_key"
    target: ClassVar = OF_SOURCE
    lingers: ClassVar = True

    def cause(self, world: World) -> None:
        world.traffic.change(hot=0.9, rate=800)

    def behaves(self, world: World) -> None:
        assert HOT in world.told("fired", self.alert, self.target)[-1]["words"]
        answers(world)

    def mend(self, world: World) -> None:
        world.traffic.change()
