"""Numbers of entities: integers that lie close together by a table, all others by a join, and both the same."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rtml.point_in_time import order
from rtml.point_in_time.order import Entities

LEAST, GREATEST = -(2**63), 2**63 - 1
integers = st.none() | st.integers(-3, 3) | st.integers(GREATEST - 2, GREATEST) | st.integers(LEAST, LEAST + 2)
close = st.sampled_from([LEAST, -2, 0, 5, GREATEST - 3]).flatmap(
    lambda least: st.lists(st.none() | st.integers(least, least + 3), min_size=1)
)


def frame(keys):
    return pl.DataFrame({"key": pl.Series(keys, dtype=pl.Int64)})


@given(known=close | st.lists(integers), asked=st.lists(integers))
@example(known=[LEAST], asked=[GREATEST, LEAST, None])
@example(known=[GREATEST], asked=[LEAST, GREATEST, None])
@example(known=[None], asked=[0, None])
def test_numbers_are_the_ranks_of_the_known(known, asked):
    ranks = {key: rank for rank, key in enumerate(sorted({key for key in known if key is not None}))}
    entities = Entities.of(frame(known), ["key"])
    assert len(entities) == len(ranks)
    for keys in (known, asked):
        assert entities.numbers(frame(keys)).tolist() == [ranks.get(key, len(ranks)) for key in keys]
    assert entities.keys(entities.numbers(frame(list(ranks))))["key"].to_list() == list(ranks)


@pytest.mark.parametrize("at_once", [1, 3])
def test_a_table_is_used_where_it_is_small(monkeypatch, at_once):
    monkeypatch.setattr(order, "_AT_ONCE", at_once)
    entities = Entities.of(frame([7, None, 9, 7, 8]), ["key"])
    assert entities.places is not None
    assert entities.numbers(frame([9, None, 10, 6, 7])).tolist() == [2, 3, 3, 3, 0]
    assert Entities.of(frame([7, 1_000_000]), ["key"]).places is None
    assert Entities.of(frame([]), ["key"]).places is None
