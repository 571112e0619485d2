"""Statuses over all that can be true of a value, and what a service may say about old ones."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtml import Count, FeatureService, Mean, Sum
from rtml.algebra.family import Output
from rtml.define.defaults import _fits
from rtml.errors import DefinitionError, UnknownNameError
from rtml.instants import BEGINNING, DAY
from rtml.registry import Registry
from rtml.staleness import ON_STALE, REPLACED, is_expired, is_stale, status_of
from streaming.services import Service
from tests.rtml.test_definitions import view

AGES = st.integers(-DAY, 40 * DAY)
BOUNDS = st.integers(1, 30 * DAY)
AT = 1_700_000_000_000_000


@given(
    stream=AGES | st.none(),
    entity=AGES | st.none(),
    ttl=BOUNDS | st.none(),
    freshness=BOUNDS,
    epoch=st.integers(0, DAY),
    partial=st.booleans(),
    damaged=st.booleans(),
)
def test_nothing_is_fresh_beyond_a_bound(
    stream: int | None,
    entity: int | None,
    ttl: int | None,
    freshness: int,
    epoch: int,
    partial: bool,
    damaged: bool,
) -> None:
    """Ages are those of the stream's position and of the entity's last event; none: there never was one."""
    reach = BEGINNING if stream is None else AT - stream
    known = entity is not None
    old = known and is_expired(AT, AT - entity, ttl)  # type: ignore[operator]
    behind = is_stale(AT, reach, freshness, epoch)
    status = status_of(damaged=damaged, known=known, expired=old, stale=behind, partial=partial)
    too_old = ttl is not None and entity is not None and entity > ttl
    too_far = stream is None or stream > freshness + epoch
    if too_old or too_far:
        assert status not in ("fresh", "missing", "partial")
    if status == "fresh":
        assert not any((too_old, too_far, partial, damaged))
    if status == "missing":
        assert not any((known, too_far, partial, damaged))
    if not damaged and too_old:
        assert status == "expired"


def test_the_first_thing_that_is_true_is_said() -> None:
    order = ["damaged", "expired", "stale", "partial", "missing"]
    for truths in itertools.product([False, True], repeat=5):
        true = dict(zip(order, truths, strict=True))
        if true["missing"] and true["expired"]:
            continue  # what was never seen has no last event
        status = status_of(
            damaged=true["damaged"],
            known=not true["missing"],
            expired=true["expired"],
            stale=true["stale"],
            partial=true["partial"],
        )
        assert status == next((word for word in order if true[word]), "fresh")


def test_an_entity_that_nothing_is_known_of_cannot_expire() -> None:
    assert status_of(damaged=False, known=False, expired=True, stale=False, partial=False) == "missing"


def test_no_fresh_value_is_replaced_and_no_damaged_one() -> None:
    assert set(REPLACED) == set(ON_STALE)
    for statuses in REPLACED.values():
        assert statuses <= {"stale", "expired"}


VIEW = view(features=[Count(windows=["1h"]), Sum("items", windows=["1h"]), Mean("items", windows=["1h"])])
COUNT, ITEMS, MEAN = (f"user_purchases__{name}_1h" for name in ("count", "items_sum", "items_mean"))


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"on_stale": "refuze"}, "on_stale must be one of serve, refuse, default; got 'refuze'. Did you mean 'refuse'"),
        ({"on_stale": None}, "on_stale must be one of serve, refuse, default; got None"),
        ({"defaults": {COUNT: 1}}, "under on_stale='default' only; it is 'serve', and there is one for"),
        ({"on_stale": "refuse", "defaults": {COUNT: 1}}, "under on_stale='default' only; it is 'refuse'"),
        ({"on_stale": "default", "defaults": [1]}, r"defaults must be a mapping of view__feature to values; got \[1\]"),
        *(
            ({"on_stale": "default", "defaults": {column: value}}, f"must be {words}, or None; got")
            for column, value, words in [
                (COUNT, 1.0, "an integer of 64 bits"),
                (COUNT, True, "an integer of 64 bits"),
                (COUNT, 2**63, "an integer of 64 bits"),
                (ITEMS, "1", "an integer of 64 bits"),
                (MEAN, math.nan, "a finite number"),
                (MEAN, 10**400, "a finite number"),
                (MEAN, [1.0], "a finite number"),
            ]
        ),
    ],
)
def test_what_no_service_can_do_is_refused(given_: dict[str, Any], words: str) -> None:
    with pytest.raises(DefinitionError, match=rf"service 'shop' \(test_staleness\.py:\d+\): .*{words}"):
        FeatureService("shop", features=[VIEW], **given_)


def test_a_default_is_for_a_feature_of_the_service() -> None:
    with pytest.raises(UnknownNameError, match=r"no feature 'user_purchases__cout_1h' in service 'shop' .*: defaults"):
        FeatureService("shop", features=[VIEW], on_stale="default", defaults={"user_purchases__cout_1h": 1})


def test_a_record_has_defaults_of_the_features_types_and_means_the_same() -> None:
    plain = FeatureService("shop", features=[VIEW])
    given_ = FeatureService("shop", features=[VIEW], on_stale="default", defaults={MEAN: 1, COUNT: None, ITEMS: 2})
    plans = Registry.of([plain]).plans
    record = Service.of(given_, plans)
    assert (record.on_stale, record.defaults) == ("default", {MEAN: 1.0, COUNT: None, ITEMS: 2})
    assert isinstance(record.defaults[MEAN], float)
    assert record.means_the_same(Service.of(plain, plans))
    assert record != Service.of(plain, plans)


def test_a_default_string_is_one_that_can_be_served() -> None:
    assert [_fits(Output("str"), text) for text in ("Zürich", "", "\ud800")] == [True, True, False]
