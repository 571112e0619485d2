"""The feature store: frames in, frames out."""

from __future__ import annotations

import polars as pl
import pytest

from rtml.errors import RequestError, UnknownNameError
from rtml.instants import to_datetime
from rtml_assets.store import FeatureStore
from streaming.services import Service, write_services
from tests.rtml_assets.orders import REGISTRY, generate, sales
from tests.rtml_assets.test_publish import publish_all, take

ENTITIES = [{"shop": "a", "till": 0, "big": True}, {"shop": "nobody's", "till": 1, "big": False}]


@pytest.fixture
def boundary(lake, client):
    take(lake, client, generate(1, 300))
    outcomes = publish_all(lake, client)
    write_services(client, [Service.of(sales, REGISTRY.plans)])
    return max(outcome.version.boundary for outcome in outcomes.values() if outcome.version)


@pytest.fixture
def store(settings, boundary):
    with FeatureStore(settings) as store:
        yield store


def test_a_row_an_entity_keys_first_then_features_in_their_types(store, boundary):
    got = store.get_online_features("sales", ENTITIES, at=to_datetime(boundary))
    assert got.columns[:3] == ["shop", "till", "big"]
    assert got.columns[3:] == Service.of(sales, REGISTRY.plans).names
    assert got.select("shop", "till", "big").to_dicts() == ENTITIES
    types = got.schema
    assert (types["till"], types["big"]) == (pl.Int64, pl.Boolean)
    assert types["shop_orders__count_24h"] == types["shop_orders__items_sum_24h"] == pl.Int64
    assert types["shop_orders__price_mean_24h"] == types["till_orders__value_last_3h"] == pl.Float64
    assert got["shop_orders__count_24h"].to_list()[0] > 0
    assert got.row(1, named=True)["shop_orders__count_24h"] == 0
    assert got.row(1, named=True)["shop_orders__price_mean_24h"] is None


def test_a_frame_of_entities_and_statuses_of_the_same_shape(store, boundary):
    frame = pl.DataFrame(ENTITIES).with_columns(more=1)
    got = store.get_online_features("sales", frame, at=boundary)
    statuses = store.statuses("sales", frame, at=boundary)
    assert got.equals(store.get_online_features("sales", ENTITIES, leading_edge="watermark", at=boundary))
    assert statuses.columns == got.columns
    assert set(statuses.dtypes[3:]) == {pl.String}
    # It is servable a day's tile back: whom nobody knows may have come since.
    assert statuses["shop_orders__count_24h"].to_list() == ["stale", "stale"]
    assert statuses["till_orders__value_last_3h"].to_list()[1] == "missing"


def test_entities_may_be_a_mapping_of_columns(store, boundary):
    columns = {"shop": "a", "till": [0, 1], "big": True}
    got = store.get_online_features("sales", columns, at=boundary)
    rows = [{"shop": "a", "till": till, "big": True} for till in (0, 1)]
    assert got.equals(store.get_online_features("sales", rows, at=boundary))
    with pytest.raises(RequestError, match="'till' has 2, 'big' has 1"):
        store.get_online_features("sales", {**columns, "big": [True]}, at=boundary)


def test_the_watermark_is_the_leading_edge(store, boundary):
    assert store.watermark("sales") <= boundary
    with pytest.raises(UnknownNameError, match="Did you mean 'sales'"):
        store.watermark("sale")


def test_no_entities_no_rows(store, boundary):
    got = store.get_online_features("sales", [], at=boundary)
    assert got.height == 0
    assert got.schema["shop_orders__count_24h"] == pl.Int64


def test_a_wrong_key_is_named(store, boundary):
    with pytest.raises(RequestError, match="'till'"):
        store.get_online_features("sales", [{"shop": "a", "till": "0", "big": True}], at=boundary)
