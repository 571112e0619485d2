"""What every asset says of itself: key, group, owners, tags, columns and where its table is."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import dagster as dg
import polars as pl
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from rtml.define.source import EventSource

_TAG = re.compile(r"[A-Za-z0-9_.-]{1,63}")
ONE_RUN = dg.BackfillPolicy.single_run()
"""A backfill is one run: days are built together, and one run a day would take seconds each."""


def key_of(table: str, name: str) -> dg.AssetKey:
    """Return the key of one table of a source or view, as in the lake."""
    return dg.AssetKey([table, name])


def in_process_job(name: str, selection: dg.AssetSelection, description: str) -> UnresolvedAssetJobDefinition:
    """Return a job whose steps run in the process of the run: each process of its own would take seconds to start."""
    return dg.define_asset_job(name, selection=selection, executor_def=dg.in_process_executor, description=description)


def daily(source: EventSource) -> dg.DailyPartitionsDefinition:
    """Return the days of a source's history: from the first to the last, or to today."""
    end = None if source.last_day is None else str(source.last_day + timedelta(days=1))
    return dg.DailyPartitionsDefinition(start_date=str(source.first_day), end_date=end, end_offset=1)


def tags_of(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that Dagster can show: it is stricter about their letters."""
    return {name: value for name, value in tags.items() if _TAG.fullmatch(name) and _TAG.fullmatch(str(value))}


def table_metadata(
    uri: str, schema: Mapping[str, pl.DataType], notes: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a table's place and columns, as Dagster shows them; `notes` are words about some columns."""
    notes = notes or {}
    columns = [dg.TableColumn(name, str(dtype), notes.get(name)) for name, dtype in schema.items()]
    return {"dagster/uri": uri, "dagster/column_schema": dg.TableSchema(columns=columns)}


def contract_notes(source: EventSource) -> dict[str, str]:
    """Return what the contract asks of each column, in words."""
    notes = {"ingested_at": "when the broker took it", "id64": "the event id's hash, as the signed integer of its bits"}
    for name, column in source.columns.items():
        rules = [f"{check} {', '.join(str(part) for part in given.values())}" for check, given in column.checks]
        notes[name] = "; ".join(["may be null" if column.nullable else "never null", *rules])
    return notes


@contextmanager
def beta_is_meant() -> Iterator[None]:
    """Leave out what Dagster says at every definition of what we need: that it is in beta."""
    needed = "Parameter `(backfill_policy|allow_nonexistent_upstream_partitions)`"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=needed, category=dg.BetaWarning)
        yield
