"""SLAs: what may be promised of what, and what is watched where nothing was."""

from __future__ import annotations

from typing import Any

import pytest

import rtml
from rtml.define.sla import DEFAULTS, agreed
from rtml.errors import RtmlError
from rtml.registry import Registry
from rtml_assets.watch.agreements import agreements


class Sale(rtml.Event):
    at: rtml.Timestamp
    shop: int
    amount: float = rtml.Field(nullable=True)


def source(sla: Any = None) -> rtml.EventSource:
    return rtml.EventSource(name="sales", schema=Sale, timestamp="at", stream=rtml.RedisStream("sales"), sla=sla)


def view(sla: Any = None, of: rtml.EventSource | None = None) -> rtml.StreamFeatureView:
    return rtml.StreamFeatureView(
        name="shop_sales",
        source=of or source(),
        entity=rtml.Entity("shop"),
        features=[rtml.Count(windows=["1h"]), rtml.Mean("amount", windows=["1h"])],
        freshness="3s",
        sla=sla,
    )


def service(sla: Any = None, of: rtml.StreamFeatureView | None = None) -> rtml.FeatureService:
    return rtml.FeatureService("sales_model", features=[of or view()], sla=sla)


REFUSED: list[tuple[Any, str]] = [
    (lambda: rtml.SLA(lag="soon"), r"SLA \(test_sla.py:\d+\): lag: a duration must look like"),
    (lambda: rtml.SLA(late=1.5), "late must be a share between 0 and 1; got 1.5"),
    (lambda: rtml.SLA(nulls={"amount": -1}), r"nulls\['amount'\] must be a share"),
    (lambda: rtml.SLA(nulls=0.1), "nulls must be shares by column"),  # type: ignore[arg-type]
    (lambda: rtml.SLA(objective=1.0), "objective must be a share above 0 and below 1"),
    (lambda: rtml.SLA(availability=1), "availability must be a share above 0 and below 1"),
    (lambda: rtml.SLA(budget="ever"), "budget: a duration must look like"),
    (lambda: rtml.SLA(remedy=("restrat",)), "there is no 'restrat'. Did you mean 'restart'?"),
    (lambda: source({"lag": "5s"}), "source 'sales' .*: sla must be an rtml.SLA; got"),
    (lambda: source(rtml.SLA(p99="5ms")), "sla: a source has no p99; it has freshness, lag"),
    (lambda: source(rtml.SLA(nulls={"amuont": 0.1})), "no column 'amuont' in source 'sales'.*Did you mean 'amount'?"),
    (lambda: source(rtml.SLA(remedy="backfill")), "remedy 'backfill' is none of a source; a source's is 'restart'"),
    (lambda: view(rtml.SLA(lag="5s")), "sla: a view has no lag; it has freshness, nulls"),
    (lambda: view(rtml.SLA(nulls={"amount_mean_2h": 0.1})), "no feature .* Did you mean 'amount_mean_1h'?"),
    (lambda: service(rtml.SLA(remedy=("restart",))), "remedy 'restart' is none of a service; a service has none"),
    (lambda: service(rtml.SLA(nulls={"amount": 0.1})), "sla: a service has no nulls"),
]


@pytest.mark.parametrize(("define", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_a_bound_that_cannot_be_meant_is_refused(define: Any, words: str) -> None:
    with pytest.raises(RtmlError, match=words):
        define()


def test_what_is_left_out_has_the_default_of_its_kind() -> None:
    found = agreements(Registry.of([service(rtml.SLA(p99="25ms"), view(of=source(rtml.SLA(lag="5s"))))]))
    assert set(found) == {"source:sales", "view:shop_sales", "service:sales_model"}
    sales = found["source:sales"]
    assert (sales.sla.lag, sales.sla.heartbeat, sales.sla.late) == ("5s", DEFAULTS["source"].heartbeat, None)
    assert sales.promised == {"lag"}
    assert found["view:shop_sales"].sla.freshness == "3s"
    assert found["view:shop_sales"].promised == set()
    model = found["service:sales_model"]
    assert (model.sla.p99, model.sla.freshness) == ("25ms", "3s")
    assert model.sla.us("p99") == 25_000
    assert agreed("source", None).budget_us == 30 * 86_400_000_000


def test_a_promise_changes_nothing_of_what_a_view_means() -> None:
    plain = Registry.of([view()]).plans["shop_sales"].fingerprint
    promised = view(rtml.SLA(freshness="250ms", nulls={"amount_mean_1h": 0.2}), source(rtml.SLA(lag="1s")))
    assert Registry.of([promised]).plans["shop_sales"].fingerprint == plain


def test_a_remedy_may_be_one_word() -> None:
    assert rtml.SLA(remedy="restart").remedy == ("restart",)
