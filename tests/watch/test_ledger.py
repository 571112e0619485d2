"""The ledger: alerts fire once, are reminded of, resolve once, whoever looks."""

import multiprocessing as mp
import random
import sqlite3
from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtml.instants import DAY, HOUR, SECOND
from rtml_assets.watch.conditions import Condition
from rtml_assets.watch.ledger import KEPT, LOOKS, REMIND, Ledger, Notice, ledger_file

KINDS = {"stream_lag", "freshness"}


def lag(source="a", severity="critical", value=12.4):
    return Condition("stream_lag", f"source:{source}", severity, f"source '{source}': lag {value} s", value, 5.0)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(ledger_file(tmp_path), ["log", "webhook"]) as ledger:
        yield ledger


def looks(ledger, *conditions, start=0, count=1, **options):
    """Settle some looks, 2 s apart; return the names of what changed at each."""
    told = []
    for number in range(count):
        settled = ledger.settle(conditions, start + number * 2 * SECOND, KINDS, **options)
        told.append([[alert.target for alert in some] for some in (settled.fired, settled.reminded, settled.resolved)])
    return told


def outbox(ledger):
    return [
        (channel, msgspec.json.decode(notice, type=Notice).kind)
        for channel, notice in ledger.rows("SELECT channel, notice FROM outbox ORDER BY id")
    ]


def test_an_alert_fires_once_and_resolves_once(ledger):
    nothing: list[list[str]] = [[], [], []]
    fired, resolved = [["source:a"], [], []], [[], [], ["source:a"]]
    assert looks(ledger, lag(), count=5) == [nothing, fired, nothing, nothing, nothing]
    (alert,) = ledger.open()
    assert (alert.since, alert.fired_at, alert.last_seen) == (0, 2 * SECOND, 8 * SECOND)
    assert (alert.words, alert.value, alert.bound) == ("source 'a': lag 12.4 s", 12.4, 5.0)
    assert looks(ledger, start=10 * SECOND, count=4) == [nothing, resolved, nothing, nothing]
    assert ledger.open() == []
    assert [alert.resolved_at for alert in ledger.recent(0)] == [12 * SECOND]
    assert outbox(ledger) == [("log", "fired"), ("webhook", "fired"), ("log", "resolved"), ("webhook", "resolved")]


def test_what_comes_and_goes_is_not_told_and_what_flaps_stays_open(ledger):
    for number in range(11):
        assert looks(ledger, *[lag()][: number % 2], start=number * SECOND) == [[[], [], []]]
    assert ledger.rows("SELECT * FROM alerts") == []
    looks(ledger, lag(), start=20 * SECOND, count=2)
    for number in range(10):
        assert looks(ledger, *[lag()][: number % 2], start=(30 + number) * SECOND) == [[[], [], []]]
    assert len(ledger.open()) == 1


def test_facts_fire_and_resolve_at_once(ledger):
    assert looks(ledger, lag(), looks=1) == [[["source:a"], [], []]]
    assert looks(ledger, start=1, looks=1) == [[[], [], ["source:a"]]]


def test_who_looks_for_one_alert_settles_no_other(ledger):
    looks(ledger, lag(), count=2)
    settled = ledger.settle([lag("b")], HOUR, {"check_failed"}, looks=1)
    assert (settled.fired, settled.resolved) == ([], [])
    assert [alert.target for alert in ledger.open()] == ["source:a"]


def test_what_follows_from_something_else_neither_fires_nor_resolves(ledger):
    follows = {("stream_lag", "source:a")}
    nothing: list[list[str]] = [[], [], []]
    looks(ledger, lag())
    assert looks(ledger, lag(), count=3, untold=follows) == [nothing] * 3
    assert looks(ledger, lag()) == [nothing], "its looks begin anew"
    assert looks(ledger, lag()) == [[["source:a"], [], []]]
    assert looks(ledger, count=3, untold=follows) == [nothing] * 3
    assert looks(ledger, lag(), count=3, untold=follows) == [nothing] * 3
    assert len(ledger.open()) == 1
    assert looks(ledger, count=2)[1] == [[], [], ["source:a"]]


