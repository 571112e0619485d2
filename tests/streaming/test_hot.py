"""The raw records of a hot tile: all are found, none that is not there, and they take little more than their bytes."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from streaming.hot import PER_BUCKET, Hot

WIDTH, PAYLOAD = 21, 9
KEY = WIDTH - PAYLOAD


def made(rng: random.Random, count: int, ids: int) -> dict[bytes, bytes]:
    """Records of their own times, with so many different ids: one of each, and those of few meet in time alone."""
    times = rng.sample(range(10**6), count)
    found = [time.to_bytes(4, "little") + rng.randrange(ids).to_bytes(8, "little") for time in times]
    return {key: key + rng.randbytes(PAYLOAD) for key in found}


@pytest.mark.parametrize("ids", [1, 2**64])
@pytest.mark.parametrize("before", [0, 1, 15, 65, 3_000])
def test_every_record_is_admitted_once(before: int, ids: int) -> None:
    rng = random.Random(before)
    records = list(made(rng, 5_000, ids).values())
    hot = Hot(b"".join(records[:before]), WIDTH, PAYLOAD, before)
    at = before
    while at < len(records):
        step = rng.choice([1, 3, 40, 700])
        again = rng.choices(records[: at + 1], k=3)
        others = [record[:KEY] + bytes(PAYLOAD) for record in again]
        assert hot.admit(records[at : at + step]) == [None] * len(records[at : at + step])
        assert hot.admit([*again, *others]) == 2 * again
        at += step
    assert hot.admit(records) == records
    assert hot.size == len(records) * WIDTH
    assert not hot.damaged


def test_duplicates_are_found_within_what_is_admitted() -> None:
    (first, second) = made(random.Random(1), 2, 2**64).values()
    conflicting = first[:KEY] + second[KEY:]
    hot = Hot(b"", WIDTH, PAYLOAD, 0)
    assert hot.admit([first, second, first, conflicting]) == [None, None, first, first]
    assert hot.size == 2 * WIDTH


def test_a_key_within_other_records_is_none() -> None:
    """Zeros everywhere: the bytes of a key are in many places where no record begins."""
    records = [time.to_bytes(4, "big") + bytes(8) + bytes(PAYLOAD) for time in range(0, 400, 2)]
    hot = Hot(b"".join(records), WIDTH, PAYLOAD, len(records))
    assert hot.admit(records) == records
    others = [time.to_bytes(4, "big") + bytes(8) + bytes(PAYLOAD) for time in range(1, 400, 2)]
    assert hot.admit(others) == [None] * len(others)


def test_lost_records_are_told_for_good() -> None:
    first, second = made(random.Random(5), 2, 2**64).values()
    hot = Hot(first + second[:7], WIDTH, PAYLOAD, 2)
    assert hot.damaged
    assert hot.admit([first, second]) == [first, None]
    assert hot.admit([second]) == [second]
    assert hot.damaged


def test_many_records_take_little_more_than_their_bytes() -> None:
    records = list(made(random.Random(7), 50_000, 2**64).values())
    tracemalloc.start()
    try:
        hot = Hot(b"", WIDTH, PAYLOAD, 0)
        for at in range(0, len(records), 50):
            hot.admit(records[at : at + 50])
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert hot.size <= taken < 1.4 * hot.size
    assert max(map(len, hot._buckets)) < 5 * PER_BUCKET * WIDTH
