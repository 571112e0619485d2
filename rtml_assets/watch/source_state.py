"""What a source's state is: flowing, quiet or stalled is told by heartbeats and by positions that move."""

from __future__ import annotations

import msgspec

from rtml.define.sla import SLA
from rtml.instants import Instant
from rtml.settings import Settings
from rtml_assets.watch.heartbeat import Beat, Beats
from rtml_assets.watch.look_redis import StreamSeen
from rtml_assets.watch.look_server import ServerHeartbeats
from rtml_assets.watch.report import Flow, Partition, Source, State


class SourceState:
    """One source, look by look: remembers when its positions moved."""

    def __init__(self, sla: SLA, settings: Settings) -> None:
        """Take its bounds."""
        bound = (sla.us("heartbeat") or 0) / 1_000
        # The mirror passes heartbeats on with its epoch: one that was just missed waits for the next.
        self._bounds = {"tiles": bound, "mirror": bound + 2 * settings.mirror_epoch_us / 1_000}
        self._moved: dict[tuple[str, int], tuple[str, Instant]] = {}

    def of(
        self, seen: StreamSeen | None, beats: Beats, server: ServerHeartbeats | None, clock: Instant, words: str
    ) -> Source:
        """Return the source; `clock` is Redis' time, `words` say why nothing was seen, or sent."""
        if seen is None:
            return Source("unseen", words)
        # A position is never lowered: while the past is read again it stands still, and only figures tell of life.
        lives = {"tiles": str(seen.flows["tiles"].updated_at)} if seen.rewinding else {}
        flows = {
            name: self._flow(name, flow, beats[name], clock, lives.get(name, "")) for name, flow in seen.flows.items()
        }
        state, why = self._state(seen, flows, clock)
        age = None if seen.last_event_at is None else max(0.0, (clock - seen.last_event_at) / 1_000)
        took = _to_server(beats["tiles"], server)
        return Source(state, why or words, flows, seen.replayed, seen.last_event_at, age, took, seen.held)

    def _flow(self, name: str, flow: Flow, beats: dict[int, Beat], clock: Instant, life: str) -> Flow:
        partitions = [self._partition(name, part, beats.get(part.partition), clock, life) for part in flow.partitions]
        moved = max(self._moved[name, part.partition][1] for part in partitions)
        return msgspec.structs.replace(flow, partitions=partitions, moved_at=moved)

    def _partition(self, flow: str, part: Partition, beat: Beat | None, clock: Instant, life: str) -> Partition:
        place = f"{part.offset} {life}"
        if self._moved.get((flow, part.partition), ("", 0))[0] != place:
            self._moved[flow, part.partition] = (place, clock)
        if beat is None:
            return part
        took = None if beat.took_ms is None else round(beat.took_ms, 3)
        return msgspec.structs.replace(part, heartbeat_ms=took, missing_ms=round(beat.missing_ms, 3))

    def _state(self, seen: StreamSeen, flows: dict[str, Flow], clock: Instant) -> tuple[State, str]:
        for name, flow in flows.items():
            if words := self._stalled(name, flow, clock):
                return "stalled", words
        if not seen.written:
            return "unwritten", "its stream was never written to"
        if seen.rewinding:
            return "replaying", "the tiles flow reads its past again"
        minute = flows["tiles"].minute
        return ("flowing" if minute.get("accepted", 0) + minute.get("refused", 0) else "quiet"), ""

    def _stalled(self, name: str, flow: Flow, clock: Instant) -> str:
        """Say in which partition neither heartbeats come through nor the position moves, if there is one."""
        bound = self._bounds[name]
        for part in flow.partitions:
            missing = part.missing_ms or 0.0
            still = (clock - self._moved[name, part.partition][1]) / 1_000
            if missing > bound and still > bound:
                where = f" in partition {part.partition}" if len(flow.partitions) > 1 else ""
                return (
                    f"flow {name!r} passes nothing on{where}: a heartbeat is missing for {missing / 1_000:.1f} s, "
                    f"bound {bound / 1_000:g} s"
                )
        return ""


def _to_server(beats: dict[int, Beat], server: ServerHeartbeats | None) -> float | None:
    """Return the time from the stream to the server's answer: the way to Redis, and the request's."""
    if server is None:
        return None
    took = [
        beat.took_ms + server.took_ms
        for partition, beat in beats.items()
        if beat.took_ms is not None and partition in server.partitions
    ]
    return round(max(took), 3) if took else None
