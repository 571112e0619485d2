"""Error budgets: windows against a brute-force recount, and what a bad hour comes to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtml.instants import DAY, HOUR, MINUTE, SECOND
from rtml_assets.watch.budgets import Budgets, burning, count, counted, with_budgets
from rtml_assets.watch.burn import RULES, Minutes, Rule, burn
from rtml_assets.watch.ledger import Ledger
from rtml_assets.watch.report import Objective

START = 1_000_000 * MINUTE
RULES_OF_A_TEST = (Rule(10 * MINUTE, 2 * MINUTE, 3.0, "critical"), Rule(30 * MINUTE, 5 * MINUTE, 1.0, "warning"))


def objective(good, target="source:a", name="lag", **others):
    common = {"value": 1.0, "bound": 2.0, "unit": "ms", "share": 0.99, "budget": 30 * DAY, "promised": True}
    return Objective(target=target, name=name, good=good, **{**common, **others})


def minutes_of(bad_by_minute, now, looks=30, length=43_200):
    first = now // MINUTE - len(bad_by_minute) + 1
    return Minutes(length, [(first + place, bad, looks) for place, bad in enumerate(bad_by_minute)], now)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 59 * 60), st.integers(0, 40), st.integers(0, 40)), max_size=40),
    st.integers(0, 5),
    st.sampled_from([0.0, 3.0, 30.0]),
)
def test_rates_agree_with_a_recount(events, later, looks):
    """Events at seconds of one hour, in order; what a window holds is counted one by one."""
    events = sorted((second, min(bad, total), total) for second, bad, total in events)
    now = START + 59 * MINUTE + later * MINUTE
    half = len(events) // 2
    before: dict[int, list[int]] = {}
    for second, bad, total in events[:half]:
        sums = before.setdefault((START + second * SECOND) // MINUTE, [0, 0])
        sums[0] += bad
        sums[1] += total
    turned = START if half == 0 else START + events[half - 1][0] * SECOND
    minutes = Minutes(60, [(minute, bad, total) for minute, (bad, total) in before.items()], turned)
    for second, bad, total in events[half:]:
        minutes.add(bad, total, START + second * SECOND)
    minutes.turn(now)
    found = burn(minutes, 0.9, 40 * MINUTE, looks, RULES_OF_A_TEST)

    def rate(window):
        first = now // MINUTE - window // MINUTE
        inside = [each for each in events if first < (START + each[0] * SECOND) // MINUTE <= now // MINUTE]
        bad, total = sum(each[1] for each in inside), sum(each[2] for each in inside)
        return bad / max(total, looks * window / MINUTE, 1) / 0.1

    assert found.rates == {f"{w}m": pytest.approx(rate(w * MINUTE)) for w in (2, 5, 10, 30)}
    assert found.left == pytest.approx(1 - rate(40 * MINUTE))
    broken = [rule for rule in RULES_OF_A_TEST if min(rate(rule.long), rate(rule.short)) >= rule.rate]
    if all(abs(rate(w * MINUTE) - bound) > 1e-9 for w in (2, 5, 10, 30) for bound in (1, 3)):
        assert found.rule == next(iter(broken), None)


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        ([0] * 60, None),
        ([30] * 8, None),  # 8 minutes of an hour, of a budget of 1 %: 13.3 times too fast
        ([30] * 9, "critical"),
        ([30] * 20 + [0] * 5, None),  # it is over: the short window is clear
        ([30] * 30 + [0] * 20, "critical"),  # half an hour of six: 8.3 times; and a third of the last one
        ([2] * 500, "critical"),  # 6.7 % for six hours
        ([1] * 1500, "warning"),  # 3.3 % for a day
        ([1 if place % 3 == 0 else 0 for place in range(4400)], "warning"),  # 1.1 % for three days
        ([1 if place % 4 == 0 else 0 for place in range(4400)], None),  # 0.83 %: within the budget
    ],
)
def test_what_is_too_fast(bad, expected):
    found = burn(minutes_of(bad, START), 0.99, 30 * DAY, 30)
    assert (found.rule.severity if found.rule else None) == expected, found


def test_the_first_bad_look_is_no_alarm():
    """A watch that has looked three times, and found one bad, knows of nothing to wake somebody for."""
    minutes = Minutes(43_200, [], START)
    minutes.add(1, 1, START)
    assert burn(minutes, 0.99, 30 * DAY, 30).rule is None


def test_what_is_left():
    found = burn(minutes_of([30] * 108, START), 0.99, 30 * DAY, 30)
    assert found.left == pytest.approx(0.75)
    assert "75.0% of the error budget is left; it burns" in str(found)
    assert {rule.rate for rule in RULES} == {14.4, 6, 3, 1}
    assert burn(minutes_of([30] * 864, START), 0.99, 30 * DAY, 30).left == pytest.approx(-1)


def test_a_clock_that_goes_back_loses_nothing():
    minutes = minutes_of([30] * 9, START)
    minutes.add(5, 5, START - HOUR)
    assert minutes.sums(HOUR) == (275, 275)
    minutes.turn(START + 100 * DAY)
    assert minutes.sums(30 * DAY) == (0, 0)


@pytest.fixture
def ledger(tmp_path):
    with Ledger(tmp_path / "x.sqlite") as ledger:
        yield ledger


def test_counts_outlive_the_watch(ledger):
    """A quarter of an hour in which a source and a service break their promises, and a restart in the middle."""
    burns, looks = {}, []
    budgets = Budgets(ledger, 2 * SECOND)
    for number in range(450):
        now = START + number * 2 * SECOND
        if number == 200:
            budgets = Budgets(ledger, 2 * SECOND)
        looks = [
            objective(False),
            objective(True, name="freshness"),
            objective(None, name="heartbeat"),
            objective(False, target="view:v", name="nulls:x", promised=False),
            objective(False, target="service:s", name="availability", share=0.999, total=100, bad=2),
        ]
        burns = budgets.count(looks, now)
    assert burns.keys() == {("source:a", name) for name in ("lag", "freshness", "heartbeat")} | {
        ("service:s", "availability")
    }
    assert sum(bad for _, bad, _ in counted(ledger, "source:a", "lag", 0)) == 450
    assert sum(total for *_, total in counted(ledger, "service:s", "availability", 0)) == 45_000
    assert counted(ledger, "view:v", "nulls:x", 0) == []
    assert burns["source:a", "lag"].rates["1h"] == pytest.approx(450 / 1800 / 0.01)
    assert burns["service:s", "availability"].rates["1h"] == pytest.approx(900 / 45_000 / 0.001)

    found = {condition.target: condition for condition in burning(burns)}
    assert found.keys() == {"source:a", "service:s"}
    assert {condition.alert for condition in found.values()} == {"error_budget"}
    assert (found["source:a"].severity, found["source:a"].bound) == ("critical", 14.4)
    assert "source:a lag: " in found["source:a"].words
    assert "25× in 1h" in found["source:a"].words
    shown = with_budgets(looks, burns)
    assert shown[0].left == pytest.approx(1 - 450 / 12_960)
    assert shown[0].burn["1h"] == 25.0
    assert (shown[3].left, shown[3].burn) == (None, {})


def test_counts_of_one_minute_add_up(ledger):
    for bad in (1, 0, 2):
        count(ledger, [("source:a", "lag", bad, 3)], START)
    assert counted(ledger, "source:a", "lag", 0) == [(START // MINUTE, 3, 9)]
    ledger.prune(START + 40 * DAY)
    assert counted(ledger, "source:a", "lag", 0) == []
