"""The supervisor: what dies is restarted, what is stopped is gone, and nothing outlives us."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from rtml.errors import UnavailableError, UnknownNameError
from rtml_assets.runtime import children
from rtml_assets.runtime.supervisor import HEALTHY_AFTER, LONGEST_DELAY, Child, Supervisor
from tests.runtime.processes import gone, until

SLEEP = (sys.executable, "-S", "-c", "import time; time.sleep(600)")
STUBBORN = (
    sys.executable,
    "-S",
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)",
)


class Clock:
    """Seconds that move when a test says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class FakeProcess:
    """A process that dies when told to."""

    def __init__(self, pid):
        self.pid, self.returncode = pid, None

    def poll(self):
        return self.returncode


class Fakes:
    """Starts fake processes, and remembers when."""

    def __init__(self, clock):
        self.clock, self.started, self.processes = clock, [], []

    def __call__(self, argv, *, env, log, on_our_death):
        self.started.append(self.clock())
        # A pid that no process has: nothing real is ever signalled.
        self.processes.append(FakeProcess(2**22 + len(self.processes) + 1))
        return self.processes[-1]


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def fakes(clock):
    return Fakes(clock)


def advance(supervisor, clock, seconds, step=0.1):
    for _ in range(round(seconds / step)):
        clock.now += step
        supervisor.tick()


def test_restarts_wait_twice_as_long_each_time_up_to_a_bound(tmp_path, clock, fakes):
    supervisor = Supervisor([Child("one", ("x",))], tmp_path, clock=clock, spawn=fakes)
    supervisor.tick()
    for _ in range(9):
        fakes.processes[-1].returncode = 1
        count = len(fakes.started)
        while len(fakes.started) == count:
            advance(supervisor, clock, 0.1)
    waits = [after - before for before, after in zip(fakes.started, fakes.started[1:], strict=False)]
    assert waits == pytest.approx([0.3, 0.5, 0.9, 1.7, 3.3, 6.5, 10.1, 10.1, 10.1], abs=0.11)
    assert max(waits) < LONGEST_DELAY + 0.3
    assert supervisor.status()["one"].restarts == 9
    assert supervisor.status()["one"].exit_code == 1


def test_a_long_life_is_forgiven(tmp_path, clock, fakes):
    supervisor = Supervisor([Child("one", ("x",))], tmp_path, clock=clock, spawn=fakes)
    supervisor.tick()
    for _ in range(4):
        fakes.processes[-1].returncode = 1
        advance(supervisor, clock, 4)
    advance(supervisor, clock, HEALTHY_AFTER)
    fakes.processes[-1].returncode = 1
    died = clock.now
    advance(supervisor, clock, 1)
    assert fakes.started[-1] - died == pytest.approx(0.3, abs=0.11)


def test_a_child_that_ends_well_is_restarted_too(tmp_path, clock, fakes):
    supervisor = Supervisor([Child("one", ("x",))], tmp_path, clock=clock, spawn=fakes)
    supervisor.tick()
    fakes.processes[-1].returncode = 0
    advance(supervisor, clock, 0.5)
    assert len(fakes.started) == 2


def test_only_deaths_that_nobody_asked_for_are_crashes(tmp_path, clock, fakes):
    heard = []
    supervisor = Supervisor([Child("x", ("x",))], tmp_path, clock=clock, spawn=fakes, on_change=lambda: heard.append(1))
    supervisor.tick()
    for code, crashes in ((0, 0), (75, 0), (-9, 1), (1, 2)):
        fakes.processes[-1].returncode = code
        supervisor.tick()
        assert supervisor.status()["x"].crashes == crashes
        clock.now += LONGEST_DELAY
        supervisor.tick()
        assert supervisor.status()["x"].pid is not None
    assert len(heard) == 9  # one start, four deaths and four more starts
    supervisor.tick()
    assert len(heard) == 9


def test_a_restart_on_request_is_no_crash(tmp_path):
    with Supervisor([Child("x", SLEEP)], tmp_path) as supervisor:
        first = supervisor.status()["x"].pid
        supervisor.restart("x")
        until(lambda: supervisor.status()["x"].pid not in (None, first))
        assert supervisor.status()["x"].crashes == 0
        supervisor.crash("x")
        until(lambda: supervisor.status()["x"].crashes == 1)


def test_a_child_can_be_added_and_wait_for_another(tmp_path, clock, fakes):
    ready: list[bool] = []
    supervisor = Supervisor([Child("one", ("x",))], tmp_path, clock=clock, spawn=fakes)
    supervisor.tick()
    supervisor.add([Child("two", ("x",), after=lambda: bool(ready))])
    assert supervisor.status()["two"].pid is None
    ready.append(True)
    advance(supervisor, clock, 0.1)
    assert supervisor.status()["two"].pid is not None
    assert supervisor.status()["two"].restarts == 0


