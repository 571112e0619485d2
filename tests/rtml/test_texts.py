"""Strings as hashes and back, and which aggregates take columns of them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

import rtml
from rtml.algebra import catalog
from rtml.algebra.family import Output
from rtml.compile import compile_view
from rtml.define.feature import Aggregation
from rtml.errors import CodecError, DefinitionError
from rtml.projection import INGESTED_AT, project
from rtml.texts import LONGEST_TEXT, Texts, hash64, hashes, text_column
from rtml.values import from_series, to_series

STRINGS = st.one_of(st.none(), st.sampled_from(["", "a", "🛫", "é"]), st.text(max_size=8))


class Word(rtml.Event):
    word_id: str
    at: rtml.Timestamp
    who: str
    said: str = rtml.Field(nullable=True)


words = rtml.EventSource(
    name="words", schema=Word, timestamp="at", event_id="word_id", stream=rtml.RedisStream("words"), lateness="1m"
)


def view(*features: Aggregation, **given: pl.Expr) -> rtml.StreamFeatureView:
    return rtml.StreamFeatureView(
        name="spoken", source=words, entity=rtml.Entity("who"), derive=given, features=list(features)
    )


def test_a_hash_is_xxh64_of_the_utf8_for_ever() -> None:
    assert hash64("") == 0xEF46DB3751D8E999
    assert hashes(pl.Series(["🛫", None])).to_list() == [xxhash.xxh64_intdigest("🛫".encode()), None]


@given(st.lists(STRINGS, max_size=30), st.sampled_from([1, 60]))
def test_hashes_are_the_same_for_few_strings_and_for_many(given: list[str | None], times: int) -> None:
    column = pl.Series("said", given * times, dtype=pl.String)
    assert hashes(column).to_list() == [None if one is None else hash64(one) for one in given * times]


@given(st.lists(st.one_of(st.none(), st.lists(STRINGS.filter(lambda one: one is not None), max_size=3)), max_size=9))
def test_lists_and_single_strings_come_back(given: list[list[str] | None]) -> None:
    lists = pl.Series("said", given, dtype=pl.List(pl.String))
    single = pl.Series("said", [one[0] if one else None for one in given], dtype=pl.String)
    every = pl.Series([text for one in given for text in one or []], dtype=pl.String)
    known = Texts.of(pl.DataFrame({"said": hashes(every), text_column("said"): every}), ["said"])
    assert to_series(from_series(lists, Output("str", 3)), known).to_list() == given
    assert to_series(from_series(single, Output("str")), known).to_list() == single.to_list()


def test_a_hash_without_its_text_is_an_error() -> None:
    values = from_series(pl.Series(["a"]), Output("str"))
    with pytest.raises(CodecError, match=f"the hash {hash64('a'):#018x} has none"):
        to_series(values)


def test_a_string_that_is_too_long_counts_as_null_and_an_empty_one_does_not() -> None:
    spoken = view(rtml.Last("said", ["1h"]), rtml.CountDistinct("twice", ["1h"]), twice=pl.col("said") + pl.col("said"))
    plan = compile_view(spoken)
    assert plan.lanes == {"said": "str", "twice": "str"}
    assert plan.texts == ("said",)  # nobody asks for the texts of what is only counted
    given = ["", "é" * (LONGEST_TEXT // 2), "é" * (LONGEST_TEXT // 2) + "e", None]
    at = pl.Series([0] * 4).cast(pl.Datetime("us", "UTC"))
    events = pl.DataFrame({"word_id": "w", "at": at, "who": "x", "said": given, INGESTED_AT: at, "id64": [0] * 4})
    kept = project(spoken, plan, events.lazy(), texts=True).collect()
    assert kept["said"].to_list() == [hash64(given[0] or ""), hash64(given[1] or ""), None, None]
    assert kept["twice"].to_list() == [hash64(""), None, None, None]
    assert kept[text_column("said")].to_list() == given
    texts = Texts.of(kept, plan.texts)
    assert texts.look_up(kept["said"][:2].to_numpy(), np.ones(2, dtype=bool)).to_list() == given[:2]


def test_every_aggregate_takes_strings_or_says_which_columns_it_takes() -> None:
    for name, aggregate in catalog.AGGREGATES.items():
        if not aggregate.takes_column:
            continue
        if aggregate.takes_string:
            assert view(Aggregation(name, "said", ["1h"])).resolved[f"said_{name}_1h"].kind == "str"
            continue
        with pytest.raises(DefinitionError, match=r"must be a .*column; got 'String'") as refused:
            view(Aggregation(name, "said", ["1h"]))
        assert "string" not in str(refused.value)
    with pytest.raises(DefinitionError, match=r"must be a numeric, boolean or string column; got .Datetime"):
        view(rtml.CountDistinct("at", ["1h"]))
