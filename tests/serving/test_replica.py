"""A server that reads a replica: what it answers while the replica is level, behind, and alone."""

import pytest

from rtml import instants
from rtml.instants import SECOND
from rtml.online import keys
from rtml.plan import Plan
from streaming.positions import Position, raise_position
from tests.serving.online import REGISTRY, OwnRedis, eventually, fill, write_purchases

SPENDING = "/v1/features/spending"
PURCHASES: Plan = REGISTRY.plans["user_purchases"]


class Pair:
    """A Redis and its replica, both real."""

    def __init__(self) -> None:
        self.servers = OwnRedis(), OwnRedis()
        self.primary, self.replica = (server.start() for server in self.servers)
        self.follow()
        self.present = fill(self.primary)

    def follow(self) -> None:
        """Let the replica follow, from now on, until it is level."""
        self.replica.replicaof("127.0.0.1", str(self.servers[0].port))
        eventually(self.is_level)

    def lag(self) -> None:
        """Cut the replica off: it follows one that is not there, and goes on answering."""
        self.replica.replicaof("127.0.0.1", "1")
        eventually(lambda: self.replica.info("replication")["master_link_status"] == "down")

    def is_level(self) -> bool:
        known = self.replica.info("replication")
        offset = self.primary.info("replication")["master_repl_offset"]
        return known["master_link_status"] == "up" and known["slave_repl_offset"] >= offset

    def advance(self, micros: int) -> None:
        """Move the streams on."""
        self.present += micros
        for number, plan in enumerate(REGISTRY.plans.values()):
            raise_position(
                self.primary, keys.position(plan.source), 0, Position(f"{self.present}-{number}", self.present)
            )

    def stop(self) -> None:
        for server in self.servers:
            server.thaw()
            server.stop()


@pytest.fixture(scope="module")
def pair():
    both = Pair()
    yield both
    both.stop()


def ask(served, at=None, user="ann", **more):
    return served.http.post(SPENDING, json={"entities": [{"user": user}], "at": at, **more}).json()


def test_a_replica_that_lags_makes_features_stale_and_never_wrong(serve, pair):
    primary, replica = (server.url for server in pair.servers)
    served = serve(primary, RTML_REDIS_READ_URL=replica)
    assert served.http.get("/readyz").json() == {"ready": True, "reasons": []}
    assert ask(served)["rows"][0][1] == 3
    assert pair.replica.info("clients")["connected_clients"] >= 3  # the test's own, the state's, the features'

    pair.lag()
    behind = pair.present
    write_purchases(pair.primary, "ann", behind + 9 * SECOND, [(SECOND, 1.0, 1)] * 4)
    pair.advance(10 * SECOND)
    # What the primary holds by now is neither counted nor promised.
    for leading_edge in ("watermark", "wall_clock"):
        answer = ask(served, leading_edge=leading_edge)
        assert answer["watermark"] == instants.to_text(behind)
        assert answer["rows"][0][1] == 3
    late = ask(served, at=pair.present)
    assert (late["status"], late["rows"][0][1]) == ({"user_purchases": ["stale"]}, 3)
    assert late["age_ms"] == 10_000.0

    pair.follow()
    eventually(lambda: ask(served)["watermark"] == instants.to_text(pair.present))
    assert ask(served, at=pair.present)["status"] == {"user_purchases": ["fresh"]}


def test_without_its_primary_it_answers_and_says_so(serve, pair):
    served = serve(*(server.url for server in pair.servers[:1]), RTML_REDIS_READ_URL=pair.servers[1].url)
    pair.servers[0].freeze()
    ready = served.http.get("/readyz")
    pair.servers[0].thaw()
    assert (ready.status_code, ready.json()["ready"], ready.json()["reasons"]) == (200, True, [])
    (warning,) = ready.json()["warnings"]
    assert warning.startswith("the primary (redis_url): Redis did not answer within 500 ms; features are the replica's")
    assert ask(served, user="bob")["rows"][0][1] == 3


def test_without_its_replica_it_answers_nothing_and_says_so(serve, pair):
    served = serve(pair.servers[0].url, RTML_REDIS_READ_URL=pair.servers[1].url)
    pair.servers[1].stop()
    eventually(lambda: served.http.get("/readyz").status_code == 503)
    ready = served.http.get("/readyz").json()
    (reason,) = ready["reasons"]
    assert reason.startswith("the replica (redis_read_url): Redis does not answer")
    assert "warnings" not in ready
    assert served.http.post(SPENDING, json={"entities": [{"user": "ann"}]}).status_code == 503
