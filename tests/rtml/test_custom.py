"""Custom aggregates: what may be declared, what a plan carries of them, and the laws that they are held against."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import rtml
from rtml.algebra import catalog
from rtml.algebra.custom import CUSTOM, KNOWN, parameters_of
from rtml.algebra.family import Array, Events, Kind, Lane, States
from rtml.compile import compile_view
from rtml.define.custom import CustomAggregate
from rtml.errors import DefinitionError, UnknownNameError
from rtml.plan import Plan
from rtml.registry import Registry
from tests.rtml.geometric import POSITIVE, geometric_mean

MOST: dict[str, Any] = {"state": {"most": float}, "empty": {"most": -1e300}, "finalize": lambda states: states["most"]}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rtml.define.custom.KNOWN", known := dict(KNOWN))
    monkeypatch.setattr("rtml.algebra.custom.KNOWN", known)


def plan_of(aggregate: CustomAggregate, column: str = "amount") -> Plan:
    class Sale(rtml.Event):
        at: rtml.Timestamp
        shop: str
        amount: float
        paid: bool

    source = rtml.EventSource(
        name="sales", schema=Sale, timestamp="at", stream=rtml.RedisStream("sales"), lateness="1m"
    )
    features = [aggregate(column, windows=["1h"])]
    return compile_view(rtml.StreamFeatureView("shop_sales", source, rtml.Entity("shop", ["shop"]), features))


def test_a_feature_is_called_after_the_aggregate() -> None:
    (feature,) = plan_of(geometric_mean).features
    assert (feature.name, feature.called, feature.formula) == (
        "amount_geometric_mean_1h",
        "geometric_mean(version=1)",
        "geometric_mean(amount, version=1)",
    )


def test_a_plan_carries_what_it_means_and_finds_the_functions() -> None:
    plan = Plan.decode(plan_of(geometric_mean).encode())
    assert plan == plan_of(geometric_mean)
    assert plan.states.names == ("amount.geometric_mean_1_log_sum", "amount.geometric_mean_1_n")
    assert plan.states.dtype.itemsize == 16


def test_the_fingerprint_is_of_name_version_and_states_and_not_of_the_functions() -> None:
    first = plan_of(geometric_mean).fingerprint
    assert plan_of(dataclasses.replace(geometric_mean, finalize=lambda states: states["n"])).fingerprint == first
    others = [
        dataclasses.replace(geometric_mean, version=2),
        dataclasses.replace(geometric_mean, name="other"),
        dataclasses.replace(geometric_mean, empty={"log_sum": 1.0}),
        dataclasses.replace(geometric_mean, output=int),
    ]
    assert len({first, *(plan_of(other).fingerprint for other in others)}) == 5


def test_functions_that_are_not_loaded_are_an_error_that_says_which() -> None:
    plan = plan_of(geometric_mean)
    renamed = dict(plan.features[0].parameters) | {"called": "geometrc_mean"}
    with pytest.raises(UnknownNameError, match=r"'geometrc_mean version 1'.*Did you mean 'geometric_mean version 1'"):
        catalog.aggregate(CUSTOM, tuple(renamed.items())).families("amount", "f64")[0].columns  # noqa: B018
    dataclasses.replace(geometric_mean, state={"log_sum": float})
    with pytest.raises(DefinitionError, match=r"must have the states \(log_sum: f64 = 0.0, n: i64 = 0\)"):
        plan.states.names  # noqa: B018


def test_two_of_one_name_and_version_are_an_error() -> None:
    other = dataclasses.replace(geometric_mean)
    with pytest.raises(DefinitionError, match=r"'geometric_mean' .* both are version 1"):
        Registry.of([geometric_mean, other])
    Registry.of([geometric_mean, geometric_mean, dataclasses.replace(geometric_mean, version=2)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "geo mean"}, "a name is letters"),
        ({"version": 0}, "version must be an integer from 1 on; got 0"),
        ({"state": {}}, "state must be columns with their types"),
        ({"state": {"n": str}}, r"state\['n'\] must be float or int"),
        ({"empty": {"m": 1}}, r"empty must be of the state's columns \['log_sum', 'n'\]; got 'm'"),
        ({"output": str}, "output must be float or int"),
        ({"tolerance": 2}, "tolerance must be from 0 to below 1"),
        ({"tolerance": "1e-9"}, "tolerance must be from 0 to below 1; got '1e-9'"),
        ({"state": ["n"]}, r"state must be columns with their types, .* got \['n'\]"),
        ({"state": {"n": [int]}}, r"state\['n'\] must be float or int; got \["),
        ({"empty": {"n": 1.5}}, r"empty\['n'\] must be an integer of 64 bits; got 1.5"),
        ({"empty": {"log_sum": "0"}}, r"empty\['log_sum'\] must be a number; got '0'"),
        ({"lower": None}, "lower must be a function; got None"),
        ({"combine": "add"}, "combine must be a function; got 'add'"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        dataclasses.replace(geometric_mean, **changes)


def test_booleans_are_refused_as_other_columns_of_no_number_are() -> None:
    with pytest.raises(DefinitionError, match="paid_geometric_mean must be a numeric column; got 'Boolean'"):
        plan_of(geometric_mean, "paid")


@pytest.mark.parametrize("kind", ["f64", "i64"])
def test_lift_follows_from_lower(kind: Kind) -> None:
    values = np.array([1, 2, 100, 7], dtype="<f8" if kind == "f64" else "<i8")
    events = Events(np.arange(4), np.arange(4, dtype=np.uint64), {"x": Lane(values, np.array([1, 1, 0, 1], bool))})
    given, followed = (
        catalog.aggregate(CUSTOM, parameters_of(one.name, one.version, one)).families("x", kind)[0].lift(events)
        for one in (geometric_mean, dataclasses.replace(geometric_mean, lift=None, version=2))
    )
    for one, other in zip(given.values(), followed.values(), strict=True):
        np.testing.assert_allclose(one, other)
        assert one.dtype == other.dtype


class TestLaws:
    def test_a_monoid_keeps_them(self) -> None:
        rtml.check_laws(geometric_mean, POSITIVE)
        rtml.check_laws(dataclasses.replace(geometric_mean, lift=None), POSITIVE, examples=30)
        most = CustomAggregate(name="most", lower=lambda x: {"most": x.max()}, combine=_reduced(np.maximum), **MOST)
        rtml.check_laws(most)

    @pytest.mark.parametrize("name", sorted(catalog.AGGREGATES))
    def test_the_catalog_keeps_them(self, name: str) -> None:
        rtml.check_laws(catalog.aggregate(name), examples=12)
        rtml.check_laws(catalog.aggregate(name), (0, 1, 7, -3, 2**40), kind="i64", examples=12)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"empty": {"log_sum": 1.0}}, r"the empty state changes what stands before it.*with the values \[.*\]$"),
            (
                {
                    "lower": lambda x: {"log_sum": x.last().log(), "n": x.count()},
                    "combine": lambda s, starts: {"log_sum": _last(s, starts), "n": np.add.reduceat(s["n"], starts)},
                },
                r"combine depends on the order.*with the values \[\d[^,]*, \d[^,]*\]$",
            ),
            ({"combine": lambda s, starts: {n: _halved(c, starts) for n, c in s.items()}}, "the empty state changes"),
            ({"lower": lambda x: {"log_sum": x.sum(), "n": x.count()}}, r"lower is not lift and combine.*\[\d[^,]*\]$"),
            (
                {"lift": lambda x: {"log_sum": np.log(x), "n": np.ones(1)}},
                r"lift must be columns of \d states, one a",
            ),
            ({"finalize": lambda s: s["n"][:1]}, "finalize must give a value for each state"),
            ({"lower": lambda x: {"log_sum": x.sum()}}, r"lower must be the state's columns \['log_sum', 'n'\]"),
        ],
    )
    def test_what_breaks_one_is_told_with_the_smallest_example(self, changes: dict[str, Any], message: str) -> None:
        broken = dataclasses.replace(geometric_mean, **changes)
        with pytest.raises(DefinitionError, match=message):
            rtml.check_laws(broken, (2.0, 3.0, 5.0))

    def test_a_grouping_that_matters_is_told(self) -> None:
        def hypotenuse(states: States, starts: Array) -> Mapping[str, Array]:
            groups = np.split(states["most"], starts[1:])
            return {"most": np.array([np.sum(np.abs(part)) / max(1, len(part) - 1) for part in groups])}

        broken = CustomAggregate(
            name="broken",
            state={"most": float},
            lower=lambda x: {"most": x.sum()},
            combine=hypotenuse,
            finalize=lambda states: states["most"],
        )
        with pytest.raises(
            DefinitionError, match=r"combine is not associative: grouped after 1.*\[[^,]*, [^,]*, [^,]*\]$"
        ):
            rtml.check_laws(broken, (1.0, 2.0, 4.0))

    def test_inputs_that_change_are_told(self) -> None:
        def careless(states: States, starts: Array) -> Mapping[str, Array]:
            states["most"][:] = 7.0
            return {"most": np.maximum.reduceat(states["most"], starts)}

        broken = CustomAggregate(name="broken", lower=lambda x: {"most": x.max()}, combine=careless, **MOST)
        with pytest.raises(DefinitionError, match="combine must not change its inputs"):
            rtml.check_laws(broken)

    def test_states_that_are_no_numbers_are_told(self) -> None:
        with (
            np.errstate(all="ignore"),
            pytest.raises(DefinitionError, match=r"lift must give numbers; .*_log_sum' = \[nan\].*\[-1.0\]$"),
        ):
            rtml.check_laws(geometric_mean, (2.0, -1.0))


def _reduced(ufunc: np.ufunc) -> Any:
    return lambda states, starts: {name: ufunc.reduceat(column, starts) for name, column in states.items()}


def _last(states: States, starts: Array) -> Array:
    """Of each group the last sum that is of any values."""
    groups = zip(np.split(states["log_sum"], starts[1:]), np.split(states["n"], starts[1:]), strict=True)
    return np.array([float(sums[counts > 0][-1:].sum()) for sums, counts in groups])


def _halved(column: Array, starts: Array) -> Array:
    return np.add.reduceat(column, starts) / 2
