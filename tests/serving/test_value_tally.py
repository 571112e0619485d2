"""Which served values count as values, and which of them as nulls."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from rtml.instants import BEGINNING
from rtml.staleness import OnStale, Status
from serving.features import FeatureVectors
from serving.value_tally import ValueTally


def tallied(on_stale: OnStale, rows: list[tuple[Status, int, float | None]]) -> tuple[float | None, float | None]:
    """Count rows of a status, the newest event of the stream's, and a value; return values and nulls."""
    registry = CollectorRegistry()
    vectors = FeatureVectors(
        ["v__a"],
        [[value] for _, _, value in rows],
        {"v": [status for status, _, _ in rows]},
        at=5,
        watermark=5,
        age_ms=0.0,
        last_ingested={"v": [newest for _, newest, _ in rows]},
        on_stale=on_stale,
    )
    ValueTally(registry).take(vectors)
    labels = {"view": "v", "feature": "a"}
    return (
        registry.get_sample_value("rtml_feature_values_total", labels),
        registry.get_sample_value("rtml_feature_nulls_total", labels),
    )


def test_what_an_unknown_entity_lacks_is_no_null() -> None:
    rows: list[tuple[Status, int, float | None]] = [
        ("fresh", 1, 1.0),
        ("fresh", 1, None),
        ("stale", 1, None),
        ("expired", 1, None),
        ("missing", BEGINNING, None),
        ("stale", BEGINNING, None),
        ("partial", BEGINNING, None),
    ]
    assert tallied("serve", rows) == (4, 3)


def test_what_is_given_instead_is_no_value() -> None:
    rows: list[tuple[Status, int, float | None]] = [("fresh", 1, 1.0), ("stale", 1, 0.0), ("expired", 1, None)]
    assert tallied("serve", rows) == (3, 1)
    assert tallied("refuse", rows) == (2, 0)
    assert tallied("default", rows) == (1, 0)
