"""The error budgets of all promised objectives: counted look by look, kept in the ledger, judged against the rules."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from rtml.instants import MINUTE, Duration, Instant
from rtml_assets.watch.burn import LONGEST, Burn, Count, Minutes, burn
from rtml_assets.watch.conditions import Condition
from rtml_assets.watch.ledger import Ledger
from rtml_assets.watch.report import Objective

ALERT = "error_budget"
Key = tuple[str, str]


class Budgets:
    """How the budget of every objective stands.

    Args:
        ledger: what keeps the counts.
        interval: the time between two looks, in microseconds.
    """

    def __init__(self, ledger: Ledger, interval: Duration) -> None:
        """Take the parts; nothing is counted yet."""
        self._ledger, self._looks = ledger, MINUTE / interval
        self._minutes: dict[Key, Minutes] = {}
        self._longest: Duration = LONGEST

    @property
    def longest(self) -> Duration:
        """For how long counts are needed."""
        return self._longest

    def count(self, objectives: Iterable[Objective], now: Instant) -> dict[Key, Burn]:
        """Count one look, and return how each budget stands, by target and objective."""
        promised = [each for each in objectives if each.promised and each.share < 1]
        judged = [(each, _bad(each), each.total) for each in promised if each.good is not None]
        for each in promised:
            self._known(each, now)
        count(self._ledger, [(each.target, each.name, bad, total) for each, bad, total in judged], now)
        for each, bad, total in judged:
            self._minutes[each.target, each.name].add(bad, total, now)
        return {(each.target, each.name): self._burn(each, now) for each in promised}

    def _known(self, each: Objective, now: Instant) -> None:
        key = (each.target, each.name)
        if key not in self._minutes:
            self._longest = max(self._longest, each.budget)
            length = max(each.budget, LONGEST) // MINUTE
            self._minutes[key] = Minutes(length, counted(self._ledger, *key, now // MINUTE - length), now)

    def _burn(self, each: Objective, now: Instant) -> Burn:
        minutes = self._minutes[each.target, each.name]
        minutes.turn(now)
        return burn(minutes, each.share, each.budget, self._looks)


def burning(burns: dict[Key, Burn]) -> list[Condition]:
    """Return what burns too fast: one condition a target, as bad as its worst objective."""
    found: dict[str, list[tuple[str, Burn]]] = {}
    for (target, name), each in burns.items():
        if each.rule is not None:
            found.setdefault(target, []).append((name, each))
    return [_condition(target, several) for target, several in found.items()]


def with_budgets(objectives: Iterable[Objective], burns: dict[Key, Burn]) -> list[Objective]:
    """Return objectives with how their budgets stand."""
    return [
        msgspec.structs.replace(each, left=round(found.left, 6), burn={k: round(v, 4) for k, v in found.rates.items()})
        if (found := burns.get((each.target, each.name)))
        else each
        for each in objectives
    ]


def count(ledger: Ledger, counts: Iterable[tuple[str, str, int, int]], now: Instant) -> None:
    """Add to the counts of this minute: target, objective, how much was bad, how much there was."""
    rows = [(target, name, now // MINUTE, bad, total) for target, name, bad, total in counts]
    with ledger.transaction() as db:
        db.executemany(
            "INSERT INTO counts (target, objective, minute, bad, total) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET bad = bad + excluded.bad, total = total + excluded.total",
            rows,
        )


def counted(ledger: Ledger, target: str, objective: str, since: int) -> list[Count]:
    """Return the counts of an objective from a minute on, in order."""
    query = "SELECT minute, bad, total FROM counts WHERE target = ? AND objective = ? AND minute >= ? ORDER BY minute"
    return [msgspec.convert(row, Count) for row in ledger.rows(query, target, objective, since)]


def _bad(each: Objective) -> int:
    return each.bad if each.bad is not None else 0 if each.good else each.total


def _condition(target: str, several: list[tuple[str, Burn]]) -> Condition:
    def order(item: tuple[str, Burn]) -> tuple[bool, float]:
        rule = item[1].rule
        return rule is not None and rule.severity == "critical", -item[1].left

    several.sort(key=order, reverse=True)
    rule, worst = several[0][1].rule, several[0][1]
    assert rule is not None
    words = "; ".join(f"{target} {name}: {each}" for name, each in several)
    return Condition(ALERT, target, rule.severity, words, round(max(worst.rates.values()), 3), rule.rate)
