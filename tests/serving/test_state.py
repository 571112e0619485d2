"""What a server knows of Redis, and that it goes on knowing."""

import msgspec
import pytest

from rtml.errors import UnavailableError
from rtml.instants import BEGINNING
from rtml.online import keys
from serving.redis_io import connect_reader
from serving.state import ServingState, Snapshot
from streaming.services import write_services
from streaming.versions import Version, create_version, go_live, save_version
from tests.serving.online import REGISTRY, OwnRedis, eventually, fill, services, version_of


@pytest.fixture
def own_redis():
    server = OwnRedis()
    yield server
    server.thaw()
    server.stop()


@pytest.fixture
def state(own_redis):
    client = own_redis.start()
    fill(client)
    reader = connect_reader(own_redis.url, 0.2)
    state = ServingState(reader)
    yield state
    state.stop()
    reader.close()
    client.close()


def test_nothing_is_known_before_the_first_look():
    with pytest.raises(UnavailableError, match="was not read yet"):
        _ = ServingState(connect_reader("redis://127.0.0.1:1/0", 0.1)).snapshot


def test_a_snapshot_has_services_versions_and_watermarks(state):
    seen = state.refresh()
    assert set(seen.services) == {"spending", "shopping"}
    assert {
        view: {name: found.version for name, found in versions.items()} for view, versions in seen.live.items()
    } == {view: {plan.fingerprint: f"{plan.fingerprint}.1"} for view, plan in REGISTRY.plans.items()}
    assert set(seen.watermarks) == {"purchases", "visits"}
    assert seen.unready() == []


def shop_visits(look: Snapshot) -> Version:
    (version,) = look.live["shop_visits"].values()
    return version


def test_a_plan_is_decoded_once_however_often_the_rest_changes(state, own_redis):
    before = shop_visits(state.refresh())
    assert shop_visits(state.refresh()) is before
    moved = msgspec.structs.replace(before, published_to=5)
    client = connect_reader(own_redis.url, 1)
    save_version(client, moved)
    after = shop_visits(state.refresh())
    assert (after.published_to, after.plan) == (5, before.plan)
    assert after.plan is before.plan
    client.close()


def test_all_views_in_the_way_are_told():
    plan = REGISTRY.plans["user_purchases"]
    building = msgspec.structs.replace(version_of(plan), state="building")
    look = Snapshot({service.name: service for service in services()}, {plan.view: {plan.fingerprint: building}}, {})
    stuck = f"view 'user_purchases' must serve {plan.fingerprint}; it serves {building.version}, which is building"
    fingerprint = REGISTRY.plans["shop_visits"].fingerprint
    assert sorted(look.unready()) == [
        f"service 'shopping': view 'shop_visits' must serve {fingerprint}; it serves nothing yet",
        f"service 'shopping': {stuck}",
        f"service 'spending': {stuck}",
    ]
    assert Snapshot({}, {}, {}).unready() == ["no service is known: none was ever registered in this Redis"]
    assert look.reach(building) == BEGINNING


def test_a_newer_build_is_seen_without_a_restart(state, own_redis):
    client = connect_reader(own_redis.url, 1)
    state.refresh()
    state.start()
    second = version_of(REGISTRY.plans["shop_visits"], build=2)
    go_live(client, create_version(client, second))
    eventually(lambda: shop_visits(state.snapshot).version == second.version)
    client.close()


def test_what_cannot_be_read_is_an_error_and_its_repair_is_seen(state, own_redis):
    client = connect_reader(own_redis.url, 1)
    state.refresh()
    state.start()
    client.hset(keys.SERVICES, "spending", b"{")

    def failed() -> bool:
        try:
            return not state.snapshot
        except UnavailableError as error:
            return "what Redis holds of services and views cannot be read" in str(error)

    eventually(failed)
    write_services(client, services())
    eventually(lambda: not failed())
    client.close()


def test_an_answer_that_comes_too_late_does_not_undo_the_last_look_at_once(state, own_redis):
    seen = state.refresh()
    own_redis.freeze()
    state._look(patience=60)
    assert state.snapshot is seen
    with pytest.raises(UnavailableError, match="Redis does not answer"):
        state.refresh()
    own_redis.thaw()
    own_redis.stop()
    state._look(patience=60)  # one that is gone is not late
    with pytest.raises(UnavailableError, match="Redis does not answer"):
        _ = state.snapshot


def test_redis_away_is_told_within_the_timeout_and_its_return_is_seen(state, own_redis, caplog):
    state.refresh()
    state.start()

    def away() -> str:
        try:
            _ = state.snapshot
        except UnavailableError as error:
            return str(error)
        return ""

    own_redis.freeze()
    eventually(lambda: "Redis does not answer" in away())
    own_redis.thaw()
    eventually(lambda: not away())
    own_redis.stop()
    eventually(lambda: "Redis does not answer" in away())
    fill(own_redis.start())
    eventually(lambda: not away())
    state.stop()
    said = [record.message for record in caplog.records if record.name == "rtml.serving"]
    assert said[1::2] == ["Redis answers again"] * 2
    assert all("Redis does not answer" in one for one in said[::2])
