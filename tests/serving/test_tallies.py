"""What is counted without a lock reads as what the library counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics, generate_latest

from serving.tallies import Distributions, Tallies

BUCKETS = (0.001, 0.01, 1.0)
disable_created_metrics()


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from([0.0, 0.001, 0.5, 1.0, 7.0])), max_size=20))
def test_they_read_as_the_librarys_own(seen: list[tuple[str, float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    counted = Tallies("rtml_x", "Some", ["kind"], ours), Counter("rtml_x", "Some", ["kind"], registry=theirs)
    timed = (
        Distributions("rtml_y", "Others", ["kind"], BUCKETS, ours),
        Histogram("rtml_y", "Others", ["kind"], buckets=BUCKETS, registry=theirs),
    )
    for kind, value in seen:
        for counter in counted:
            counter.labels(kind).inc(2)
        for histogram in timed:
            histogram.labels(kind).observe(value)
    assert generate_latest(ours) == generate_latest(theirs)
