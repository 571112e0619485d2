"""Who may ask what: a real server that asks for keys, and the keys that `rtml keys` makes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
import polars as pl
import pytest

from rtml.access import OF_RUN, fingerprint, of_run
from rtml.access import create_key as new_key
from rtml.errors import SettingsError
from rtml.lake import Lake
from rtml.online import keys as names
from rtml.settings import Settings
from rtml_assets.runtime.keys import create_key, fill_keys, revoke_keys, rotate_key
from rtml_assets.runtime.probes import ask_server
from serving.denied import MOST_OF_ONE, DeniedLog
from serving.guard import MOST_FAILURES, Guard, address_of, scope_of
from serving.keyring import KeyRing
from serving.limits import MOST_BUCKETS, Buckets
from streaming import audit
from streaming.access import project_keys, projected_keys
from streaming.broker import connect
from tests.serving.conftest import Filled, Served
from tests.serving.online import PATIENCE_SECONDS, REGISTRY, eventually

ANN = {"entities": [{"user": "ann"}]}
SPENDING, SHOPPING = "/v1/features/spending", "/v1/features/shopping"
RATE = 40


@dataclass
class Guarded:
    """A server that asks for keys, and what `rtml keys` works with."""

    served: Served
    settings: Settings

    def key(self, name: str, *scopes: str, expires: str | None = None) -> str:
        """Make a key, and return it when the server knows it."""
        return self._known(create_key(self.settings, REGISTRY, name, scopes, expires))

    def rotated(self, name: str, grace: str) -> str:
        return self._known(rotate_key(self.settings, name, grace))

    @contextmanager
    def at(self, address: str) -> Iterator[httpx.Client]:
        """Ask from an address of one's own: how often a wrong key may come is counted by address."""
        transport = httpx.HTTPTransport(local_address=address)
        with httpx.Client(base_url=self.served.http.base_url, transport=transport, timeout=PATIENCE_SECONDS) as http:
            yield http

    def status(self, key: str | None, path: str = SPENDING, http: httpx.Client | None = None) -> int:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        method = "POST" if path.startswith("/v1/features/") else "GET"
        asked = (http or self.served.http).request(
            method, path, json=ANN if method == "POST" else None, headers=headers
        )
        return asked.status_code

    def passes(self, key: str, *, wanted: bool = True) -> bool:
        """Whether it comes to be that a key passes, or no longer does."""
        with self.at("127.0.0.9") as http:
            eventually(lambda: (self.status(key, http=http) not in (401, 429, 503)) == wanted)
        return wanted

    def _known(self, told: str) -> str:
        key = told.splitlines()[0]
        assert self.passes(key)
        return key


