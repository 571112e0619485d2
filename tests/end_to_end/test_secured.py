"""Everything at once as it would run in earnest: TLS, users with the least rights, keys, and no secret in any log."""

from __future__ import annotations

import os
import pickletools
import re
import shutil
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import msgspec
import polars as pl
import pytest
import redis
import trustme
from rich.console import Console

from rtml.errors import RequestError
from rtml.instants import Instant, now
from rtml.lake import Lake
from rtml.online import keys
from rtml.registry import load
from rtml.settings import Settings
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.materialize import materialize_days
from rtml_assets.defs.promotion_assets import promotion_asset
from rtml_assets.runtime.behind import behind
from rtml_assets.runtime.keys import create_key
from rtml_assets.runtime.ports import free_port
from rtml_assets.runtime.probes import redis_answers, server_is_up
from rtml_assets.runtime.project import with_own_key
from rtml_assets.runtime.promoting import run_promote, run_rollback
from rtml_assets.runtime.supervisor import Child, Supervisor
from rtml_assets.watch.report import Report
from rtml_assets.watch.shown import read_file
from streaming import audit
from streaming.broker import connect
from streaming.producer import Producer
from tests.leaks import MARKER, leaks, leaks_below
from tests.serving.online import eventually

ROOT = Path(__file__).resolve().parents[2]
FEATURES = str(Path(__file__).parent / "guarded.py")
REGISTRY = load(FEATURES)
USERS = ("stream", "serving", "offline", "watch")


def password(user: str) -> str:
    return f"{MARKER}-{user}"


@dataclass
class Secured:
    """A platform under TLS and ACL, each process as its own Redis user."""

    home: Path
    settings: dict[str, Settings]
    supervisor: Supervisor
    key: str
    ca: Path

    @property
    def offline(self) -> Settings:
        return self.settings["offline"]

    def http(self) -> httpx.Client:
        url = f"https://127.0.0.1:{self.settings['serving'].port}"
        return httpx.Client(base_url=url, verify=ssl.create_default_context(cafile=str(self.ca)), timeout=30)


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server of version 7 is installed: the embedded one knows no TLS")
    home = tmp_path_factory.mktemp("secured")
    authority = trustme.CA()
    ca, pair, chain = home / "ca.pem", home / "key.pem", home / "cert.pem"
    authority.cert_pem.write_to_path(str(ca))
    own = authority.issue_cert("127.0.0.1", "localhost")
    own.private_key_pem.write_to_path(str(pair))
    own.cert_chain_pems[0].write_to_path(str(chain))
    port = free_port()
    plain = Settings(
        features=FEATURES,
        home=str(home),
        redis_url=f"rediss://127.0.0.1:{port}/0",
        redis_ca=str(ca),
        redis_cert=str(chain),
        redis_key=str(pair),
        auth="on",
        port=free_port(),
        tls_cert=str(chain),
        tls_key=str(pair),
        alert_webhook=f"http://127.0.0.1:{free_port()}/{MARKER}-hook",
        smtp_password=f"{MARKER}-mail",
        tile_epoch="200ms",
        mirror_epoch="200ms",
        drain="0s",
        log_epoch="200ms",
    )
    settings = {
        user: msgspec.structs.replace(plain, redis_username=f"rtml-{user}", redis_password=password(user))
        for user in USERS
    }
    files = {"cert": chain, "key": pair, "ca-cert": ca}
    tls = [part for name, file in files.items() for part in (f"--tls-{name}-file", str(file))]
    listen = ["--bind", "127.0.0.1", "--port", "0", "--tls-port", str(port), *tls]
    options = [*listen, "--aclfile", str(_acl(home)), "--save", "", "--dir", str(home)]
    with Supervisor([Child("redis", (binary, *options))], home / "logs") as supervisor:
        eventually(lambda: redis_answers(settings["offline"]))
        key = create_key(settings["offline"], REGISTRY, "model", ["read:eta", "push:departures"]).splitlines()[0]
        run = with_own_key(plain)
        server, watch = (
            msgspec.structs.replace(settings[user], key=run.key, run_key=run.run_key) for user in ("serving", "watch")
        )
        settings |= {"serving": server, "watch": watch}
        flows = [_child(settings["stream"], "streaming", "departures", "--flow", flow) for flow in ("tiles", "mirror")]
        supervisor.add([*flows, _child(server, "serving"), _child(watch, "rtml_assets.cli", "watch")])
        eventually(lambda: server_is_up(settings["serving"]))
        yield Secured(home, settings, supervisor, key, ca)


