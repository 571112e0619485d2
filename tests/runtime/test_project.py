"""A running project: who is told what, and that nothing is left of it."""

import http.server
import json
import sys
import threading

import msgspec
import pytest

from rtml.access import create_key, find, of_run
from rtml.errors import SettingsError, UnavailableError
from rtml.lake import Lake
from rtml.online import keys
from rtml.settings import Settings, load_settings
from rtml_assets.runtime import dagster_home, project
from rtml_assets.runtime.ports import free_port, is_free, is_listening
from rtml_assets.runtime.probes import dagster_is_up, redis_answers, server_is_up
from rtml_assets.runtime.project import Project, forget_last_run
from rtml_assets.runtime.up import until_told
from streaming.access import projected_keys
from streaming.broker import connect
from streaming.key_store import save_keys
from tests.runtime.processes import gone, until

SLEEP = (sys.executable, "-S", "-c", "import time; time.sleep(600)")
SERVE = (
    sys.executable,
    "-c",
    "import http.server as h, os\n"
    "class A(h.BaseHTTPRequestHandler):\n"
    "    def do_GET(self):\n"
    "        self.send_response(200 if self.path == '/healthz' else 404)\n"
    "        self.end_headers()\n"
    "h.HTTPServer(('127.0.0.1', int(os.environ['RTML_PORT'])), A).serve_forever()",
)


@pytest.fixture
def settings(tmp_path):
    return Settings(home=str(tmp_path), port=free_port(), dagster_port=free_port(), accept_stamps=True)


@pytest.fixture
def stand_ins(monkeypatch):
    """In place of the real flows and server: what starts at once."""
    monkeypatch.setattr(project, "python", lambda module, *_: SERVE if module == "serving" else SLEEP)


def test_its_one_server_does_not_drain(settings):
    (server,) = Project(settings, [], embedded=True, dagster=False)._servers()
    assert (settings.drain, server.env["RTML_DRAIN"]) == ("5s", "0s")


def test_a_project_runs_and_leaves_nothing(settings, stand_ins, tmp_path):
    heard: list[str] = []
    with Project(settings, ["a", "b"], embedded=True, dagster=False) as running:
        running.start_redis()
        running.start()
        running.wait_ready(timeout=20, on_ready=heard.append)
        names = {"redis", "serve", "watch", "stream:a:tiles", "stream:a:mirror", "stream:b:tiles", "stream:b:mirror"}
        assert set(running.status()) == names
        assert heard == running.servers == ["serve"]
        pids = [status.pid for status in running.status().values()]
        assert not any(gone(pid) for pid in pids)
    assert all(gone(pid) for pid in pids)
    assert not (tmp_path / "run.json").exists()


def test_after_a_deployment_the_watch_loads_the_definitions_anew(settings, stand_ins):
    with Project(settings, ["a"], embedded=True, server=False, dagster=False) as running:
        running.start_redis()
        running.start()
        before = {name: status.pid for name, status in running.status().items()}
        with connect(running.settings.redis_url) as client:
            client.incr(keys.DEPLOYED)
        until(lambda: running.status()["watch"].pid not in (None, before["watch"]))
        kept = {name: status.pid for name, status in running.status().items() if name != "watch"}
        assert kept == {name: pid for name, pid in before.items() if name != "watch"}


def test_without_a_watch_none_is_run(settings, stand_ins):
    with Project(settings, [], embedded=True, server=False, dagster=False, watch=False) as running:
        running.start_redis()
        running.start()
        assert set(running.status()) == {"redis"}


def test_other_commands_find_its_redis(settings, tmp_path):
    with Project(settings, [], embedded=True, server=False, dagster=False) as running:
        running.start_redis()
        found = load_settings({"RTML_HOME": str(tmp_path)}, tmp_path)
        assert found.redis_url == running.settings.redis_url
        assert found.accept_stamps
        assert found.lake_root == running.settings.lake_root
        assert (tmp_path / "run.json").stat().st_mode & 0o777 == 0o600
        assert redis_answers(found.redis_url)
        with pytest.raises(SettingsError, match=r"runs in .* already"):
            Project(settings, [], embedded=True, server=False, dagster=False).start_redis()
        with pytest.raises(SettingsError, match=r"runs in .* already"):
            forget_last_run(tmp_path)
    assert not redis_answers(found.redis_url)


def test_a_redis_that_lost_the_keys_is_told_them(settings, stand_ins, tmp_path):
    _, key = create_key("model", ["admin"], 0)
    save_keys(Lake(settings.lake_root), [key])
    guarded = msgspec.structs.replace(settings, auth="on", redis_password="of another Redis")
    with Project(guarded, [], embedded=True, dagster=False) as running:
        running.start_redis()
        with connect(running.settings) as client:
            assert projected_keys(client) is None
            running.start()
            assert projected_keys(client) == {key.id: key}


