"""The demo's parts: its truth is right by hand, and its view shows what it is given."""

import io
import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import polars as pl
import pytest
from rich.console import Console

import rtml
from examples.flights.features import departures
from quality.parity import Parity
from rtml import (
    Count,
    Entity,
    EventSource,
    FeatureService,
    Last,
    Max,
    Mean,
    RedisStream,
    Stddev,
    StreamFeatureView,
    Sum,
)
from rtml.errors import InstantError, SettingsError
from rtml.settings import Settings
from rtml_assets.demo import check as check_module
from rtml_assets.demo.check import SAMPLE, Checked, Mismatch, agree, sample_entities
from rtml_assets.demo.flights import BOUNDARY, ONE_DAY, read_flights
from rtml_assets.demo.once import Outcome
from rtml_assets.demo.phases import Phases
from rtml_assets.demo.recompute import recompute
from rtml_assets.demo.run import run_demo
from rtml_assets.demo.settings import MARK, demo_settings, take_database, wipe
from rtml_assets.demo.view import FEATURES, FLIGHTS, Frame, render
from rtml_assets.runtime.progress import progress_bar
from rtml_assets.tables.canary import Canary
from serving.features import FeatureVectors

if TYPE_CHECKING:
    from redis import Redis

    from rtml_assets.demo.stage import Stage
    from serving.client import FeatureClient

AT = datetime(2024, 1, 2, 0, 7, tzinfo=UTC)


class Payment(rtml.Event):
    event_id: str
    event_time: rtml.Timestamp
    card: int
    amount: float = rtml.Field(nullable=True)


payments = EventSource(
    name="payments", schema=Payment, timestamp="event_time", event_id="event_id", stream=RedisStream("payments")
)
spent = StreamFeatureView(
    name="spent",
    source=payments,
    entity=Entity("card"),
    where=pl.col("card") < 9,
    derive={"large": pl.col("amount") > 5},
    features=[
        Count(windows=["30m", "2d"]),
        Sum("amount", windows=["30m"]),
        Mean("large", windows=["2d"]),
        Max("amount", windows=["30m"]),
        Stddev("amount", windows=["30m"]),
        Last("amount", windows=["2d"]),
    ],
)
fraud = FeatureService("fraud", features=[spent])


def events_of(*rows):
    """(minutes before AT, id64, card, amount)"""
    return pl.LazyFrame(
        {
            "event_time": [AT - timedelta(minutes=minutes) for minutes, *_ in rows],
            "id64": [id64 for _, id64, *_ in rows],
            "card": [card for *_, card, _ in rows],
            "amount": [amount for *_, amount in rows],
        },
        schema_overrides={"event_time": pl.Datetime("us", "UTC"), "id64": pl.Int64, "amount": pl.Float64},
    )


def truth(cards, *rows):
    found = recompute(fraud, {"payments": events_of(*rows)}, pl.DataFrame({"card": cards}), AT)
    assert found.columns == [f"spent__{name}" for name in spent.resolved]
    return [dict(zip(spent.resolved, row, strict=True)) for row in found.rows()]


def test_windows_are_closed_on_the_left_and_open_on_the_right():
    (row,) = truth([1], (0, 1, 1, 1.0), (30, 2, 1, 2.0), (30.1, 3, 1, 4.0))
    assert row["count_30m"] == 1
    assert row["amount_sum_30m"] == 2.0
    assert row["count_2d"] == 2


def test_long_windows_are_floored_to_the_finest_tile():
    edge = 2 * 24 * 60
    (row,) = truth([1], (edge, 1, 1, 1.0), (edge + 2, 2, 1, 1.0), (edge + 2.1, 3, 1, 1.0))
    assert row["count_2d"] == 2


def test_rows_keep_their_order_and_empty_ones_their_documented_values():
    two, never, one = truth([2, 7, 1], (1, 1, 1, 1.0), (1, 2, 2, None), (2, 3, 2, 3.0))
    assert one["count_30m"] == 1
    assert one["amount_stddev_30m"] is None
    assert two["count_30m"] == 2
    assert two["amount_max_30m"] == 3.0
    assert two["amount_last_2d"] == 3.0
    assert never == dict.fromkeys(spent.resolved, None) | {"count_30m": 0, "count_2d": 0}


def test_ties_go_by_unsigned_id_and_what_is_filtered_never_counts():
    rows = truth([1, 9], (1, -1, 1, 9.0), (1, 5, 1, 1.0), (1, 1, 9, 1.0))
    assert rows[0]["amount_last_2d"] == 9.0
    assert rows[0]["large_mean_2d"] == 0.5
    assert rows[1]["count_2d"] == 0