def test_a_dead_child_is_restarted_and_its_output_kept(tmp_path):
    argv = (sys.executable, "-S", "-c", "print('said'); raise SystemExit(7)")
    with Supervisor([Child("stream:a:tiles", argv)], tmp_path) as supervisor:
        until(lambda: supervisor.status()["stream:a:tiles"].restarts >= 2)
        assert supervisor.status()["stream:a:tiles"].exit_code == 7
        assert supervisor.log("stream:a:tiles", 1) == "said"
    assert (tmp_path / "stream-a-tiles.log").read_text().count("said") >= 2


def test_what_cannot_be_told_stops_nobody_and_is_told_later(tmp_path):
    """As where the disk is full: the file of the processes cannot be written for a while."""
    told, full = [], [False]

    def tell():
        if full[0]:
            raise OSError(28, "No space left on device")
        told.append(supervisor.status()["one"].restarts)

    supervisor = Supervisor([Child("one", SLEEP)], tmp_path, on_change=tell)
    with supervisor:
        full[0] = True
        supervisor.crash("one")
        until(lambda: supervisor.status()["one"].restarts == 1)
        full[0] = False
        until(lambda: told[-1] == 1)


def test_two_are_never_told_at_once(tmp_path):
    """Whoever adds a child tells of it while the supervisor's own thread tells of another."""
    telling, at_once = [0], []

    def tell():
        telling[0] += 1
        at_once.append(telling[0])
        time.sleep(0.3)
        telling[0] -= 1

    with Supervisor([Child("one", SLEEP)], tmp_path, on_change=tell) as supervisor:
        supervisor.crash("one")
        until(lambda: telling[0])
        supervisor.add([Child("two", SLEEP)])
    assert set(at_once) == {1}


def test_a_crash_is_a_kill_and_a_restart(tmp_path):
    with Supervisor([Child("one", SLEEP), Child("two", SLEEP)], tmp_path) as supervisor:
        before = {name: status.pid for name, status in supervisor.status().items()}
        supervisor.crash("one")
        assert gone(before["one"])
        until(lambda: supervisor.status()["one"].pid not in (None, before["one"]))
        assert supervisor.status()["one"].exit_code == -signal.SIGKILL
        assert supervisor.status()["two"].pid == before["two"]


def test_a_crash_of_nothing_is_an_error(tmp_path, clock, fakes):
    supervisor = Supervisor([Child("one", ("x",))], tmp_path, clock=clock, spawn=fakes)
    with pytest.raises(UnavailableError, match="'one' is not running"):
        supervisor.crash("one")
    with pytest.raises(UnknownNameError, match="Did you mean 'one'"):
        supervisor.crash("onne")


def test_stop_leaves_no_process(tmp_path):
    supervisor = Supervisor([Child("soft", SLEEP), Child("hard", STUBBORN)], tmp_path)
    supervisor.start()
    until(lambda: "ready" in supervisor.log("hard"))
    pids = [status.pid for status in supervisor.status().values()]
    supervisor.stop(timeout=3)
    assert all(gone(pid) for pid in pids)
    assert {name: status.exit_code for name, status in supervisor.status().items()} == {
        "soft": -signal.SIGTERM,
        "hard": -signal.SIGKILL,
    }


def test_a_child_can_be_stopped_though_we_ignore_and_block_signals(tmp_path):
    code = f"""
import signal, sys
from pathlib import Path
from rtml_assets.runtime.supervisor import Child, Supervisor
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
supervisor = Supervisor([Child("soft", {SLEEP!r})], Path({str(tmp_path)!r}))
supervisor.start()
supervisor.stop(timeout=10)
print(supervisor.status()["soft"].exit_code)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(-signal.SIGTERM)


def test_a_dead_childs_own_children_go_with_it(tmp_path):
    code = f"import os, subprocess; print(subprocess.Popen({list(SLEEP)!r}).pid, flush=True); os.kill(os.getpid(), 9)"
    child = children.spawn((sys.executable, "-c", code), env=os.environ, log=tmp_path / "log")
    until(lambda: children.bury(child) is not None)
    until(lambda: gone(int((tmp_path / "log").read_text())))


def test_no_child_outlives_a_killed_parent(tmp_path):
    code = textwrap.dedent(f"""
        import sys, threading, time
        from pathlib import Path
        from rtml_assets.runtime.supervisor import Child, Supervisor
        supervisor = Supervisor([Child("a", {SLEEP!r}), Child("b", {STUBBORN!r})], Path({str(tmp_path)!r}))
        starting = threading.Thread(target=supervisor.start)
        starting.start()
        starting.join()   # a thread that ends is not the parent's end
        time.sleep(0.3)
        print(*[status.pid for status in supervisor.status().values()], flush=True)
        time.sleep(600)
    """)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    said = parent.stdout
    assert said is not None
    try:
        pids = [int(pid) for pid in said.readline().split()]
        assert len(pids) == 2
        assert not any(gone(pid) for pid in pids)
    finally:
        parent.kill()
        parent.wait()
        said.close()
    until(lambda: all(gone(pid) for pid in pids))


def test_what_cannot_be_started_is_told_in_its_log(tmp_path):
    with Supervisor([Child("one", ("/no/such/program",))], tmp_path) as supervisor:
        until(lambda: supervisor.status()["one"].restarts >= 1)
        assert "No such file" in supervisor.log("one")