@pytest.mark.parametrize("embedded", [True, False])
def test_where_keys_are_asked_for_a_run_has_one_of_its_own(settings, tmp_path, embedded):
    guarded = msgspec.structs.replace(settings, auth="on")
    with Project(guarded, [], embedded=embedded, dagster=False) as running:
        running.start_redis()
        own = running.settings
        found = find(of_run(own.run_key), own.key, 0)
        assert found is not None
        assert found.scopes == ("read:*",)
        file = tmp_path / "run.json"
        assert file.stat().st_mode & 0o777 == 0o600
        assert load_settings({"RTML_HOME": str(tmp_path)}, tmp_path).key == own.key
        assert own.key not in repr(own)
    assert not file.exists()
    given = msgspec.structs.replace(guarded, key="rtml_of_the_user")
    for unguarded in (settings, given):
        with Project(unguarded, [], embedded=False, dagster=False) as running:
            running.start_redis()
            assert (running.settings, file.exists()) == (unguarded, False)


def test_a_redis_of_ones_own_is_used_as_it_is(settings, tmp_path):
    with Project(settings, [], embedded=False, server=False, dagster=False) as running:
        running.start_redis()
        assert running.settings == settings
        assert "redis" not in running.status()
    assert not (tmp_path / "run.json").exists()


def test_what_a_killed_project_left_is_forgotten(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"redis_url": f"redis://127.0.0.1:{free_port()}/0"}))
    forget_last_run(tmp_path)
    assert not (tmp_path / "run.json").exists()


def test_a_taken_port_is_refused_by_name(settings):
    with http.server.HTTPServer(("127.0.0.1", settings.dagster_port), http.server.BaseHTTPRequestHandler):
        assert not is_free("127.0.0.1", settings.dagster_port)
        with pytest.raises(SettingsError, match=f"port {settings.dagster_port} .*RTML_DAGSTER_PORT"):
            Project(settings, [], embedded=True).start_redis()


def test_what_is_not_ready_in_time_is_named_with_its_words(settings, monkeypatch):
    talker = (sys.executable, "-c", "print('cannot serve', flush=True); import time; time.sleep(600)")
    monkeypatch.setattr(project, "python", lambda *_: talker)
    with Project(settings, [], embedded=False, dagster=False) as running:
        running.start_redis()
        running.start()
        with pytest.raises(UnavailableError, match=r"(?s)'serve' was not ready in 1.5 s .*cannot serve"):
            running.wait_ready(timeout=1.5)


def test_dagster_gets_a_home_without_questions(tmp_path):
    folder = dagster_home.prepare(tmp_path)
    assert folder.is_absolute()
    assert "telemetry: {enabled: false}" in (folder / "dagster.yaml").read_text()
    assert not dagster_home.is_created(folder)
    children = dagster_home.dagster_children(folder, {}, "127.0.0.1", 3000, free_port())
    assert [child.name for child in children] == ["dagster-code", "dagster-ui", "dagster-daemon"]
    assert [child.after() for child in children] == [True, False, False]
    assert "location_name: rtml" in (folder / "workspace.yaml").read_text()


def test_dagsters_own_settings_are_kept(tmp_path):
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: true}\n")
    assert (dagster_home.prepare(tmp_path) / "dagster.yaml").read_text() == "telemetry: {enabled: true}\n"


def entry(status, kind):
    return {"loadStatus": status, "locationOrLoadError": {"__typename": kind}}


@pytest.mark.parametrize(
    ("entries", "up"),
    [
        ([entry("LOADED", "RepositoryLocation")], True),
        ([entry("LOADED", "PythonError")], False),
        ([{"loadStatus": "LOADING", "locationOrLoadError": None}], False),
        ([], False),
    ],
)
def test_dagster_is_up_when_it_has_the_definitions(entries, up):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"data": {"workspaceOrError": {"locationEntries": entries}}}).encode())

        def log_message(self, *_):
            return

    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert dagster_is_up("127.0.0.1", server.server_port) is up
        thread.join()


def test_nothing_is_up_where_nothing_listens():
    port = free_port()
    assert not is_listening("127.0.0.1", port)
    assert not server_is_up(Settings(port=port))
    assert not dagster_is_up("127.0.0.1", port)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_told_to_stop_the_block_is_left_and_cleaning_up_is_not_disturbed(name):
    import os
    import signal

    cleaned = []
    before = signal.getsignal(signal.SIGTERM)
    with until_told():
        try:
            os.kill(os.getpid(), getattr(signal, name))
            signal.pause()
        finally:
            os.kill(os.getpid(), getattr(signal, name))
            cleaned.append(True)
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) is before
