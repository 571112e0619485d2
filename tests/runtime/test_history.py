"""Histories in files: every kind gives the same events, in the contract's types."""

from datetime import UTC, datetime

import polars as pl
import pytest

import rtml
from rtml import EventSource, RedisStream
from rtml.errors import RequestError
from rtml_assets.runtime.history import between, read_example, read_file


class Payment(rtml.Event):
    event_id: str
    paid_at: rtml.Timestamp
    card: int
    amount: float = rtml.Field(nullable=True)


PAYMENTS = EventSource(
    name="payments", schema=Payment, timestamp="paid_at", event_id="event_id", stream=RedisStream("payments")
)
TIMES = [datetime(2024, 1, day, 12, tzinfo=UTC) for day in (1, 2, 3)]
ROWS = pl.DataFrame(
    {"event_id": ["7", "8", "9"], "paid_at": TIMES, "card": [1, 2, 3], "amount": [1.0, None, 3.0]},
    schema_overrides={"paid_at": pl.Datetime("us", "UTC")},
)
STAMPED = ROWS.with_columns(ingested_at=pl.col("paid_at") + pl.duration(minutes=1))
AS_TEXT = pl.col("paid_at", "ingested_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")


def write(frame, path):
    {".parquet": frame.write_parquet, ".csv": frame.write_csv, ".ndjson": frame.write_ndjson}[path.suffix](path)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".ndjson"])
def test_all_files_give_the_same_events(tmp_path, suffix):
    frame = STAMPED if suffix == ".parquet" else STAMPED.with_columns(AS_TEXT)
    read = read_file(PAYMENTS, write(frame, tmp_path / f"events{suffix}"))
    assert read.equals(STAMPED)
    assert read.schema == STAMPED.schema


def test_times_may_be_microseconds(tmp_path):
    frame = STAMPED.with_columns(pl.col("paid_at", "ingested_at").dt.epoch("us"))
    assert read_file(PAYMENTS, write(frame, tmp_path / "events.csv")).equals(STAMPED)


def test_without_stamps_events_arrived_when_they_happened(tmp_path):
    read = read_file(PAYMENTS, write(ROWS, tmp_path / "events.parquet"))
    assert read["ingested_at"].to_list() == TIMES


def test_stamps_may_have_another_name(tmp_path):
    frame = STAMPED.rename({"ingested_at": "seen"})
    assert read_file(PAYMENTS, write(frame, tmp_path / "events.parquet"), "seen").equals(STAMPED)


def test_only_what_arrived_between_is_kept():
    assert between(STAMPED, "2024-01-02", "2024-01-03")["event_id"].to_list() == ["8"]
    assert between(STAMPED, None, None).height == 3


@pytest.mark.parametrize(
    ("name", "words"), [("events.xls", "--from must be a .parquet"), ("gone.csv", "there is no file")]
)
def test_what_cannot_be_read_is_refused(tmp_path, name, words):
    with pytest.raises(RequestError, match=words):
        read_file(PAYMENTS, tmp_path / name)


def test_a_file_without_event_times_is_refused(tmp_path):
    path = write(STAMPED.rename({"paid_at": "paid"}), tmp_path / "events.parquet")
    with pytest.raises(RequestError, match="Did you mean 'paid'"):
        read_file(PAYMENTS, path)


def test_naive_times_are_refused(tmp_path):
    path = write(STAMPED.with_columns(pl.col("paid_at").dt.replace_time_zone(None)), tmp_path / "events.parquet")
    with pytest.raises(RequestError, match="'paid_at' must be times with a zone"):
        read_file(PAYMENTS, path)


def test_an_example_brings_its_own_history(tmp_path):
    (tmp_path / "data.py").write_text(
        "import polars as pl\n"
        "def payments():\n"
        "    return pl.DataFrame({'event_id': ['7'], 'paid_at': [0], 'card': [1], 'ingested_at': [60_000_000]})\n"
    )
    read = read_example(PAYMENTS, str(tmp_path / "features.py"))
    assert read["ingested_at"].to_list() == [datetime(1970, 1, 1, 0, 1, tzinfo=UTC)]


def test_an_example_without_history_is_refused(tmp_path):
    with pytest.raises(RequestError, match="--from"):
        read_example(PAYMENTS, str(tmp_path / "features.py"))


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "event_id,paid_at,card\na,nonsense,1\n", "column 'paid_at': could not find"),
        ("a.csv", "event_id,paid_at,ingested_at\na,2024-01-01T00:00:00Z,no\n", "column 'ingested_at': "),
        ("a.csv", "event_id,paid_at\na,2024-01-01T00:00:00Z\nb,soon\n", "column 'paid_at': .*soon"),
        (
            "a.csv",
            "event_id,paid_at,card\na,2024-01-01T00:00:00Z,x\n",
            "could not parse `x` as dtype `i64` at column 'card'",
        ),
        ("a.csv", "", "empty CSV"),
        ("a.ndjson", "not json\n", "character 0"),
        ("a.jsonl", '{"event_id": "a", "paid_at": "x", "card": "y"}\n', "cannot parse 'y'"),
        ("a.parquet", "junk", "parquet: "),
    ],
)
def test_what_is_broken_is_named_in_a_line(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match=words) as refused:
        read_file(PAYMENTS, tmp_path / name)
    assert str(refused.value).startswith(str(tmp_path / name))
    assert "\n" not in str(refused.value)


def test_a_renamed_column_of_stamps_is_named_as_in_the_file(tmp_path):
    (tmp_path / "a.csv").write_text("event_id,paid_at,seen\na,2024-01-01T00:00:00Z,no\n")
    with pytest.raises(RequestError, match="column 'seen': "):
        read_file(PAYMENTS, tmp_path / "a.csv", "seen")
