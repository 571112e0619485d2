"""Producer, source partition, positions, versions, link, pruning and mirror, over a real Redis and real Delta."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import polars as pl
import pytest
from deltalake import DeltaTable

import rtml
from rtml.define.source import EventSource
from rtml.errors import SendError, SettingsError, UnavailableError, UnknownNameError
from rtml.instants import BEGINNING, DAY, HOUR, MINUTE, now, to_instant
from rtml.lake import Lake, unsigned
from rtml.online import keys
from rtml.online.commands import Command
from rtml.plan import Plan
from rtml.projection import FormerView
from rtml.registry import Registry
from rtml.tiles import Tile
from rtml_assets.runtime.redis_server import EmbeddedRedis
from streaming import broker
from streaming.adoption import Adoption
from streaming.broker import RestartRequiredError
from streaming.figures import Figures
from streaming.gate import Gate
from streaming.link import Link
from streaming.mirror import Mirror
from streaming.positions import Position, raise_position, read_positions, watermark
from streaming.producer import Producer
from streaming.pruning import expired
from streaming.services import Service, read_former, read_services, retire_service, serve_record, write_services
from streaming.sources.redis_stream import Reading, RedisStreamSource
from streaming.versions import (
    Version,
    create_version,
    find_version,
    live_names,
    live_version,
    save_version,
)

DAY_ONE = datetime(2024, 1, 1, tzinfo=UTC)


class Message(rtml.Event):
    id: str
    at: rtml.Timestamp
    key: str
    x: float = rtml.Field(le=100)


@pytest.fixture(scope="module")
def client(redis_url: str) -> Iterator[Any]:
    with broker.connect(redis_url) as client:
        yield client


@pytest.fixture
def source() -> EventSource:
    """A source of a name that no other test has."""
    name = f"m{uuid4().hex[:12]}"
    return EventSource(
        name=name, schema=Message, timestamp="at", event_id="id", stream=rtml.RedisStream(name, 2), lateness="15m"
    )


def events(count: int, start: datetime = DAY_ONE) -> pl.DataFrame:
    moments = [start + timedelta(minutes=minute) for minute in range(count)]
    return pl.DataFrame(
        {
            "id": [f"e{n}" for n in range(count)],
            "at": moments,
            "key": [f"k{n % 3}" for n in range(count)],
            "x": [1.0] * count,
        },
        schema_overrides={"at": pl.Datetime("us", "UTC")},
    )


def reading(source: EventSource, flow: str = "tiles", credit: int = 10_000) -> Reading:
    key = keys.position(source.name) if flow == "tiles" else keys.mirrored(source.name)
    return Reading(flow, key, 1_000, credit, accept_stamps=True)


class TestProducer:
    def test_sorts_by_stamp_and_ticks_every_partition(self, client: Any, source: EventSource) -> None:
        frame = events(10).reverse()
        assert Producer(client, source, key=["key"], accept_stamps=True).send(frame, ingested_at="at") == 10
        sent = []
        for partition in (0, 1):
            entries = client.xrange(source.stream.key(partition))
            stamps = [int(fields[b"ingested_at"]) for _, fields in entries]
            assert stamps == sorted(stamps)
            assert b"tick" in entries[-1][1]
            assert stamps[-1] == to_instant(DAY_ONE + timedelta(minutes=9))
            sent += [msgspec.json.decode(fields[b"data"])["id"] for _, fields in entries if b"data" in fields]
        assert sorted(sent) == sorted(frame["id"].to_list())

    def test_an_entity_stays_in_its_partition(self, client: Any, source: EventSource) -> None:
        Producer(client, source, key=["key"], accept_stamps=True).send(events(30), ingested_at="at")
        where: dict[str, set[int]] = {}
        for partition in (0, 1):
            for _, fields in client.xrange(source.stream.key(partition)):
                if b"data" in fields:
                    where.setdefault(msgspec.json.decode(fields[b"data"])["key"], set()).add(partition)
        assert all(len(partitions) == 1 for partitions in where.values())

    def test_stamps_may_not_go_back(self, client: Any, source: EventSource) -> None:
        producer = Producer(client, source, accept_stamps=True)
        producer.send(events(5), ingested_at=DAY_ONE + timedelta(hours=1))
        with pytest.raises(SendError, match="would go back in time"):
            producer.send(events(5), ingested_at=DAY_ONE)

    @pytest.mark.parametrize(
        ("given", "words"),
        [
            ({"ingested_at": "whn"}, "the frame has no column 'whn'"),
            ({"ingested_at": "x"}, "must be non-null Datetime"),
            ({"partition": 2, "ingested_at": DAY_ONE}, "has partitions 0 to 1; got 2"),
        ],
    )
    def test_what_cannot_be_sent(self, client: Any, source: EventSource, given: dict[str, Any], words: str) -> None:
        with pytest.raises(SendError, match=words):
            Producer(client, source, accept_stamps=True).send(events(5), **given)
        assert not client.exists(source.stream.key(0), source.stream.key(1))

    def test_stamps_need_leave(self, client: Any, source: EventSource) -> None:
        with pytest.raises(SendError, match="RTML_ACCEPT_STAMPS"):
            Producer(client, source).send(events(1), ingested_at=DAY_ONE)

    def test_a_naive_time_is_refused(self, client: Any, source: EventSource) -> None:
        naive = events(1).with_columns(pl.col("at").dt.replace_time_zone(None))
        with pytest.raises(SendError, match="column 'at' must carry a time zone"):
            Producer(client, source, accept_stamps=True).send(naive, ingested_at=DAY_ONE)

    def test_warns_when_all_are_late(self, client: Any, source: EventSource) -> None:
        with pytest.warns(UserWarning, match="all 3 events of .* are late"):
            Producer(client, source).send(events(3))


class TestPartition:
    def open(
        self,
        client: Any,
        source: EventSource,
        flow: str = "tiles",
        credit: int = 10_000,
        resume: str | None = None,
    ) -> Any:
        figures = Figures(source.name, flow)
        opened = RedisStreamSource(client, source, reading(source, flow, credit), figures)
        return opened.build_part("read", "0", resume)

    def test_a_position_is_written_only_after_its_epoch(self, client: Any, source: EventSource) -> None:
        Producer(client, source, accept_stamps=True).send(events(5), ingested_at="at", partition=0)
        part = self.open(client, source)
        (entries,) = part.next_batch()
        assert (len(entries), entries.covered) == (5, BEGINNING)
        assert part.next_batch() == []
        assert read_positions(client, keys.position(source.name), 2)[0] == Position()
        offset = part.snapshot()
        assert read_positions(client, keys.position(source.name), 2)[0] == Position()
        (entries,) = part.next_batch()
        stored = read_positions(client, keys.position(source.name), 2)
        assert stored[0] == Position(offset, to_instant(DAY_ONE + timedelta(minutes=4)))
        assert watermark(stored) == BEGINNING
        assert (len(entries), entries.covered) == (0, stored[0].ingested_at)  # what fences rise by, told only now
        assert part.next_batch() == []

    def test_resumes_at_the_lesser_of_snapshot_and_position(self, client: Any, source: EventSource) -> None:
        Producer(client, source, accept_stamps=True).send(events(5), ingested_at="at", partition=0)
        offsets = [offset.decode() for offset, _ in client.xrange(source.stream.key(0))]
        raise_position(client, keys.position(source.name), 0, Position(offsets[3], 7))
        (entries,) = self.open(client, source, resume=offsets[1]).next_batch()
        assert (entries.offsets[0], entries.covered) == (offsets[2], None)
        (entries,) = self.open(client, source, resume=offsets[4]).next_batch()
        assert (entries.offsets[0], entries.covered) == (offsets[4], 7)

    def test_an_idle_partition_follows_the_brokers_clock(self, client: Any, source: EventSource) -> None:
        client.xadd(source.stream.key(0), {"data": b"{}"})
        part = self.open(client, source)
        part.next_batch()
        seconds, micros = client.time()
        part.next_batch()
        part.snapshot()
        part.next_batch()
        covered = read_positions(client, keys.position(source.name), 1)[0].ingested_at
        assert seconds * 1_000_000 + micros - 1_000 <= covered

    def test_on_replay_time_only_entries_move_it(self, client: Any, source: EventSource) -> None:
        Producer(client, source, accept_stamps=True).send(events(2), ingested_at="at", partition=0)
        part = self.open(client, source)
        for _ in range(3):
            part.next_batch()
        part.snapshot()
        part.next_batch()
        covered = read_positions(client, keys.position(source.name), 1)[0].ingested_at
        assert covered == to_instant(DAY_ONE + timedelta(minutes=1))

    def test_credit_bounds_an_epoch(self, client: Any, source: EventSource) -> None:
        Producer(client, source, accept_stamps=True).send(events(5), ingested_at="at", partition=0)
        part = self.open(client, source, credit=5)
        assert part.next_batch()
        Producer(client, source, accept_stamps=True).send(
            events(1, DAY_ONE + timedelta(days=1)), ingested_at="at", partition=0
        )
        assert not part.next_batch()
        part.snapshot()
        assert part.next_batch()

    def test_only_the_mirror_trims_and_behind_both_flows_for_an_hour(
        self, client: Any, source: EventSource, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("streaming.sources.redis_stream.TRIM_EVERY", -1.0)
        key = source.stream.key(0)
        for hour in range(5):
            for number in range(200):
                client.xadd(key, {"data": b"{}"}, id=f"{hour * 3_600_000 + number + 1}-0")
        raise_position(client, keys.position(source.name), 0, Position(f"{3 * 3_600_000 + 1}-0", 1))
        part = self.open(client, source, flow="mirror")
        part.next_batch()
        part.snapshot()
        part.next_batch()
        first = int(client.xrange(key, count=1)[0][0].split(b"-")[0])
        assert 0 < first <= 2 * 3_600_000 + 1
        assert client.exists(keys.trimmed(source.name))

    def test_a_redis_that_is_away_is_waited_for(self, client: Any, source: EventSource) -> None:
        Producer(client, source, accept_stamps=True).send(events(3), ingested_at="at", partition=0)
        part = self.open(client, source)
        away = broker.connect("redis://127.0.0.1:1", timeout=0.1)
        here, part._reads._connection = part._reads._connection, away.connection_pool.make_connection()
        assert list(part.next_batch()) == []
        assert part.next_awake() > datetime.now(UTC)
        part._reads._connection = here
        assert len(next(iter(part.next_batch()))) == 3

    def test_a_redis_that_came_back_older_is_noticed_though_the_client_reconnects(
        self, source: EventSource, tmp_path: Path
    ) -> None:
        with EmbeddedRedis(tmp_path) as server:
            here = broker.connect(server.url)
            Producer(here, source, accept_stamps=True).send(events(3), ingested_at="at", partition=0)
            part = self.open(here, source)
            part.next_batch()
            part.snapshot()
            server.stop()
            server.start()
            with pytest.raises(RestartRequiredError, match="Redis was restarted"):
                deque((part.next_batch() for _ in range(3)), maxlen=0)
            assert read_positions(here, keys.position(source.name), 1) == [Position()]

    def test_a_redis_that_was_restarted_asks_for_a_new_process(self, client: Any, source: EventSource) -> None:
        part = self.open(client, source)
        part._incarnation = "another"
        part._backoff = 0.1
        with pytest.raises(RestartRequiredError, match="Redis was restarted"):
            part.next_batch()


class TestPositions:
    def test_are_never_lowered(self, client: Any, source: EventSource) -> None:
        key = keys.position(source.name)
        raise_position(client, key, 0, Position("10-5", 100))
        for lower in (Position("9-9", 99), Position("10-4", 50)):
            raise_position(client, key, 0, lower)
            assert read_positions(client, key, 1) == [Position("10-5", 100)]
        raise_position(client, key, 0, Position("10-4", 200))
        assert read_positions(client, key, 1) == [Position("10-5", 200)]
        raise_position(client, key, 0, Position("11-0", 150))
        assert read_positions(client, key, 1) == [Position("11-0", 200)]


class TestBroker:
    def test_a_redis_that_evicts_is_refused(self, client: Any) -> None:
        broker.check(client)
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            with pytest.raises(SettingsError, match="'allkeys-lru', which loses features; expected 'noeviction'"):
                broker.check(client)
        finally:
            client.config_set("maxmemory-policy", "noeviction")

    def test_a_redis_that_is_away_is_named(self) -> None:
        with pytest.raises(UnavailableError):
            broker.check(broker.connect("redis://127.0.0.1:1", timeout=0.1))
        with pytest.raises(SettingsError, match="RTML_REDIS_URL"):
            broker.connect("nonsense")


class TestAdoption:
    def registry(self, source: EventSource, *windows: str, ttl: str | None = None, **service: Any) -> Registry:
        view = rtml.StreamFeatureView(
            name=f"v_{source.name}",
            ttl=ttl,
            source=source,
            entity=rtml.Entity("key"),
            where=pl.col("doubled") > 1,
            derive={"doubled": pl.col("x") * 2},
            features=[rtml.Count(windows=list(windows))],
        )
        return Registry.of([rtml.FeatureService(f"s_{source.name}", features=[view], **service)])

    def plan(self, registry: Registry) -> Plan:
        (plan,) = registry.plans.values()
        return plan

    def live(self, client: Any, registry: Registry) -> Version:
        plan = self.plan(registry)
        found = live_version(client, plan.view, plan.fingerprint)
        assert found is not None
        return found

    def stream_to_the_end(self, client: Any, source: EventSource, adoption: Adoption) -> list[int]:
        """Read all partitions as a flow would; return how many entries each gave."""
        opened = RedisStreamSource(client, source, reading(source), Figures(source.name, "tiles"), adoption)
        read = []
        for partition in (0, 1):
            part = opened.build_part("read", str(partition), None)
            read.append(sum(len(entries) for entries in part.next_batch()))
            part.snapshot()
            part.next_batch()
        return read

    def test_without_history_a_version_is_ready_at_once(self, client: Any, source: EventSource) -> None:
        registry = self.registry(source, "1h")
        ((_, version),) = Adoption(client, registry, source).views
        assert version.boundary == BEGINNING
        live = self.live(client, registry)
        assert (live.version, live.state, live.adopted) == (f"{live.plan.fingerprint}.1", "ready", True)
        assert not client.exists(keys.rewinding(source.name))
        assert read_services(client)[f"s_{source.name}"].fingerprints == {live.view: live.plan.fingerprint}
        assert Adoption(client, registry, source).views[0][1].version == version.version

    def test_what_becomes_of_old_values_changes_without_another_version(self, client: Any, source: EventSource) -> None:
        before = self.registry(source, "1h")
        Adoption(client, before, source)
        built = self.live(client, before)
        defaults = {f"v_{source.name}__count_1h": 3}
        after = self.registry(source, "1h", ttl="2h", on_stale="default", defaults=defaults)
        Adoption(client, after, source)
        served, live = read_services(client)[f"s_{source.name}"], self.live(client, after)
        assert (served.on_stale, served.defaults) == ("default", defaults)
        assert (live.version, live.plan.ttl, built.plan.ttl) == (built.version, 2 * HOUR, None)
        assert live.projection == built.projection

    def test_a_changed_view_is_given_the_whole_stream_beside_the_old_one(
        self, client: Any, source: EventSource
    ) -> None:
        first, changed = self.registry(source, "1h"), self.registry(source, "2h")
        old, new = self.plan(first), self.plan(changed)
        Producer(client, source, accept_stamps=True).send(events(4), ingested_at="at", partition=0)
        assert self.stream_to_the_end(client, source, Adoption(client, first, source)) == [4, 0]
        adoption = Adoption(client, changed, source)
        assert {version.plan.fingerprint for _, version in adoption.views} == {old.fingerprint, new.fingerprint}
        assert live_names(client, old.view) == {old.fingerprint: f"{old.fingerprint}.1"}
        assert self.stream_to_the_end(client, source, adoption) == [4, 0]
        assert set(live_names(client, old.view)) == {old.fingerprint, new.fingerprint}
        served = read_services(client)[f"s_{source.name}"]
        assert served.fingerprints == {old.view: old.fingerprint}  # until it is promoted
        serve_record(client, Service.of(changed.services[served.name], changed.plans), now())
        again = Adoption(client, changed, source)
        assert len(again.views) == 2  # it can be rolled back to
        assert not again.has_news()
        again._grace = -1
        assert again.has_news()
        assert len(Adoption(client, changed, source, grace=-1).views) == 1

    def test_a_former_version_counts_what_its_definition_counted(self, client: Any, source: EventSource) -> None:
        first, changed = self.registry(source, "1h"), self.registry(source, "2h")
        adoption = Adoption(client, first, source)
        former = next(kept for kept, _ in Adoption(client, changed, source).views if isinstance(kept, FormerView))
        (original,) = (view for view, _ in adoption.views)
        assert original.where is not None
        assert former.where is not None
        assert former.where.meta.eq(original.where)
        assert {name: str(one) for name, one in former.derive.items()} == {
            name: str(one) for name, one in original.derive.items()
        }

    def test_a_definition_that_comes_back_is_built_anew(self, client: Any, source: EventSource) -> None:
        """What passed while its old version was not written would be missing from that for ever."""
        first, changed = self.registry(source, "1h"), self.registry(source, "2h")
        producer = Producer(client, source, accept_stamps=True)
        for day, registry in enumerate([first, changed, first]):
            producer.send(events(4, DAY_ONE + timedelta(days=day)), ingested_at="at", partition=0)
            serve_record(client, Service.of(registry.services[f"s_{source.name}"], registry.plans), now())
            read = self.stream_to_the_end(client, source, Adoption(client, registry, source, grace=-1))
            assert read == [4 * (day + 1), 0]
        assert self.live(client, first).version == f"{self.plan(first).fingerprint}.2"

    def test_a_death_amid_adoption_leaves_no_hole(self, client: Any, source: EventSource) -> None:
        first, changed = self.registry(source, "1h"), self.registry(source, "2h")
        Producer(client, source, accept_stamps=True).send(events(4), ingested_at="at", partition=0)
        self.stream_to_the_end(client, source, Adoption(client, first, source))
        create_version(client, Version(self.plan(changed), f"{self.plan(changed).fingerprint}.1", "building"))
        assert self.stream_to_the_end(client, source, Adoption(client, changed, source)) == [4, 0]

    def test_over_landed_history_a_view_waits_for_publish_and_the_others_do_not(
        self, client: Any, source: EventSource
    ) -> None:
        registry = self.registry(source, "1h")
        Adoption(client, registry, source)
        client.set(keys.landed(source.name), 1)
        changed = self.registry(source, "2h")
        adoption = Adoption(client, changed, source)
        assert [isinstance(kept, FormerView) for kept, _ in adoption.views] == [True]
        assert not adoption.has_news()
        version = Version(self.plan(changed), f"{self.plan(changed).fingerprint}.1", "ready", boundary=DAY)
        create_version(client, version)
        assert adoption.has_news()
        part = RedisStreamSource(client, source, reading(source), Figures(source.name, "tiles"), adoption).build_part(
            "read", "0", None
        )
        part.snapshot()
        with pytest.raises(RestartRequiredError, match="other versions are to be written by now"):
            part.next_batch()
        again = Adoption(client, changed, source)
        assert [found.boundary for _, found in again.views] == [DAY, BEGINNING]  # the new one, and the one served
        assert not again.has_news()

    def test_a_service_that_no_definition_has_is_served_until_it_is_retired(
        self, client: Any, source: EventSource
    ) -> None:
        registry = self.registry(source, "1h")
        Adoption(client, registry, source)
        gone = Service(f"gone_{source.name}", 1, (), {})
        write_services(client, [gone])
        Adoption(client, registry, source)
        assert read_services(client)[gone.name] == gone
        retire_service(client, gone.name, now())
        assert gone.name not in read_services(client)
        assert [one.service for one in read_former(client)[gone.name]] == [gone]
        with pytest.raises(UnknownNameError, match="no service 'gone"):
            retire_service(client, gone.name, now())

    def test_a_version_is_created_once(self, client: Any, source: EventSource) -> None:
        (plan,) = self.registry(source, "1h").plans.values()
        first = create_version(client, Version(plan, f"{plan.fingerprint}.1", "building", boundary=1))
        assert create_version(client, Version(plan, f"{plan.fingerprint}.1", "ready", boundary=2)) == first
        save_version(client, msgspec.structs.replace(first, state="ready"))
        create_version(client, Version(plan, f"{plan.fingerprint}.2", "building"))
        found = find_version(client, plan)
        assert found is not None
        assert found.version == f"{plan.fingerprint}.2"


class TestClaim:
    def test_an_entity_with_thousands_of_tiles_is_claimed(self, client: Any) -> None:
        name = f"many{uuid4().hex}"
        fields = [b"%06d" % number for number in range(12_000)]
        client.hset(name, fields[11_999], b"last")
        link = Link(client)
        (reply,) = link.run([link.packer(7, 100, 100).claim(name.encode(), fields)])
        link.close()
        assert len(reply) == 12_001
        assert (reply[1], reply[-1]) == (None, b"last")


class TestLink:
    def test_waits_while_redis_is_full_and_loses_nothing(self, client: Any) -> None:
        name = f"full{uuid4().hex}"
        slept: list[float] = []

        def make_room(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                client.config_set("maxmemory", 0)

        link = Link(client, sleep=make_room)
        client.config_set("maxmemory", 1)
        try:
            claim = link.packer(7, 100, 100).claim(f"{name}:h".encode(), [])
            commands: list[Command | bytes] = [("SET", name, "x"), claim]
            assert link.run(commands)[0] == b"OK"
        finally:
            client.config_set("maxmemory", 0)
            link.close()
        assert slept == [0.05, 0.1, 0.2]
        assert client.get(name) == b"x"
        assert client.hexists(f"{name}:h", "h")

    def test_an_older_generation_is_refused(self, client: Any) -> None:
        name = f"owned{uuid4().hex}"
        link = Link(client)
        new, old = link.packer(7, 100, 100), link.packer(6, 100, 100)
        link.run([new.claim(name.encode(), [])])
        with pytest.raises(RestartRequiredError, match="STALE a newer generation owns"):
            link.run([old.claim(name.encode(), [])])
        with pytest.raises(RestartRequiredError, match="STALE this writer no longer owns"):
            link.run([old.write([name.encode()], 100, [], [], [])])
        link.close()


class TestPruning:
    def test_keeps_all_that_a_window_or_a_late_arrival_can_reach(self, source: EventSource) -> None:
        view = rtml.StreamFeatureView(
            name="v", source=source, entity=rtml.Entity("key"), features=[rtml.Count(windows=["3h", "2d"])]
        )
        plan = Registry.of([view]).plans["v"]
        fence = 100 * DAY
        finest = [Tile(0, index) for index in range((fence - 4 * DAY) // (5 * MINUTE), fence // (5 * MINUTE))]
        old, raw = expired(plan, finest, fence)
        reach = fence - 15 * MINUTE - 2 * DAY
        assert all(plan.tiles.end(tile) <= reach - 5 * MINUTE for tile in old)
        assert plan.tiles.end(max(old)) + 5 * MINUTE > reach - 5 * MINUTE
        assert max(raw) * 5 * MINUTE <= fence - 15 * MINUTE - 3 * HOUR
        assert len(raw) > len(old)


class TestMirror:
    def test_accepted_and_refused_events_are_in_the_lake(
        self, client: Any, source: EventSource, tmp_path: Path
    ) -> None:
        producer = Producer(client, source, accept_stamps=True)
        producer.send(events(3), ingested_at="at", partition=0)
        producer.send_bytes([b"nonsense", b'{"x": 1}'], ingested_at=to_instant(DAY_ONE + timedelta(hours=1)))
        part = TestPartition().open(client, source, flow="mirror")
        (entries,) = part.next_batch()
        mirror = Mirror(client, Lake(str(tmp_path)), source, Figures(source.name, "mirror"))
        gated = Gate(source)(entries)
        mirror.take(gated)
        mirror.flush()
        raw = pl.read_delta(str(tmp_path / "raw" / source.name)).sort("at")
        assert raw["id"].to_list() == ["e0", "e1", "e2"]
        assert raw.select(unsigned())["id64"].to_list() == gated.good["id64"].to_list()
        quarantine = pl.read_delta(str(tmp_path / "quarantine" / source.name)).sort("offset")
        assert quarantine["payload"].to_list() == [b"nonsense", b'{"x": 1}']
        assert quarantine["reason"].to_list() == ["not_json", "missing_field"]
        assert quarantine["offset"].to_list() == [refused.offset for refused in gated.refused]
        shown = [msgspec.json.decode(text) for text in client.lrange(keys.dead(source.name), 0, -1)]
        assert {row["payload"] for row in shown} == {"nonsense", '{"x": 1}'}

    def test_an_empty_flush_commits_nothing(self, client: Any, source: EventSource, tmp_path: Path) -> None:
        Mirror(client, Lake(str(tmp_path)), source, Figures(source.name, "mirror")).flush()
        assert not DeltaTable.is_deltatable(str(tmp_path / "raw" / source.name))
