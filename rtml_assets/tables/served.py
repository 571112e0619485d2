"""`served/<service>` read again: the logged vectors of the meaning that a service has now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import NamedTuple

import polars as pl

from rtml.columns import SPINE_TIME
from rtml.define.service import FeatureService
from rtml.instants import Instant, to_datetime
from rtml.lake import (
    LAST_INGESTED,
    SERVED_AT,
    SERVICE_VERSION,
    VERSION,
    WATERMARK,
    Lake,
    of_view,
    served_schema,
)
from rtml.plan import Plan
from rtml_assets.tables.delta import open_table, rows_by_day, scan


class Logged(NamedTuple):
    """Logged vectors, in the order of serving."""

    rows: pl.DataFrame
    other_version: int
    """How many vectors were left out, since the service or a view meant something else then."""
    incomplete: int
    """How many were left out, since `events/` does not hold yet all that the server had seen."""


def service_schema(service: FeatureService, plans: Mapping[str, Plan]) -> dict[str, pl.DataType]:
    """Return the columns of `served/`, as a service's definition has them now."""
    columns = [(view.name, feature) for view, feature in service.columns]
    return served_schema([plans[view.name] for view in service.views], columns)


def logged_vectors(
    lake: Lake,
    service: FeatureService,
    plans: Mapping[str, Plan],
    complete: Mapping[str, Instant],
    *,
    newest: int,
    days: Sequence[date] | None = None,
) -> Logged:
    """Return the newest vectors that can be recomputed.

    Args:
        lake: where `served/` is.
        service: whose vectors.
        plans: the plans of its views.
        complete: by source, the instant before which all that was ingested is in `events/`.
        newest: how many at most.
        days: of these days only; by default as far back as it takes.
    """
    table = open_table(lake.served(service.name))
    schema = service_schema(service, plans)
    same = (pl.col(SERVICE_VERSION) == service.version) & pl.all_horizontal(
        pl.col(of_view(view.name, VERSION)).str.starts_with(f"{plans[view.name].fingerprint}.")
        for view in service.views
    )
    # Before the watermark the server had everything, with the entity's newest event also what was ingested at its instant.
    beginning = to_datetime(0)
    whole = pl.all_horizontal(
        (
            pl.col(of_view(view.name, LAST_INGESTED)).fill_null(beginning)
            < to_datetime(max(complete[view.source.name], 1))
        )
        & (pl.col(WATERMARK).fill_null(beginning) <= to_datetime(max(complete[view.source.name], 0)))
        for view in service.views
    )
    found: list[pl.DataFrame] = []
    other = incomplete = 0
    for day in sorted(rows_by_day(table) if days is None else days, reverse=True):
        rows = scan(table, schema, [day]).collect()
        meant = rows.filter(same.fill_null(value=False))
        other += rows.height - meant.height
        good = meant.filter(whole)
        incomplete += meant.height - good.height
        found.append(good)
        if sum(part.height for part in found) >= newest:
            break
    joined = pl.concat(found) if found else pl.DataFrame(schema=schema)
    return Logged(joined.sort(SERVED_AT, SPINE_TIME).tail(newest), other, incomplete)
