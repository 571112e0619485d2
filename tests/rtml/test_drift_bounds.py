"""How a service says what drift is: what bounds mean, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rtml import Count, Drift, FeatureService, Sum
from rtml.define.drift import Bounds
from rtml.errors import DefinitionError, UnknownNameError
from tests.rtml.test_definitions import view

VIEW = view(features=[Count(windows=["1h", "24h"]), Sum("items", windows=["1h"])])
COUNT, ITEMS = "user_purchases__count_1h", "user_purchases__items_sum_1h"


def test_a_service_that_says_nothing_is_held_to_the_platforms_bounds() -> None:
    drift = FeatureService("shop", features=[VIEW]).drift
    assert drift is not None
    assert drift.bounds(COUNT) == Bounds() == (0.2, 0.1, 0.1, 0.05, 0.01, 500, "warning")
    assert drift.against == ("training", "week")
    assert FeatureService("shop", features=[VIEW], drift=None).drift is None


def test_a_features_bounds_go_before_the_services_and_those_before_the_platforms() -> None:
    drift = Drift(psi=0.5, minimum=100, features={COUNT: Drift(psi=math.inf, ks=1, severity="critical")})
    FeatureService("shop", features=[VIEW], drift=drift)
    assert drift.bounds(COUNT) == Bounds(psi=math.inf, ks=1, minimum=100, severity="critical")
    assert drift.bounds(ITEMS) == Bounds(psi=0.5, minimum=100)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"psi": 0}, r"Drift \(test_drift_bounds\.py:\d+\): psi must be more than 0; got 0"),
        ({"psi": math.nan}, "psi must be more than 0; got nan"),
        ({"ks": 1.5}, r"ks must be more than 0, and at most 1; got 1\.5"),
        ({"js": True}, "js must be more than 0, and at most 1; got True"),
        ({"nulls": "5%"}, "nulls must be more than 0, and at most 1; got '5%'"),
        ({"unseen": -0.1}, r"unseen must be more than 0, and at most 1; got -0\.1"),
        ({"minimum": 5}, "minimum must be 30 rows or more; got 5"),
        ({"severity": "fatal"}, "severity must be 'critical' or 'warning'; got 'fatal'"),
        ({"sample": 9}, "sample must be 30 rows or more; got 9"),
        ({"against": "week"}, "against must be a list of 'training' and 'week'; got 'week'"),
        ({"against": []}, r"against must be 'training', 'week' or both; got \[\]"),
        ({"features": {COUNT: 0.3}}, r"features\['user_purchases__count_1h'\] must be Drift\(\.\.\.\); got 0\.3"),
        ({"features": {COUNT: Drift(against=["week"])}}, "features, against and sample are of the whole service"),
    ],
)
def test_what_no_bound_can_be_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        Drift(**given)


def test_names_that_nothing_has_are_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"no reference 'weeks' in Drift .*: against\. Did you mean 'week'\?"):
        Drift(against=["weeks"])  # type: ignore[list-item]
    with pytest.raises(UnknownNameError, match=r"no feature 'user_purchases__cout_1h' in service 'shop' .*: drift"):
        FeatureService("shop", features=[VIEW], drift=Drift(features={"user_purchases__cout_1h": Drift(psi=1)}))
    for drift, least in ((Drift(sample=100), "500"), (Drift(features={COUNT: Drift(minimum=60_000)}), "60,000")):
        with pytest.raises(DefinitionError, match=rf"drift: sample must be at least `minimum`, {least} rows; got"):
            FeatureService("shop", features=[VIEW], drift=drift)
    with pytest.raises(DefinitionError, match=r"drift must be Drift\(\.\.\.\) or None; got 0\.2"):
        FeatureService("shop", features=[VIEW], drift=0.2)  # type: ignore[arg-type]
