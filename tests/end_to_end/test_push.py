"""Events pushed over HTTP, through the stream, to the features that are served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from rtml import instants
from rtml.columns import TIMESTAMP
from rtml.instants import HOUR, MINUTE, SECOND
from rtml.lake import Lake
from rtml_assets.testing import LocalPlatform
from streaming.producer import Producer
from tests.serving.conftest import Served
from tests.serving.online import eventually

DEFINITIONS = str(Path(__file__).parent / "orders_pushed.py")


class Shops:
    """A platform, and a feature server that it is pushed to."""

    def __init__(self, platform: LocalPlatform, served: Served) -> None:
        self.platform, self.served = platform, served

    def push(self, *events: Any, source: str = "orders") -> httpx.Response:
        return self.served.http.post(f"/v1/events/{source}", json={"events": list(events)})

    def features(self, shop: str, after: str) -> list[Any]:
        """A shop's features, when all is servable that had been pushed by an answer's `ingested_at`."""
        return self._row("sales", {"shop": shop}, after)

    def pings(self, host: int, after: str) -> list[Any]:
        return self._row("uptime", {"host": host}, after)

    def _row(self, service: str, entity: dict[str, Any], after: str) -> list[Any]:
        def ask() -> dict[str, Any]:
            return self.served.http.post(f"/v1/features/{service}", json={"entities": [entity]}).json()

        eventually(lambda: (ask().get("watermark") or "") > after)
        return ask()["rows"][0]


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shops]:
    with LocalPlatform(DEFINITIONS) as platform:
        served = Served(platform.redis_url, tmp_path_factory.mktemp("served"))
        yield Shops(platform, served)
        code, said = served.end()
        assert (code, said) == (0, "")


def order(number: int, shop: str, amount: float = 1.0, ago: int = SECOND, **more: Any) -> dict[str, Any]:
    at = instants.to_text(instants.now() - ago)
    return {"order_id": f"{shop}-{number}", "at": at, "shop": shop, "amount": amount, **more}


def test_what_is_pushed_is_served_and_counts_once_however_often(shops: Shops) -> None:
    one = order(1, "once", 5.0)
    answer = shops.served.http.post("/v1/events/orders", json=one)  # alone, to one of two partitions
    assert answer.status_code == 200
    told = answer.json()
    assert told == {"accepted": 1, "refused": [], "late": [], "idempotent": True, "ingested_at": told["ingested_at"]}
    assert shops.features("once", told["ingested_at"]) == [1, 5.0, 5.0]

    again = shops.push(one, order(2, "once", 7.0), one).json()
    assert (again["accepted"], again["refused"]) == (3, [])
    assert shops.features("once", again["ingested_at"]) == [2, 12.0, 7.0]
    # A batch whose answer was lost is pushed once more.
    many = [order(number, "once", 1.0) for number in range(10, 1_110)]
    for _ in range(2):
        told = shops.push(*many).json()
        assert told["accepted"] == 1_100
    assert shops.features("once", told["ingested_at"])[:2] == [1_102, 1_112.0]


def test_a_bad_event_among_good_ones_is_named_and_the_others_count(shops: Shops) -> None:
    batch = [
        order(1, "mixed"),
        order(2, "mixed", -1.0),
        order(3, "mixed", ago=HOUR // 2),
        {"order_id": "mixed-4", "shop": "mixed"},
        7,
        order(5, "mixed", ago=-10 * MINUTE),
        order(6, "mixed", 3, note="of no column"),
    ]
    answer = shops.push(*batch)
    told = answer.json()
    assert (answer.status_code, told["accepted"], told["late"]) == (200, 3, [2])
    assert [(one["index"], one["reason"], one["event"]) for one in told["refused"]] == [
        (1, "out_of_range", "mixed-2"),
        (3, "missing_field", "mixed-4"),
        (4, "not_object", None),
        (5, "future", "mixed-5"),
    ]
    assert told["refused"][0]["message"] == "field 'amount' must be greater than or equal to 0; got -1.0"
    assert "field 'at' is missing" in told["refused"][1]["message"]
    assert "field 'amount' is missing" in told["refused"][1]["message"]
    assert shops.features("mixed", told["ingested_at"])[:2] == [2, 4.0]  # the late one counts offline for now
    shops.platform.settle()
    # What was refused at once is in no quarantine: who sent it knows.
    assert not Path(Lake(shops.platform.lake).quarantine("orders")).exists()
    assert Path(Lake(shops.platform.lake).raw("orders")).exists()

    none = shops.push(order(1, "mixed", -1.0))
    error = none.json()["error"]
    assert (none.status_code, error["code"], error["request_id"]) == (422, "refused", none.headers["x-request-id"])
    assert error["message"].startswith("none of 1 events was accepted; event 0: field 'amount' must be")
    assert (error["pushed"]["accepted"], error["pushed"]["refused"][0]["reason"]) == (0, "out_of_range")


def test_partitions_are_those_of_the_producer(shops: Shops) -> None:
    client, source = shops.platform.client, shops.platform.registry.source("orders")
    names = [f"shop {number}" for number in range(40)]
    pushed = [order(number, name) for number, name in enumerate(names)]
    assert shops.push(*pushed).json()["accepted"] == 40
    at = pl.Series([instants.now()] * 40).cast(TIMESTAMP)
    frame = pl.DataFrame({"order_id": [f"p{n}" for n in range(40)], "at": at, "shop": names}).with_columns(
        amount=pl.lit(1.0)
    )
    Producer(client, source, key=["shop"]).send(frame)
    for partition in range(2):
        entries: Any = client.xrange(source.stream.key(partition))
        found = [pl.read_json(fields[b"data"]) for _, fields in entries if b"data" in fields]
        by_way = {
            way: {row["shop"].item() for row in found if row["order_id"].item().startswith("p") == way
                  and row["shop"].item().startswith("shop ")}
            for way in (True, False)
        }  # fmt: skip
        assert by_way[True] == by_way[False]
        assert by_way[True]


def test_a_source_without_event_ids_says_that_each_push_counts(shops: Shops) -> None:
    ping = {"at": instants.now(), "host": 3}
    for count in (1, 2):
        told = shops.push(ping, source="pings").json()
        assert (told["accepted"], told["idempotent"]) == (1, False)
        assert shops.pings(3, told["ingested_at"]) == [count]


def test_what_no_text_can_hold_stops_no_flow(shops: Shops) -> None:
    """Whoever writes to the stream himself may write anything; a flow that fell over it would do so for ever."""
    half = b'{"\\ud800": 1, "host": "\\ud800"}'
    shops.platform.send_bytes("pings", [b'{"at": "\xff", "host": 3}', half, b"\xff", b"[" * 100_000])
    shops.platform.settle()
    stored = pl.scan_delta(Lake(shops.platform.lake).quarantine("pings")).collect()
    assert sorted(stored["reason"]) == ["missing_field", "not_json", "not_json", "not_json"]


def test_a_source_on_replay_time_takes_no_events_of_now(shops: Shops) -> None:
    at = pl.Series([instants.to_instant("2024-01-01T00:00:00Z")]).cast(TIMESTAMP)
    stamped = pl.DataFrame({"at": at, "host": [4]})
    with pytest.raises(Exception, match="would go back in time"):  # it runs on the broker's clock by now
        shops.platform.send("pings", stamped, ingested_at="at")
    later = pl.DataFrame({"at": pl.Series([instants.now() + SECOND]).cast(TIMESTAMP), "host": [4]})
    shops.platform.send("pings", later, ingested_at="at")
    before: Any = shops.platform.client.xlen("pings")
    answer = shops.push({"at": instants.now(), "host": 4}, source="pings")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "replay_time")
    assert "runs on replay time" in answer.json()["error"]["message"]
    assert shops.platform.client.xlen("pings") == before