def _acl(home: Path) -> Path:
    """The users of ops/, with passwords as an operator puts them in."""
    text = (ROOT / "ops/redis/users.acl").read_text()
    for number, user in enumerate(USERS, 1):
        text = text.replace(f"{number:064d}", sha256(password(user).encode()).hexdigest())
    file = home / "users.acl"
    file.write_text("\n".join(line for line in text.splitlines() if line.startswith("user ")) + "\n")
    return file


def _child(settings: Settings, *argv: str) -> Child:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RTML_")}
    env = {**inherited, **settings.environment(), "PYTHONPATH": str(ROOT)}
    return Child("-".join(argv), (sys.executable, "-m", *argv), env)


def _passed(client: redis.Redis, position: str, present: Instant) -> bool:
    return not behind(client, REGISTRY.source("departures"), position, present)


@pytest.fixture(scope="module")
def streamed(secured: Secured) -> Secured:
    """The same, after some events have passed it, and Dagster has built and published them."""
    with connect(secured.offline, timeout=30) as client:
        source = REGISTRY.source("departures")
        times = pl.Series([now() - 10_000_000 + number for number in range(20)]).cast(pl.Datetime("us", "UTC"))
        frame = pl.DataFrame({"event_id": [f"e{n}" for n in range(20)], "event_time": times}).with_columns(
            origin=pl.lit("JFK"), delay=pl.int_range(20).cast(pl.Float64)
        )
        Producer(client, source, key=["origin"]).send(frame)
        present = now()
        for position in (keys.position("departures"), keys.mirrored("departures")):
            eventually(partial(_passed, client, position, present))
    folder = secured.home / "dagster"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as instance:
        materialize_days(secured.offline, REGISTRY, instance=instance, durable=False)
    return secured


def test_features_reach_a_model_through_tls_users_and_keys(streamed: Secured) -> None:
    asked: dict[str, Any] = {"entities": [{"origin": "JFK"}]}
    with streamed.http() as http:
        assert http.post("/v1/features/eta", json=asked).status_code == 401
        bearer = {"authorization": f"Bearer {streamed.key}"}
        eventually(lambda: http.post("/v1/features/eta", json=asked, headers=bearer).json().get("rows") == [[20, 9.5]])
        answer = http.post("/v1/features/eta", json=asked, headers=bearer)
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert "; Secure" in http.post("/login", headers=bearer).headers["set-cookie"]
    with httpx.Client(timeout=30) as stranger, pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
        stranger.get(f"https://127.0.0.1:{streamed.settings['serving'].port}/healthz")


def test_events_are_pushed_by_the_servers_own_user(streamed: Secured) -> None:
    event = {"event_id": "pushed", "event_time": now(), "origin": "SFO", "delay": 3.5}
    with streamed.http() as http:
        assert http.post("/v1/events/departures", json=event).status_code == 401
        bearer = {"authorization": f"Bearer {streamed.key}"}
        told = http.post("/v1/events/departures", json=event, headers=bearer)
        assert (told.status_code, told.json()["accepted"]) == (200, 1)
        asked = {"entities": [{"origin": "SFO"}]}
        eventually(lambda: http.post("/v1/features/eta", json=asked, headers=bearer).json().get("rows") == [[1, 3.5]])


def test_published_history_was_written_by_the_offline_user(streamed: Secured) -> None:
    assert pl.scan_delta(Lake(streamed.offline.lake_root).tiles("delays")).collect().height > 0
    with connect(streamed.offline) as client:
        assert client.hgetall(keys.live("delays"))


