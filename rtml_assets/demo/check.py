"""Served vectors against the offline recompute."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection
from typing import Any, NamedTuple

import msgspec
import polars as pl

from rtml import instants
from rtml.define.service import FeatureService
from rtml.errors import UnavailableError
from rtml_assets.demo.recompute import recompute

SAMPLE, SEED = 200, 2013
TOLERANCE = 1e-9
TOLERANCES = {"stddev": 5e-7, "variance": 1e-6, "skew": 1e-6, "kurtosis": 1e-6}
"""Of values around 1 or more, as minutes and shares are; counts are exact."""

Value = float | int | list[Any] | None


class Mismatch(NamedTuple):
    """A served value that is not what events say."""

    entity: dict[str, Any]
    feature: str
    served: Value
    expected: Value


class Checked(NamedTuple):
    """What was compared."""

    at: str
    vectors: int
    values: int
    telling: int
    """Values that are neither null nor zero: to find nothing equal to nothing proves little."""
    statuses: dict[str, int]
    mismatches: list[Mismatch]
    answer: pl.DataFrame
    """What was served: the entities' join keys, then the features."""


def sample_entities(events: pl.LazyFrame, keys: Sequence[str]) -> pl.DataFrame:
    """Return a seeded sample of the flights on record: one row each, a column for each join key."""
    known = events.select(keys).unique().sort(keys).collect()
    rows = random.Random(SEED).sample(range(known.height), min(SAMPLE, known.height))  # nosec B311
    return known[sorted(rows)]


def check(
    host: str,
    port: int,
    service: FeatureService,
    events: Mapping[str, pl.LazyFrame],
    entities: pl.DataFrame,
) -> Checked:
    """Ask the feature server for vectors at its watermark, and compare them with what events say.

    Raises:
        UnavailableError: the server refused; with what it said.
    """
    answer = ask(host, port, service.name, entities)
    at = instants.to_datetime(instants.to_instant(answer["at"]))
    expected = recompute(service, events, entities, at)
    if answer["features"] != expected.columns:
        raise UnavailableError(f"service {service.name!r} served {answer['features']}, not {expected.columns}")
    rows = list(zip(entities.iter_rows(named=True), answer["rows"], expected.iter_rows(), strict=True))
    values = [value for _, _, row in rows for value in row]
    return Checked(
        at=answer["at"],
        vectors=len(rows),
        values=len(values),
        telling=sum(1 for value in values if value),
        statuses=dict(Counter(status for view in answer["status"].values() for status in view)),
        mismatches=[found for entity, served, row in rows for found in differences(service, entity, served, row)],
        answer=entities.hstack(pl.DataFrame(answer["rows"], schema=expected.schema, orient="row", strict=False)),
    )


def check_training(service: FeatureService, served: pl.DataFrame, trained: pl.DataFrame) -> list[Mismatch]:
    """Compare what was served with the training rows of the same entities at the same instant."""
    names = [f"{view.name}__{feature}" for view, feature in service.columns]
    entities = served.drop(names).to_dicts()
    rows = zip(entities, served.select(names).iter_rows(), trained.select(names).iter_rows(), strict=True)
    return [found for entity, got, want in rows for found in differences(service, entity, got, want)]


def ask(host: str, port: int, service: str, entities: pl.DataFrame) -> dict[str, Any]:
    """Return the feature server's answer for entities, at its watermark."""
    body = msgspec.json.encode({"entities": entities.to_dicts(), "leading_edge": "watermark"})
    connection = HTTPConnection(host, port, timeout=30)
    try:
        connection.request("POST", f"/v1/features/{service}", body, {"content-type": "application/json"})
        response = connection.getresponse()
        text = response.read()
    finally:
        connection.close()
    if response.status != 200:
        raise UnavailableError(f"the feature server answered {response.status}: {text.decode()}")
    return dict(msgspec.json.decode(text))


def differences(
    service: FeatureService, entity: dict[str, Any], served: Sequence[Value], expected: Sequence[Value]
) -> Iterator[Mismatch]:
    for (view, name), got, want in zip(service.columns, served, expected, strict=True):
        if not agree(view.resolved[name].aggregate, got, want):
            yield Mismatch(entity, f"{view.name}__{name}", got, want)


def agree(aggregate: str, served: Value, expected: Value) -> bool:
    """Say whether two values are the same, but for the rounding that another order of adding brings."""
    if served is None or expected is None:
        return served is expected
    if aggregate == "count" or isinstance(served, list) or isinstance(expected, list):
        return served == expected
    return abs(served - expected) <= TOLERANCES.get(aggregate, TOLERANCE) * max(1.0, abs(expected))
