"""What may be expected: every mistake is told where it is made, with the nearest valid choice."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

import rtml
from rtml import Count, Entity, EventSource, Expect, Mean, RedisStream, StreamFeatureView
from rtml.errors import DefinitionError

BETWEEN = "expect_column_values_to_be_between"


class Order(rtml.Event):
    order_id: str
    at: rtml.Timestamp
    shop: str
    price: float = rtml.Field(nullable=True)
    paid: bool


def source(*quality: Expect) -> EventSource:
    return EventSource(
        name="orders", schema=Order, timestamp="at", event_id="order_id", stream=RedisStream("orders"), quality=quality
    )


def view(*quality: Expect) -> StreamFeatureView:
    return StreamFeatureView(
        name="shop_orders",
        source=source(),
        entity=Entity("shop", join_keys=["shop"]),
        features=[Count(windows=["1h"]), Mean("price", windows=["1h"])],
        quality=quality,
    )


def test_a_check_is_called_by_its_column_and_what_is_expected():
    found = source(
        Expect(BETWEEN, "price", min_value=0, where=pl.col("paid")),
        Expect("expect_column_values_to_not_be_null", "price", mostly=0.9, severity="warning"),
        Expect("expect_compound_columns_to_be_unique", column_list=["shop", "at"]),
        Expect("expect_table_row_count_to_be_between", min_value=1),
        Expect("expect_column_mean_to_be_between", "price", max_value=9, name="cheap", min_rows=30),
    ).expectations
    assert [one.name for one in found] == [
        "price_values_between", "price_values_not_null", "shop_at_compound_unique", "row_count_between", "cheap",
    ]  # fmt: skip
    assert [one.rows for one in found] == [True, True, True, False, False]
    assert [one.blocks for one in found] == [True, False, True, True, True]
    assert str(found[0]) == "expect_column_values_to_be_between(column='price', min_value=0) where col(\"paid\")"
    assert found[4].min_rows == 30


def test_a_view_is_asked_about_its_keys_and_features():
    (found,) = view(Expect(BETWEEN, "price_mean_1h", min_value=0)).expectations
    assert found.name == "price_mean_1h_values_between"
    with pytest.raises(DefinitionError, match=r"unknown column 'price'\. Known: count_1h, price_mean_1h, shop"):
        view(Expect(BETWEEN, "price", min_value=0))


@pytest.mark.parametrize(
    ("expect", "words"),
    [
        (lambda: Expect("expect_column_values_to_be_betwen", "x"), "Did you mean 'expect_column_values_to_be_between'"),
        (lambda: Expect(7), "no such expectation"),  # type: ignore[arg-type]
        (lambda: Expect("expect_column_type_to_be", "x", type_="str"), "the contract fixes the types"),
        (lambda: Expect(BETWEEN, "price", min_valu=0), "no argument 'min_valu'. Did you mean 'min_value'"),
        (lambda: Expect(BETWEEN, min_value=0), "needs the argument 'column'; got min_value"),
        (lambda: Expect(BETWEEN, "price"), "needs min_value or max_value"),
        (lambda: Expect(BETWEEN, "price", min_value=0, mostly=2), "mostly must be a share above 0, up to 1; got 2"),
        (lambda: Expect(BETWEEN, "price", min_value=0, severity="fatal"), "severity must be 'critical' or 'warning'"),  # type: ignore[arg-type]
        (lambda: Expect(BETWEEN, "price", min_value=0, min_rows=-1), "min_rows must be a number of rows; got -1"),
        (
            lambda: Expect("expect_table_column_count_to_equal", value=3, where=pl.col("paid")),
            "this one is about the table",
        ),
    ],
)
def test_what_needs_no_columns_is_told_at_once(expect: Any, words: str) -> None:
    with pytest.raises(DefinitionError) as error:
        expect()
    assert words in str(error.value)
    assert "test_expectations.py:" in str(error.value)


@pytest.mark.parametrize(
    ("quality", "words"),
    [
        ([Expect(BETWEEN, "prise", min_value=0)], "unknown column 'prise'. Did you mean 'price'"),
        ([Expect("expect_column_mean_to_be_between", "shop", min_value=0)], "column 'shop' must be of numbers"),
        ([Expect("expect_column_values_to_match_regex", "price", regex="a")], "column 'price' must be of strings"),
        ([Expect(BETWEEN, "price", min_value=0)] * 2, "two checks are called 'price_values_between'"),
        ([Expect(BETWEEN, "price", min_value=0, name="contract")], "'contract' is a check of the platform itself"),
        ([Expect(BETWEEN, "price", min_value=0, name="a b")], "name must be letters, digits and underscores"),
        ([Expect(BETWEEN, "price", min_value=0, where=pl.col("price"))], "where: its value must be boolean"),
        ([Expect(BETWEEN, "price", min_value=0, where=pl.col("paid").shift())], "must be row by row"),
        (["price > 0"], "quality must be a list of Expect"),
    ],
)
def test_what_needs_the_columns_is_told_by_the_source(quality: list[Any], words: str) -> None:
    with pytest.raises(DefinitionError) as error:
        source(*quality)
    assert "source 'orders' (test_expectations.py:" in str(error.value)
    assert words in str(error.value)


def test_one_expectation_is_no_list_of_them():
    with pytest.raises(DefinitionError, match="quality must be a list"):
        EventSource(
            name="orders", schema=Order, timestamp="at", stream=RedisStream("o"),
            quality=Expect(BETWEEN, "price", min_value=0),  # type: ignore[arg-type]
        )  # fmt: skip
