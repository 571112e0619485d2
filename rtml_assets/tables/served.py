"""`served/<service>` read again: the logged vectors of the meaning that a service has now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import NamedTuple

import polars as pl
from deltalake import DeltaTable

from rtml.columns import SPINE_TIME
from rtml.define.service import FeatureService
from rtml.instants import Instant, to_datetime
from rtml.lake import (
    EVENT_DATE,
    LAST_INGESTED,
    SERVED_AT,
    SERVICE_VERSION,
    VERSION,
    WATERMARK,
    Lake,
    of_view,
    served_schema,
    with_type,
)
from rtml.plan import Plan
from rtml_assets.tables.delta import open_table, rows_by_day


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


def scan_served(table: DeltaTable, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """Return all rows of a `served/` table, with each column of a schema, under its plain name, of the schema's type.

    A feature that once had another type has null there, and its values under a name with that type: nothing is cast.
    """
    rows = pl.scan_delta(table)
    present = rows.collect_schema()
    names: dict[str, str] = {}
    for name, kind in schema.items():
        if (was := present.get(name, kind)) != kind:
            names |= {name: with_type(name, was), with_type(name, kind): name}
    renamed = rows.rename({old: new for old, new in names.items() if old in present})
    have = renamed.collect_schema()
    return renamed.with_columns(
        pl.lit(None, dtype=kind).alias(name) for name, kind in schema.items() if name in names and name not in have
    )


def whole_served(table: DeltaTable, schema: Mapping[str, pl.DataType]) -> pl.LazyFrame:
    """Return all rows of a `served/` table under a schema; what the table does not have is null."""
    served = scan_served(table, schema)
    absent = [name for name in schema if name not in served.collect_schema()]
    return served.with_columns(pl.lit(None, dtype=schema[name]).alias(name) for name in absent).select(*schema)


def of_meaning(service: FeatureService, plans: Mapping[str, Plan]) -> pl.Expr:
    """Return whether a row of `served/` is of the meaning, and of the version, that a service has now."""
    same = (pl.col(SERVICE_VERSION) == service.version) & pl.all_horizontal(
        pl.col(of_view(view.name, VERSION)).str.starts_with(f"{plans[view.name].fingerprint}.")
        for view in service.views
    )
    return same.fill_null(value=False)


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
    same = of_meaning(service, plans)
    # What was ingested before the watermark was servable; so was the entity's newest event, at its very instant.
    beginning = to_datetime(0)
    whole = pl.all_horizontal(
        (
            pl.col(of_view(view.name, LAST_INGESTED)).fill_null(beginning)
            < to_datetime(max(complete[view.source.name], 1))
        )
        & (pl.col(WATERMARK).fill_null(beginning) <= to_datetime(max(complete[view.source.name], 0)))
        for view in service.views
    )
    if table is None:
        return Logged(pl.DataFrame(schema=schema), 0, 0)
    served = whole_served(table, schema)
    found: list[pl.DataFrame] = []
    other = incomplete = 0
    for day in sorted(rows_by_day(table) if days is None else days, reverse=True):
        rows = served.filter(pl.col(EVENT_DATE) == day).collect()
        meant = rows.filter(same)
        other += rows.height - meant.height
        good = meant.filter(whole)
        incomplete += meant.height - good.height
        found.append(good)
        if sum(part.height for part in found) >= newest:
            break
    joined = pl.concat(found) if found else pl.DataFrame(schema=schema)
    return Logged(joined.sort(SERVED_AT, SPINE_TIME).tail(newest), other, incomplete)