def test_an_open_alert_is_told_again_after_a_while_and_when_it_gets_worse(ledger):
    looks(ledger, lag(severity="warning"), count=2)
    fired = 2 * SECOND
    assert looks(ledger, lag(severity="warning"), start=fired + REMIND - 1) == [[[], [], []]]
    assert looks(ledger, lag(severity="warning"), start=fired + REMIND) == [[[], ["source:a"], []]]
    assert looks(ledger, lag(severity="critical"), start=fired + REMIND + SECOND) == [[[], ["source:a"], []]]
    assert looks(ledger, lag(severity="warning"), start=fired + REMIND + 2 * SECOND) == [[[], [], []]]


def test_the_worst_and_newest_are_first(ledger):
    looks(ledger, lag("a", "warning"), looks=1)
    looks(ledger, lag("a", "warning"), lag("b"), start=1, looks=1)
    looks(ledger, lag("a", "warning"), lag("b"), lag("c"), start=2, looks=1)
    assert [alert.target for alert in ledger.open()] == ["source:c", "source:b", "source:a"]


def test_what_is_over_for_long_is_forgotten(ledger):
    looks(ledger, lag(), looks=1)
    looks(ledger, start=1, looks=1)
    looks(ledger, lag("b"), start=DAY, looks=1)
    ledger.prune(KEPT)
    assert len(ledger.recent(0)) == 1
    ledger.prune(KEPT + DAY)
    assert ledger.recent(0) == []
    assert [alert.target for alert in ledger.open()] == ["source:b"]
    assert len(outbox(ledger)) == 6, "what was not told yet is kept"


def test_a_failed_settling_changes_nothing(ledger):
    with pytest.raises(sqlite3.IntegrityError):
        ledger.settle([lag(), Condition("freshness", "view:b", "critical", None)], 0, KINDS)  # type: ignore[arg-type]
    assert ledger.rows("SELECT * FROM alerts") == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=30), st.integers(1, 3))
def test_settling_agrees_with_a_recount(tmp_path_factory, present, needed):
    """By brute force: two targets, seen or not at each look; two looks, or so many as are asked for, must agree."""
    told: list[tuple[int, str, str]] = []
    state: dict[str, tuple[bool, int]] = {}
    for number, seen in enumerate(present):
        for target, here in zip("ab", seen, strict=True):
            open_, run = state.get(target, (False, 0))
            run = run + 1 if here != open_ else 0
            if run >= needed:
                open_, run = here, 0
                told.append((number, target, "fired" if here else "resolved"))
            state[target] = (open_, run)
    with Ledger(tmp_path_factory.mktemp("ledger") / "x.sqlite") as ledger:
        got = []
        for number, seen in enumerate(present):
            conditions = [lag(target) for target, here in zip("ab", seen, strict=True) if here]
            settled = ledger.settle(conditions, number * SECOND, KINDS, needed)
            for notice in settled.notices(number):
                got.append((number, notice.alert.target[-1], notice.kind))
    assert sorted(got) == sorted(told)


def settle_much(file, seed, gate):
    """Look often, at what the other process looks at, too."""
    rng = random.Random(seed)
    gate.wait()
    with Ledger(file, ["log"]) as ledger:
        for number in range(150):
            wrong = [lag(f"s{index}") for index in range(4) if rng.random() < 0.8]
            ledger.settle(wrong, number * SECOND, {"stream_lag"})
            ledger.settle([Condition("run_failed", f"job:{seed}", "warning", "x")], number, {f"other{seed}"})


def test_two_processes_never_tell_twice(tmp_path):
    """What is told of one target alternates: fired, resolved, fired, …; twice in a row would be crying twice."""
    file = ledger_file(tmp_path)
    context = mp.get_context("spawn")
    gate = context.Barrier(2)
    processes = [context.Process(target=settle_much, args=(file, seed, gate)) for seed in (1, 2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    with Ledger(file, ["log"]) as ledger:
        notices = [
            msgspec.json.decode(row[0], type=Notice) for row in ledger.rows("SELECT notice FROM outbox ORDER BY id")
        ]
        opened = ledger.rows("SELECT alert, target, COUNT(*) FROM alerts WHERE resolved_at IS NULL GROUP BY 1, 2")
    by_target = {
        f"source:s{index}": [n.kind for n in notices if n.alert.target == f"source:s{index}"] for index in range(4)
    }
    for kinds in by_target.values():
        assert len(kinds) > 2
        assert kinds == ["fired", "resolved"] * (len(kinds) // 2) + ["fired"] * (len(kinds) % 2)
    assert Counter(count for *_, count in opened).keys() <= {1}
    assert LOOKS == 2