def test_the_watch_sees_all_of_it_as_its_own_user(streamed: Secured) -> None:
    def last() -> Report | None:
        return read_file(streamed.home)

    def came_through() -> bool:
        seen = last()
        if seen is None or not seen.platform.redis.up or not seen.services["eta"].probe_ok:
            return False
        source = seen.sources["departures"]
        beats = [part.heartbeat_ms for flow in source.flows.values() for part in flow.partitions]
        return len(beats) == 2 and None not in beats and source.server_heartbeat_ms is not None

    eventually(came_through)
    with connect(streamed.settings["watch"]) as client:
        eventually(lambda: client.llen(keys.WATCH_HISTORY) > 1)
        assert client.hgetall(keys.contract("departures"))
    examined = subprocess.run(
        [sys.executable, "-m", "rtml_assets.cli", "doctor", "--json"],
        env=_child(streamed.settings["watch"]).env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
    )
    told = msgspec.json.decode(examined.stdout)
    assert told["unseen"] in ([], {}), told
    assert "NOPERM" not in examined.stdout + examined.stderr
    assert "NOPERM" not in (streamed.home / "logs" / "rtml_assets.cli-watch.log").read_text()


@pytest.mark.parametrize(
    ("user", "command"),
    [
        ("watch", ("HSET", keys.KEYS, "x", "y")),
        ("watch", ("SET", keys.SERVICES, "x")),
        ("watch", ("DEL", "departures")),
        ("watch", ("XTRIM", "departures", "MAXLEN", 0)),
        ("watch", ("EVAL", "return redis.call('SET', KEYS[1], 1)", 1, "rtml:generation")),
        ("watch", ("FLUSHALL",)),
        ("stream", ("HSET", keys.KEYS, "x", "y")),
        ("stream", ("FLUSHALL",)),
        ("stream", ("CONFIG", "GET", "*")),
        ("stream", ("SET", "elsewhere", "1")),
        ("serving", ("HSET", keys.SERVICES, "x", "y")),
        ("serving", ("DEL", keys.KEYS)),
        ("serving", ("EVAL", "return redis.call('SET', KEYS[1], 1)", 1, "rtml:x")),
        ("serving", ("XADD", "rtml:x", "*", "data", "1")),
        ("serving", ("XADD", keys.KEYS, "*", "data", "1")),
        ("serving", ("XRANGE", "departures", "-", "+")),
        ("serving", ("XTRIM", "departures", "MAXLEN", 0)),
        ("serving", ("DEL", "departures")),
        ("serving", ("KEYS", "*")),
        ("offline", ("ACL", "LIST")),
        ("offline", ("FLUSHDB",)),
        ("offline", ("SET", "elsewhere", "1")),
    ],
)
def test_each_user_may_do_no_more_than_it_needs(secured: Secured, user: str, command: tuple[Any, ...]) -> None:
    with connect(secured.settings[user]) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.execute_command(*command)


def test_nobody_comes_in_without_user_password_certificate_or_tls(secured: Secured) -> None:
    replaced = msgspec.structs.replace
    for wrong in (
        replaced(secured.offline, redis_username="", redis_password=""),
        replaced(secured.offline, redis_password=f"{MARKER}-wrong"),
        replaced(secured.offline, redis_cert="", redis_key=""),
        replaced(secured.offline, redis_ca=""),
        Settings(redis_url=secured.offline.redis_url.replace("rediss", "redis")),
    ):
        assert not redis_answers(wrong)


def test_no_argument_of_a_process_is_a_secret(secured: Secured) -> None:
    for status in secured.supervisor.status().values():
        assert status.pid is not None
        assert leaks(Path(f"/proc/{status.pid}/cmdline").read_bytes()) == []


