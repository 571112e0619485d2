"""Sets, sketches and counters: their laws beyond lists, their errors against the truth, and bytes that were spoilt."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from datasketches import HLL_8, hll_sketch  # type: ignore[import-untyped]

from rtml.algebra import catalog
from rtml.algebra.distinct import Distinct
from rtml.algebra.family import NUMPY_KIND, Aggregate, Array, Kind, Span
from rtml.algebra.frequent import Counters
from rtml.algebra.quantiles import SURE, Ranks, rank_error
from rtml.algebra.ragged import Gathering, mixed
from rtml.algebra.sketched import SKETCH_HEAD, Sketched
from rtml.algebra.states import StateSchema
from rtml.algebra.uniques import Uniques
from rtml.errors import CodecError, DefinitionError
from rtml.values import to_list
from tests import oracle_sketches as oracle

SMALL: list[tuple[str, dict[str, Any]]] = [
    ("count_distinct", {"most": 20}),
    ("approx_count_distinct", {"lg_k": 8}),
    ("approx_percentile", {"k": 8, "q": 0.9}),
    ("approx_percentiles", {"k": 16, "qs": (0.0, 0.5, 1.0)}),
    ("approx_top_k", {"k": 3, "counters": 6}),
]
"""Of so little room that a few hundred values are far beyond it."""
KINDS: list[Kind] = ["f64", "i64", "str"]
CASES = [(*one, kind) for one in SMALL for kind in KINDS if kind != "str" or catalog.AGGREGATES[one[0]].takes_string]
FAMILIES: list[Gathering] = [
    Distinct("x", "f64", 20), Uniques("x", "f64", 8), Ranks("x", "f64", 8), Counters("x", "f64", 6),
]  # fmt: skip
START = np.zeros(1, dtype=np.int64)


def drawn(rng: np.random.Generator, kind: Kind, count: int) -> Array:
    """Skewed values, some of them common, both zeros among them."""
    numbers = rng.zipf(1.4, count) % 500 * rng.choice([-1, 1], count)
    if kind == "f64":
        return np.where(numbers == 0, rng.choice([0.0, -0.0], count), numbers / 4)
    return mixed(numbers, "i64") if kind == "str" else numbers


def state_of(family: Gathering, values: Array) -> Array:
    return family.gather(values, START) if len(values) else np.full(1, b"", dtype=object)


def in_parts(family: Gathering, values: Array, rng: np.random.Generator) -> Array:
    """The state of values that came in any order, in parts of any size, joined in twos, threes and more."""
    values = rng.permutation(values)
    edges = np.sort(rng.integers(0, len(values) + 1, rng.integers(1, 12)))
    states = np.concatenate([state_of(family, part) for part in np.split(values, edges)])
    while len(states) > 1:
        starts = np.unique(np.append(0, rng.integers(0, len(states), rng.integers(1, 1 + len(states) // 2 + 1))))
        states = family.join(rng.permutation(states), starts)
        if len(starts) > 1 and len(states) > 4 and rng.random() < 0.2:
            states = family.join(states, START)
    return states


def finalized(aggregate: Aggregate, kind: Kind, state: Array) -> Any:
    (family,) = aggregate.families("x", kind)
    assert isinstance(family, Gathering)
    return to_list(aggregate.finalize("x", kind, {family.state: state}, Span(0, 1)))[0]


@pytest.mark.parametrize(("name", "parameters", "kind"), CASES, ids=[f"{name}-{kind}" for name, _, kind in CASES])
def test_parts_joined_in_any_order_are_worth_what_was_promised(
    name: str, parameters: dict[str, Any], kind: Kind
) -> None:
    aggregate = catalog.aggregate(name, tuple(parameters.items()))
    (family,) = aggregate.families("x", kind)
    assert isinstance(family, Gathering)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        values = drawn(rng, kind, int(rng.choice([1, 5, 9, 40, 3000])))
        whole, parts = state_of(family, values), in_parts(family, values, rng)
        for state in (whole, parts):
            got = finalized(aggregate, kind, state)
            assert oracle.agree(name, got, values.tolist(), tuple(parameters.items())), (seed, got)
        if isinstance(family, (Distinct, Uniques)):
            assert whole[0] == parts[0], "a matter of the values alone"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.code)
def test_the_empty_state_is_the_identity_and_nothing_is_changed(family: Gathering) -> None:
    rng = np.random.default_rng(1)
    for count in (1, 6, 500):
        state = state_of(family, drawn(rng, "f64", count))
        states = np.array([b"", state[0], b"", b""], dtype=object)
        states.setflags(write=False)
        joined = family.join(states, START)
        assert joined[0] == state[0]
    assert family.join(np.full(2, b"", dtype=object), np.array([0, 1])).tolist() == [b"", b""]


def test_a_sketch_of_percentiles_keeps_number_and_ends() -> None:
    family, rng = Ranks("x", "f64", 8), np.random.default_rng(2)
    values = rng.normal(size=5000)
    state = in_parts(family, values, rng)
    sketch = family.read(family.opened(state).sketches[0])
    assert sketch.n == 5000
    assert (sketch.get_min_value(), sketch.get_max_value()) == (values.min(), values.max())
    assert family.at_ranks(state, np.array([[0.0, 1.0]])).tolist() == [[values.min(), values.max()]]


def test_registers_are_those_of_datasketches_own_sketch() -> None:
    family, rng = Uniques("x", "i64", 10), np.random.default_rng(3)
    values = rng.integers(-(2**62), 2**62, 20_000)
    own = hll_sketch(10, HLL_8, start_max_size=True)
    for value in mixed(values, "i64").view(np.int64).tolist():
        own.update(value)
    mine = family.read(family.opened(in_parts(family, values, rng)).sketches[0])
    assert mine.get_estimate() == pytest.approx(own.get_estimate(), rel=0.05)
    again = family.sketch(np.empty(0, dtype=np.uint64), [own.serialize_compact()])
    assert again == family.opened(state_of(family, values)).sketches[0]


@pytest.mark.parametrize("lg_k", [8, 10, 12])
def test_distinct_counts_have_the_documented_standard_error(lg_k: int) -> None:
    """Over 150 sets of a thousand to 60 thousand values; hashes are fixed, so the errors are as well."""
    rng = np.random.default_rng(4)
    family, aggregate = Uniques("x", "i64", lg_k), catalog.aggregate("approx_count_distinct", (("lg_k", lg_k),))
    errors = []
    for _ in range(150):
        count = int(10 ** rng.uniform(3, 4.3))
        values = rng.integers(-(2**62), 2**62, count)
        errors.append(finalized(aggregate, "i64", state_of(family, values)) / len(np.unique(values)) - 1)
    promised = 1.04 / math.sqrt(2**lg_k)
    assert f"{promised:.2%}" in str(aggregate.bound("i64"))
    assert math.sqrt(np.mean(np.square(errors))) < 1.2 * promised
    assert abs(np.mean(errors)) < 0.4 * promised
    assert max(map(abs, errors)) < 5 * promised
    exact = family.few
    assert finalized(aggregate, "i64", state_of(family, np.arange(exact))) == exact


@pytest.mark.parametrize("shape", ["normal", "lognormal", "few"])
def test_percentiles_have_the_documented_rank_error(shape: str) -> None:
    """The sketch tosses coins, so what is checked has a chance of failing of less than one in a billion."""
    rng, family, ranks = np.random.default_rng(5), Ranks("x", "f64", 200), np.linspace(0.02, 0.98, 13)
    errors = []
    for _ in range(40):
        count = int(rng.integers(500, 20_000))
        values = {"normal": rng.normal(size=count), "lognormal": rng.lognormal(0, 3, count)}.get(shape)
        values = rng.integers(0, 30, count).astype(np.float64) if values is None else values
        state = in_parts(family, values, rng)
        found = family.at_ranks(state, ranks[None, :])[0]
        ordered = np.sort(values)
        low, high = (np.searchsorted(ordered, found, side=side) / count for side in ("left", "right"))
        errors.append(np.maximum(np.maximum(low - ranks, ranks - high), 0))
    worst = np.array(errors)
    assert (worst > rank_error(200)).mean() < 0.06
    assert worst.max() < SURE * rank_error(200)
    assert f"{rank_error(200):.2%}" == "1.33%"


def test_counters_are_short_by_no_more_than_is_documented() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        family = Counters("x", "i64", 10)
        values = drawn(rng, "i64", 4000)
        table = family.table(in_parts(family, values, rng))
        found, counts = np.unique(values, return_counts=True)
        truth = dict(zip(found.tolist(), counts.tolist(), strict=True))
        assert 0 < table.short[0] <= 4000 // 11
        counted = dict(zip(family.decoded(table.values).tolist(), table.counts.tolist(), strict=True))
        assert len(counted) <= 10
        for value, count in truth.items():
            assert count - table.short[0] <= counted.get(value, 0) <= count


@pytest.mark.parametrize("kind", ["f64", "i64"])
def test_hashes_of_numbers_do_not_collide_and_zeros_are_one(kind: Kind) -> None:
    numbers = np.arange(-50_000, 50_000).astype(NUMPY_KIND[kind])
    assert len(np.unique(mixed(numbers, kind))) == len(numbers)
    assert mixed(np.array([-0.0]), "f64") == mixed(np.array([0.0]), "f64")
    hashes = mixed(numbers, kind) / 2.0**64
    assert abs(hashes.mean() - 0.5) < 0.01  # the least of them are as good as drawn


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.code)
def test_spoilt_bytes_are_an_error_and_never_a_crash(family: Gathering) -> None:
    rng, dice = np.random.default_rng(6), random.Random(6)
    wrong = 0
    for trial in range(600):
        state = bytearray(state_of(family, drawn(rng, "f64", dice.choice([2, 300])))[0])
        match trial % 3:
            case 0:
                place = dice.randrange(len(state))
                state[place] ^= 1 << dice.randrange(8)
            case 1:
                del state[dice.randrange(len(state)) :]
            case _:
                state += dice.randbytes(dice.choice([1, 7, 8, 800]))
        sketched = isinstance(family, Sketched) and bytes(state[:2]) == SKETCH_HEAD
        try:
            joined = family.join(np.array([bytes(state), b""], dtype=object), START)
        except CodecError as error:
            assert family.state in str(error)  # noqa: PT017
            wrong += 1
        else:
            assert not sketched or not len(state), "the sum of a sketch tells"
            assert len(joined) == 1
    assert wrong > 200


def test_a_sketch_of_another_size_is_an_error() -> None:
    values = np.arange(5000.0)
    for small, large in [
        (Uniques("x", "f64", 8), Uniques("x", "f64", 9)), (Ranks("x", "f64", 8), Ranks("x", "f64", 9))
    ]:  # fmt: skip
        with pytest.raises(CodecError, match=r"got [\d,]+ bytes: a sketch of"):
            large.join(np.repeat(state_of(small, values), 2), START)
    with pytest.raises(CodecError, match="at most 20 hashes of 8 bytes; got 168 bytes"):
        Distinct("x", "f64", 20).join(state_of(Distinct("x", "f64", 21), values), START)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("count_distinct", {"most": 0}, "bound must be an integer from 1 to 10,000"),
        ("count_distinct", {"most": 10**6}, "beyond: ApproxCountDistinct"),
        ("approx_count_distinct", {"lg_k": 20}, "lg_k must be an integer from 8 to 16; got 20"),
        ("approx_percentile", {"q": 95.0}, "q must be from 0 to 1"),
        ("approx_percentile", {"q": "p95"}, "q must be from 0 to 1"),
        ("approx_percentile", {"k": 5}, "k must be an integer from 8 to 4,096; got 5"),
        ("approx_percentiles", {"qs": ()}, "qs must be a list of 1 to 100 numbers"),
        ("approx_percentiles", {"qs": 0.5}, "qs must be a list"),
        ("approx_top_k", {"k": 0}, "k must be an integer from 1 to 1,024"),
        ("approx_top_k", {"k": 10, "counters": 5}, r"counters must be an integer from k \(10\) to 4,096; got 5"),
        ("histogram", {"edges": (1.0, 1.0)}, "edges must be a list of 1 to 64 ascending numbers"),
        ("histogram", {"edges": (math.nan,)}, "edges must be"),
    ],
)
def test_parameters_that_cannot_mean_what_they_say(name: str, parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        catalog.aggregate(name, tuple(parameters.items()))


@pytest.mark.parametrize("kind", ["f64", "i64"])
def test_bins_count_values_on_their_edges_to_the_right(kind: Kind) -> None:
    aggregate = catalog.aggregate("histogram", (("edges", (-1.0, 0.0, 2.0)),))
    schema = StateSchema.of(aggregate.families("x", kind))
    column = pl.Series("x", [-5, -1, 0, 1, 2, 3, None], dtype=pl.Float64 if kind == "f64" else pl.Int64)
    lowered = pl.DataFrame({"x": column, "g": 0}).group_by("g").agg(schema.lower())
    states = {name: lowered[name].to_numpy() for name in schema.names}
    assert to_list(aggregate.finalize("x", kind, states, Span(0, 1))) == [[1, 1, 2, 2]]


def test_what_is_approximate_says_so() -> None:
    said: dict[str, Sequence[str]] = {
        "count_distinct": ["exact below 1,000"], "approx_count_distinct": ["1.62%", "up to 256"],
        "approx_percentile": ["1.33%", "99 of 100"], "approx_percentiles": ["1.33%"], "approx_top_k": ["0.62%"],
    }  # fmt: skip
    for name in catalog.AGGREGATES:
        words = catalog.aggregate(name).bound("f64")
        if name.startswith(("approx_", "count_distinct")):
            assert all(part in str(words) for part in said[name])
        elif name in ("count", "sum", "mean", "min", "max", "variance", "stddev", "first", "last", "histogram"):
            assert words is None