@pytest.fixture(scope="module")
def guarded(feature_redis: Filled, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    home = tmp_path_factory.mktemp("guarded")
    served = Served(feature_redis.url, home, RTML_AUTH="on", RTML_RATE_LIMIT=str(RATE), RTML_MAX_BODY_BYTES="2000")
    yield Guarded(served, Settings(home=str(home), redis_url=feature_redis.url, port=served.port, auth="on"))
    code, said = served.end()
    assert (code, said) == (0, "")


@pytest.fixture(scope="module")
def reader(guarded: Guarded) -> str:
    return guarded.key("reader", "read:spending")


def test_a_key_reads_what_its_scope_says_and_nothing_else(guarded: Guarded, reader: str) -> None:
    assert guarded.status(reader) == 200
    answer = guarded.served.http.post(SHOPPING, json=ANN, headers={"x-api-key": reader})
    assert answer.status_code == 403
    assert answer.json()["error"] == {
        "request_id": answer.headers["x-request-id"],
        "code": "forbidden",
        "message": "key 'reader' needs scope read:shopping; it has read:spending",
    }
    assert 'error="insufficient_scope", scope="read:shopping"' in answer.headers["www-authenticate"]
    for path in ("/v1/events/purchases", "/v1/promotions"):
        assert guarded.served.http.post(path, json={}, headers={"x-api-key": reader}).status_code == 403
    # What is shown to people any key may see.
    assert guarded.status(reader, "/v1/services") == guarded.status(reader, "/metrics") == 200


def test_wider_scopes(guarded: Guarded) -> None:
    every, admin = guarded.key("every", "read:*"), guarded.key("boss", "admin")
    assert guarded.status(every, SHOPPING) == guarded.status(admin, SHOPPING) == 400  # it lacks a join key: it was read
    pushed = [
        guarded.served.http.post("/v1/events/purchases", json={}, headers={"x-api-key": key}).status_code
        for key in (every, admin, guarded.key("sender", "push:purchases"), guarded.key("other", "push:visits"))
    ]
    assert pushed == [403, 404, 404, 403]  # let through: no flow ran here


def test_without_or_with_a_wrong_key_nothing_is_said(guarded: Guarded, reader: str) -> None:
    missing = guarded.served.http.post(SPENDING, json=ANN)
    assert (missing.status_code, missing.headers["www-authenticate"]) == (401, 'Bearer realm="rtml"')
    wrong = reader[:-1] + ("0" if reader[-1] != "0" else "1")
    strangers = [wrong, "rtml_00000000_" + "0" * 64, "nonsense", reader[:-1], reader.upper()]
    said = set()
    for key in strangers:
        answer = guarded.served.http.post(SPENDING, json=ANN, headers={"authorization": f"Bearer {key}"})
        said.add((answer.status_code, answer.headers["www-authenticate"], answer.json()["error"]["message"]))
    assert {status for status, _, _ in said} == {401}
    assert len(said) == 1
    assert guarded.served.http.post(SPENDING, json=ANN, params={"key": reader}).status_code == 401


def test_headers_that_are_no_text_are_a_wrong_key_like_any_other(guarded: Guarded) -> None:
    strange = [b"Bearer \xff\xfe", "Bearer schlüssel".encode(), b"Bearer", b"Basic YTpi", b"Bearer " + b"x" * 8_000]
    with guarded.at("127.0.0.5") as http:
        for value in strange:
            for name in (b"authorization", b"x-api-key", b"cookie"):
                answer = http.post(SPENDING, json=ANN, headers=[(name, value)])
                assert answer.status_code == 401, (name, value[:20])


def test_what_anybody_may_see(guarded: Guarded) -> None:
    for path in ("/", "/docs", "/openapi.json", "/healthz", "/readyz"):
        assert guarded.status(None, path) == 200
    with guarded.at("127.0.0.2") as http:
        for path in ("/metrics", "/v1/services", "/quality/", "/v1/sla", "/v1/heartbeats", "/docs/x", "/healthz/"):
            assert guarded.status(None, path, http) == 401


def test_a_revoked_a_rotated_and_an_expired_key(guarded: Guarded) -> None:
    old = guarded.key("model", "read:spending")
    new = guarded.rotated("model", "1h")
    assert guarded.status(old) == guarded.status(new) == 200  # both in the grace
    newest = guarded.rotated("model", "0s")
    assert not guarded.passes(old, wanted=False)
    assert not guarded.passes(new, wanted=False)
    assert guarded.status(newest) == 200
    revoke_keys(guarded.settings, "model")
    assert not guarded.passes(newest, wanted=False)
    with pytest.raises(Exception, match=r"no key 'model' in those that count"):
        rotate_key(guarded.settings, "model")
    short = create_key(guarded.settings, REGISTRY, "short", ["read:spending"], "1s").splitlines()[0]
    assert not guarded.passes(short, wanted=False)


def test_keys_that_redis_lost_or_never_heard_of(guarded: Guarded, reader: str, feature_redis: Filled) -> None:
    revoked = guarded.key("gone", "admin")
    before = feature_redis.client.hgetall(names.KEYS)
    revoke_keys(guarded.settings, "gone")
    lake = Lake(guarded.settings.lake_root)
    # An older copy of Redis comes back: what was revoked since stays so.
    feature_redis.client.delete(names.KEYS)
    feature_redis.client.hset(names.KEYS, mapping=before)  # type: ignore[arg-type]
    known = projected_keys(feature_redis.client)
    assert known is not None
    number = revoked.split("_")[1]
    assert not known[number].revoked
    ring = KeyRing(feature_redis.client, lake)
    ring.refresh()
    assert ring.keys is not None
    assert ring.keys[number].revoked
    # Redis without any: the lake tells them.
    feature_redis.client.delete(names.KEYS)
    fresh = KeyRing(feature_redis.client, lake)
    fresh.refresh()
    assert fresh.keys == ring.keys
    assert guarded.status(reader) == 200
    # The lake is away as well: what is known goes on to count.
    clock = [0.0]
    known_once = KeyRing(feature_redis.client, lake, lambda: clock[0])
    known_once.refresh()
    known_once._lake = Lake("/dev/null/lake")
    clock[0] = 100.0
    known_once.refresh()
    assert known_once.keys == ring.keys


def test_who_told_redis_what_was_true_before_a_revocation_tells_it_again(
    guarded: Guarded, feature_redis: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = guarded.key("overtaken", "admin").split("_")[1]
    place = "rtml_assets.runtime.keys.project_keys"

    def overtaken(client: Any, known: Any) -> None:
        monkeypatch.setattr(place, project_keys)
        revoke_keys(guarded.settings, "overtaken")
        project_keys(client, known)

    monkeypatch.setattr(place, overtaken)
    fill_keys(guarded.settings)
    known = projected_keys(feature_redis.client)
    assert known is not None
    assert known[number].revoked


def test_a_key_of_a_moment_ago_outlives_a_loss_of_redis(guarded: Guarded, feature_redis: Filled) -> None:
    fill_keys(guarded.settings)
    with_lake, without = (
        KeyRing(feature_redis.client, lake, lambda: 0.0)
        for lake in (Lake(guarded.settings.lake_root), Lake("nonsense://lake"))
    )
    with_lake.refresh()
    number = guarded.key("fresh", "read:spending").split("_")[1]
    without.refresh()
    feature_redis.client.delete(names.KEYS)
    for ring in (with_lake, without):
        ring.refresh()
        assert ring.keys is not None
        assert number in ring.keys


def test_a_server_that_never_knew_a_key_lets_nobody_in(guarded: Guarded, reader: str) -> None:
    def asked(method: str, path: str, **headers: str) -> Any:
        return SimpleNamespace(method=method, path=path, client="127.0.0.1:1", headers=headers)

    with connect("redis://127.0.0.1:1/0", timeout=0.1) as away:
        ring = KeyRing(away, Lake("nonsense://lake"))
        guard = Guard(ring, DeniedLog(Lake(guarded.settings.lake_root)), 0, secure=False)
        ring.refresh()
        refused = guard.check(asked("POST", SPENDING, authorization=f"Bearer {reader}"))
        assert refused is not None
        assert refused.status == 503
        assert guard.check(asked("GET", "/healthz")) is None
        # Redis is away, and the lake is there.
        ring = KeyRing(away, Lake(guarded.settings.lake_root))
        ring.refresh()
        guard = Guard(ring, DeniedLog(Lake(guarded.settings.lake_root)), 0, secure=False)
        assert guard.check(asked("GET", "/metrics", **{"x-api-key": reader})) is None


def test_the_key_of_a_run_counts_with_its_own_server_alone(guarded: Guarded) -> None:
    text, key = new_key(OF_RUN, ["read:*"], 0)

    def asked(path: str, text: str) -> Any:
        return SimpleNamespace(method="POST", path=path, client="127.0.0.1:1", headers={"x-api-key": text})

    lake, own = Lake(guarded.settings.lake_root), of_run(fingerprint(key))
    with connect(guarded.settings.redis_url) as there, connect("redis://127.0.0.1:1/0", timeout=0.1) as away:
        # Also where neither Redis nor the lake tells a key.
        for ring in (KeyRing(there, lake, own=own), KeyRing(away, Lake("nonsense://lake"), own=own)):
            ring.refresh()
            guard = Guard(ring, DeniedLog(lake), 0, secure=False)
            assert guard.check(asked(SPENDING, text)) is None
            statuses = [guard.check(asked("/v1/events/purchases", text)), guard.check(asked(SPENDING, text[:-1] + "x"))]
            assert [reply.status for reply in statuses if reply] == [403, 401 if ring.keys is not None else 503]
    assert guarded.status(text) == 401
    assert of_run("") == {}
    with pytest.raises(SettingsError, match="RTML_RUN_KEY"):
        Settings(run_key=text)


def test_a_browser_reads_by_a_cookie_and_writes_nothing(guarded: Guarded, reader: str) -> None:
    with guarded.at("127.0.0.3") as http:
        _log_in_and_out(http, reader)


def _log_in_and_out(http: httpx.Client, reader: str) -> None:
    answer = http.post("/login", headers={"authorization": f"Bearer {reader}"})
    assert answer.json() == {"name": "reader", "scopes": ["read:spending"]}
    cookie = answer.headers["set-cookie"]
    assert re.search(r"Max-Age=43200; Path=/; HttpOnly; SameSite=Strict$", cookie)
    assert http.get("/v1/services").status_code == http.post(SPENDING, json=ANN).status_code == 200
    assert http.post("/v1/events/purchases", json={}).status_code == 401
    assert http.get("/login").status_code == 405
    assert "Max-Age=0" in http.post("/logout").headers["set-cookie"]
    http.cookies.clear()
    assert http.get("/v1/services").status_code == http.post("/login").status_code == 401


def test_answers_carry_what_keeps_browsers_safe(guarded: Guarded, reader: str) -> None:
    headers = guarded.served.http.get("/v1/services", headers={"x-api-key": reader}).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert "strict-transport-security" not in headers  # only by TLS


def test_too_long_a_body_and_a_connection_after_a_refusal(guarded: Guarded, reader: str) -> None:
    http, long = guarded.served.http, b" " * 2_001
    assert http.post(SPENDING, content=long, headers={"x-api-key": reader}).status_code == 413
    assert http.post(SPENDING, content=long[:2_000]).status_code == 401
    assert guarded.status(reader) == 200


def test_our_own_processes_show_their_key(guarded: Guarded, reader: str) -> None:
    assert ask_server(guarded.settings, "GET", "/v1/services") is None
    own = Settings(port=guarded.settings.port, key=reader)
    assert b"spending" in (ask_server(own, "GET", "/v1/services") or b"")


def test_one_key_may_ask_so_often(guarded: Guarded, reader: str) -> None:
    greedy = guarded.key("greedy", "read:spending")
    found = [guarded.served.http.post(SPENDING, json=ANN, headers={"x-api-key": greedy}) for _ in range(3 * RATE)]
    refused = [answer for answer in found if answer.status_code == 429]
    assert {answer.status_code for answer in found} == {200, 429}
    assert refused[0].headers["retry-after"] == "1"
    assert guarded.status(reader) == 200  # another key is not held up
    assert {guarded.status(None, "/healthz") for _ in range(2 * RATE)} == {200}


def test_wrong_keys_from_one_address_are_slowed(guarded: Guarded, reader: str) -> None:
    with guarded.at("127.0.0.4") as http:
        statuses = [guarded.status("wrong", http=http) for _ in range(int(MOST_FAILURES) + 30)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    with guarded.at("127.0.0.6") as http:
        for number in range(3 * MOST_OF_ONE):
            http.get("/metrics", headers={"x-api-key": f"rtml_{number:08x}_{'0' * 64}"})
    assert guarded.status(reader) == 200


def test_what_was_denied_is_in_the_audit(guarded: Guarded, reader: str) -> None:
    guarded.served.end()
    rows = audit.read(Lake(guarded.settings.lake_root))
    denied = rows.filter(pl.col("action") == "request.denied")
    number = reader.split("_")[1]
    found = {(row["actor"], row["target"], row["outcome"]): row["detail"] for row in denied.iter_rows(named=True)}
    assert found[f"key reader ({number})", f"POST {SHOPPING}", "403"] == "1 request: needs read:shopping"
    assert ("address 127.0.0.1", f"POST {SPENDING}", "401") in found
    assert set(denied.filter(pl.col("target") == f"POST {SPENDING}")["detail"].str.extract(r": (.*)$")) >= {
        "no key",
        "unknown key",
        "unknown key 00000000",
        f"wrong, expired or revoked key {number}",
    }
    noise = denied.filter(pl.col("actor") == "address 127.0.0.6")
    assert noise.height <= MOST_OF_ONE + 2
    assert set(noise["outcome"]) == {"401", "429"}
    assert noise["detail"].str.extract(r"^(\d+)").cast(pl.Int64).sum() == 3 * MOST_OF_ONE
    assert {"key.create", "key.rotate", "key.revoke"} <= set(rows["action"])
    assert not rows.filter(pl.any_horizontal(pl.col(pl.String).str.contains(r"rtml_[0-9a-f]{8}_[0-9a-f]{64}"))).height


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/v1/features/eta", "read:eta"),
        ("POST", "/v1/features/été", "read:été"),
        ("POST", "/v1/events/departures", "push:departures"),
        ("GET", "/v1/sla", ""),
        ("POST", "/v1/anything", "admin"),
        ("DELETE", "/quality/x", "admin"),
        ("POST", "/v1/features/eta/more", "admin"),
    ],
)
def test_the_scope_of_a_path(method: str, path: str, scope: str) -> None:
    assert scope_of(method, path) == scope


def test_a_caller_is_an_address() -> None:
    assert address_of("10.0.0.1:5000") == "10.0.0.1"
    assert address_of("[2001:db8::1]:80") == address_of("[2001:db8::ffff:1]:81") == "2001:db8::/64"


def test_buckets_fill_again_and_are_bounded() -> None:
    clock = [0.0]
    buckets = Buckets(2.0, 3.0, clock=lambda: clock[0])
    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 1]
    assert buckets.take("b") == 0
    clock[0] = 0.5
    assert [buckets.take("a"), buckets.take("a")] == [0, 1]
    for number in range(MOST_BUCKETS + 5):
        buckets.take(str(number))
    assert len(buckets) == MOST_BUCKETS
    assert [Buckets(0).take("a") for _ in range(100)] == [0] * 100