def test_a_wrong_password_is_an_error_without_it(secured: Secured) -> None:
    wrong = msgspec.structs.replace(secured.offline, redis_password=f"{MARKER}-wrong", key=f"{MARKER}-key")
    env = {**os.environ, **wrong.environment(), "PYTHONPATH": str(ROOT)}
    said = ""
    for argv in (("rtml_assets.cli", "deploy"), ("streaming", "departures", "--flow", "tiles")):
        run = subprocess.run(
            [sys.executable, "-m", *argv], env=env, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
        )
        said += run.stdout + run.stderr
    assert re.search("invalid username-password pair|WRONGPASS", said)
    assert leaks(said) == []


def test_promotions_and_the_way_back_are_audited(streamed: Secured) -> None:
    console = Console(quiet=True)
    run_promote(console, streamed.offline, REGISTRY, "eta")
    with pytest.raises(RequestError, match="never promoted"):
        run_rollback(console, streamed.offline, "eta")
    asset = promotion_asset(Deployment(streamed.offline, REGISTRY), REGISTRY.services["eta"])
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.materialize([asset], instance=instance).run_id
    rows = audit.read(Lake(streamed.offline.lake_root)).filter(pl.col("action").is_in(["promote", "rollback"]))
    found = [(row["action"], row["target"], row["outcome"], row["actor"]) for row in rows.iter_rows(named=True)]
    assert found == [
        ("promote", "eta", "done", audit.actor()),
        ("rollback", "eta", "refused", audit.actor()),
        ("promote", "eta", "done", f"{audit.actor()} (Dagster run {run})"),
    ]
    assert rows["detail"][0].startswith("v1 of delays ")


def test_what_bytewax_keeps_between_processes_is_text_alone(streamed: Secured) -> None:
    """It reads its snapshots as pickles; one of text alone names nothing to be called."""
    folders = sorted((streamed.home / "recovery").iterdir())
    assert [folder.name for folder in folders] == ["departures-mirror", "departures-tiles"]
    for folder in folders:
        assert folder.stat().st_mode & 0o077 == 0
        (file,) = folder.glob("*.sqlite3")
        with closing(sqlite3.connect(file)) as database:
            stored = [text for (text,) in database.execute("SELECT ser_change FROM snaps WHERE ser_change IS NOT NULL")]
        assert stored
        used = {code.name for text in stored for code, _, _ in pickletools.genops(text)}
        assert used <= {"PROTO", "FRAME", "SHORT_BINUNICODE", "BINUNICODE", "MEMOIZE", "NONE", "STOP"}


def _stored(client: Any) -> Iterator[bytes]:
    """All that Redis holds, in the words that were written."""
    readers: dict[bytes, Any] = {
        b"string": lambda key: [client.get(key)],
        b"hash": lambda key: [part for pair in client.hgetall(key).items() for part in pair],
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"stream": lambda key: [part for _, fields in client.xrange(key) for pair in fields.items() for part in pair],
    }
    for key in client.scan_iter():
        yield key
        yield from readers[client.type(key)](key)


def test_nothing_that_redis_or_the_audit_holds_is_a_secret(streamed: Secured) -> None:
    with connect(streamed.offline) as client:
        held = list(_stored(client))
    assert any(b'"alerts"' in part for part in held)  # the watch's look is among it
    assert [leaks(part) for part in held if leaks(part)] == []
    assert leaks(str(audit.read(Lake(streamed.offline.lake_root)).to_dicts())) == []


def test_no_log_has_a_secret_and_a_planted_one_is_found(streamed: Secured) -> None:
    streamed.supervisor.stop()
    logs = sorted(file.name for file in streamed.home.rglob("*") if file.suffix in (".log", ".db"))
    assert {"serving.log", "redis.log", "runs.db"} <= set(logs), logs
    assert {"report.json", "ledger.sqlite"} <= {file.name for file in (streamed.home / "watch").iterdir()}
    assert list(leaks_below(streamed.home)) == []
    assert audit.read(Lake(streamed.offline.lake_root), action="request.denied").height >= 1

    planted = streamed.home / "logs" / "planted.log"
    planted.write_text(f"connecting with {password('stream')}\nor {streamed.key}\n")
    assert len(list(leaks_below(streamed.home))) == 2
    planted.unlink()