@pytest.mark.parametrize(
    ("aggregate", "served", "expected", "same"),
    [
        ("count", 3, 3, True),
        ("count", 3, 4, False),
        ("count", 0, None, False),
        ("mean", None, None, True),
        ("mean", None, 0.0, False),
        ("mean", 1.0 + 1e-12, 1.0, True),
        ("mean", 1.001, 1.0, False),
        ("mean", 1e12 + 1, 1e12, True),
        ("stddev", 1.0 + 1e-7, 1.0, True),
        ("stddev", 1.0 + 1e-5, 1.0, False),
    ],
)
def test_values_agree_up_to_rounding(aggregate, served, expected, same):
    assert agree(aggregate, served, expected) is same


def test_samples_are_seeded_and_each_row_is_different():
    events = events_of(*[(minute, minute, minute % 300, 1.0) for minute in range(900)])
    sample = sample_entities(events, ["card"])
    assert sample.height == sample.n_unique() == SAMPLE
    assert sample.equals(sample_entities(events, ["card"]))


def test_the_demo_has_a_home_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RTML_PORT", "9123")
    settings = demo_settings(Settings(port=9123, lake="s3://somewhere", accept_stamps=False))
    assert settings.home == str(tmp_path / ".rtml" / "demo")
    assert settings.lake_root == str(tmp_path / ".rtml" / "demo" / "lake")
    assert settings.accept_stamps
    assert settings.port == 9123


def test_each_start_wipes_the_demos_home_only(tmp_path):
    (tmp_path / "demo" / "lake").mkdir(parents=True)
    (tmp_path / "lake").mkdir()
    wipe(Settings(home=str(tmp_path / "demo")))
    assert list((tmp_path / "demo").iterdir()) == []
    assert (tmp_path / "lake").exists()


def earliest(frame) -> datetime:
    return min(frame["ingested_at"].to_list())


def latest(frame) -> datetime:
    return max(frame["ingested_at"].to_list())


def test_history_and_what_is_coming_meet_at_the_boundary():
    flights = read_flights(departures, BOUNDARY + ONE_DAY)
    assert flights.until == BOUNDARY + timedelta(minutes=15)
    assert latest(flights.history) < flights.until <= earliest(flights.coming)
    assert latest(flights.coming) < BOUNDARY + ONE_DAY


def test_without_the_flights_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"rtml\[demo\]"):
        read_flights(departures, BOUNDARY)


class FakeRedis:
    """As much of a client as taking a database needs."""

    keys: dict[str, Any]

    def __init__(self, **keys):
        self.keys = keys

    def dbsize(self):
        return len(self.keys)

    def exists(self, key):
        return int(key in self.keys)

    def flushdb(self):
        self.keys.clear()

    def set(self, key, value):
        self.keys[key] = value


def test_a_database_with_anything_else_is_left_alone():
    own = FakeRedis()
    take_database(cast("Redis", own))
    own.set("rtml:live:spent", "x")
    take_database(cast("Redis", own))
    assert own.keys == {MARK: 1}
    other = FakeRedis(precious=1)
    with pytest.raises(SettingsError, match="choose another number"):
        take_database(cast("Redis", other))
    assert other.keys == {"precious": 1}


def frame_of(**changes):
    flows: dict[tuple[str, str], dict[str, float]] = {
        (source, flow): {} for source in ("departures", "arrivals") for flow in ("tiles", "mirror")
    }
    names = list(FEATURES)
    served = FeatureVectors(
        features=names,
        rows=[[1234.5] * len(names)] * len(FLIGHTS),
        status={name.split("__")[0]: ["fresh", "stale", "missing"] for name in names},
        at=int(datetime(2013, 3, 2, 12, tzinfo=UTC).timestamp() * 1e6),
        watermark=None,
        age_ms=0.0,
    )
    given: dict[str, Any] = {
        "speed": 3600.0,
        "sent": {"departures": 10, "arrivals": 12},
        "total": 100,
        "rates": {"departures": 60.4, "arrivals": 55.0},
        "figures": flows | {("departures", "tiles"): {"late": 3, "freshness_p50_ms": 1.25, "freshness_p99_ms": 2500.0}},
        "served": served,
        "trouble": "",
        "restarts": 0,
        "home": ".rtml/demo",
        "server_url": "http://127.0.0.1:8815",
        "dagster_url": "http://127.0.0.1:3000",
    }
    return Frame(**(given | changes))


def shown(frame):
    file = io.StringIO()
    Console(file=file, width=140, force_terminal=False).print(render(frame))
    return file.getvalue()


def test_a_frame_shows_arrivals_features_and_links():
    text = shown(frame_of())
    assert "Sat 02 March 12:00 UTC" in text
    assert "1h a second" in text
    assert "22 of 100 events" in text
    assert "1.2 ms" in text
    assert "2.5 s" in text
    assert "JFK → LAX, B6" in text
    assert text.count("1,234") == len(FEATURES) * len(FLIGHTS)
    assert "http://127.0.0.1:3000" in text
    assert "http://127.0.0.1:8815/docs" in text
    assert len(text.splitlines()) <= 26


