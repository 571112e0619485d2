"""`rtml up`, as a user runs it: real processes, from start to SIGTERM."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import redis

from rtml.settings import load_settings
from rtml_assets.runtime.ports import free_port
from rtml_assets.runtime.probes import ask_server
from rtml_assets.watch.shown import read_file
from tests.cli.test_cli import FEATURES, ROOT, refused, said
from tests.runtime.processes import gone, until


def test_up_runs_a_project_until_it_is_told_to_stop(tmp_path, monkeypatch):
    (tmp_path / "features.py").write_text(FEATURES)
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("RTML_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("RTML_FEATURES", "features.py")
    monkeypatch.setenv("RTML_PORT", str(free_port()))
    monkeypatch.setenv("RTML_AUTH", "on")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    output = tmp_path / "output"
    with output.open("w") as file:
        argv = [sys.executable, "-m", "rtml_assets.cli", "up", "--no-dagster"]
        up = subprocess.Popen(argv, env=env, stdout=file, stderr=file)
    try:
        until(lambda: "Ctrl-C stops all" in output.read_text(), timeout=60)
        with redis.Redis.from_url(load_settings().redis_url) as client:
            until(lambda: client.keys("rtml:live:*"), timeout=60)
        pids = children_of(up.pid)
        assert len(pids) == 5

        # The server asks for keys. No one made any: the run has its own, which this user's other commands find.
        told = load_settings()
        assert ask_server(told, "GET", "/v1/services") is not None
        assert ask_server(msgspec.structs.replace(told, key=""), "GET", "/v1/services") is None
        until(lambda: seen(tmp_path) and seen(tmp_path).services["fraud"].probe_ok, timeout=60)
        assert not any(told.key in text for text in [output.read_text(), *commands(pids)])

        assert "spent__count_5m 1 stale" in said("get", "fraud", "card=7")
        assert "key 'card' must be an integer; got 'x'" in refused("get", "fraud", "card=x")
        assert "must look like origin=JFK; got 'card'" in refused("get", "fraud", "card")
        assert "(live, ready)" in said("describe")
        assert "stop it, or set RTML_HOME" in refused("up")
    finally:
        up.send_signal(signal.SIGTERM)
        code = up.wait(30)
    assert code == 0, output.read_text()
    assert all(gone(pid) for pid in pids)
    assert not (tmp_path / ".rtml" / "run.json").exists()


def seen(folder):
    return read_file(folder / ".rtml")


def commands(pids):
    return [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids]


def children_of(pid):
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]