def test_a_frame_says_what_is_wrong_and_when_march_is_through():
    text = shown(frame_of(served=None, trouble="no features of 'x'", total=22, restarts=2))
    assert "no features of 'x'" in text
    assert "March is through" in text
    assert "2 processes ended" in text


def test_phases_keep_their_seconds_and_fill_their_bars():
    with progress_bar(Console(file=io.StringIO())) as bars:
        phases = Phases(bars)
        with phases.phase("one", "first", 3) as bar:
            bar.step("a")
            bar.at(1, 4, "b")
        (task,) = bars.tasks
        assert (task.completed, task.total) == (4, 4)
    assert list(phases.seconds) == ["one"]


def served_as(found, **changes):
    rows = [list(row) for row in found.rows()]
    for place, value in changes.items():
        rows[0][found.columns.index(place)] = value
    return {"at": "2024-01-02T00:07:00Z", "features": found.columns, "rows": rows, "status": {"spent": ["fresh"]}}


@pytest.mark.parametrize(("changes", "count"), [({}, 0), ({"spent__count_30m": 2, "spent__amount_max_30m": None}, 2)])
def test_a_wrong_value_is_found(monkeypatch, changes, count):
    events = {"payments": events_of((1, 1, 1, 1.0), (2, 2, 1, 3.0), (3, 3, 1, 5.0))}
    entities = pl.DataFrame({"card": [1]})
    answer = served_as(recompute(fraud, events, entities, AT), **changes)
    monkeypatch.setattr(check_module, "ask", lambda *_: answer)
    found = check_module.check("", 0, fraud, events, entities)
    assert (found.vectors, found.values, len(found.mismatches)) == (1, len(spent.resolved), count)
    assert found.telling == len(spent.resolved) - 1
    assert {mismatch.feature for mismatch in found.mismatches} == set(changes)


def test_a_one_day_outcome_with_a_problem_fails_and_is_written(tmp_path):
    wrong = Mismatch({"card": 1}, "spent__count_30m", 2, 3)
    checked = Checked("2024-01-02T00:07:00Z", 200, 1_200, 900, {"fresh": 200}, [wrong], pl.DataFrame())
    canary = Canary(Parity(), vectors=200, other_version=0, incomplete=0, publishing=0, unseen=0)
    phases = {"land": 1.5, "replay": 2.0}
    outcome = Outcome(50, 2, 0, checked, [wrong], canary, {"p50": 1.0, "p99": 2.0}, phases, ["1 is wrong"])
    file = io.StringIO()
    assert outcome.tell(Console(file=file, width=140), tmp_path) == 1
    text = file.getvalue()
    assert "spent__count_30m of {'card': 1}: served 2, not 3" in text
    assert "3.5 in all" in text
    written = json.loads((tmp_path / "demo.json").read_text())
    assert (written["events"], written["served"], written["mismatches"]) == (50, 200, 1)
    assert written["training_mismatches"] == 1
    assert written["freshness_ms"] == {"p50": 1.0, "p99": 2.0}
    assert written["phases"] == {"land": 1.5, "replay": 2.0}


def test_a_run_that_fails_leaves_no_summary_of_the_last_one(tmp_path, monkeypatch):
    def fail(_: str) -> None:
        raise SettingsError("it failed")

    monkeypatch.setenv("RTML_HOME", str(tmp_path))
    monkeypatch.setattr("rtml_assets.demo.run.load", fail)
    (tmp_path / "demo.json").write_text("{}")
    with pytest.raises(SettingsError, match="it failed"):
        run_demo(Console(file=io.StringIO()), once=True, speed=None)
    assert not (tmp_path / "demo.json").exists()


def test_the_view_keeps_what_it_last_read_for_a_while(monkeypatch):
    from rtml_assets.demo import show

    answers = [frame_of().served, InstantError("apart"), InstantError("apart")]

    class Features:
        def get(self, *_, **__):
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

    latest = show.Latest(cast("FeatureClient", Features()))
    first, _ = latest.read()
    assert latest.read() == (first, "")
    monkeypatch.setattr(show, "PATIENCE_SECONDS", -1.0)
    assert latest.read() == (first, "apart")


def test_a_replay_that_fails_ends_the_show():
    from rtml_assets.demo.show import Replay

    class Broken:
        def send(self, frame, *, ingested_at):
            raise OSError("gone")

    coming = pl.DataFrame({"ingested_at": [AT]}, schema={"ingested_at": pl.Datetime("us", "UTC")})
    stage = SimpleNamespace(flights={"a": SimpleNamespace(coming=coming)}, producers={"a": Broken()})
    with Replay(cast("Stage", stage), 3600) as replay:
        replay._thread.join()
        assert replay.total == 1
        assert replay.counts == {"a": 0}
        with pytest.raises(OSError, match="gone"):
            replay.check()
