"""Training rows from the log of what was served: nothing is computed anew."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from rtml.columns import SPINE_TIME
from rtml.define.label import LabelSource
from rtml.errors import RequestError
from rtml.instants import Instant, to_datetime
from rtml.lake import EVENT_DATE, Lake
from rtml.registry import Registry
from rtml_assets.tables.delta import open_table
from rtml_assets.tables.labels import chosen_labels, labels_of
from rtml_assets.tables.served import scan_served, service_schema
from rtml_assets.tables.spine import check_spine


def logged_features(
    lake: Lake,
    registry: Registry,
    service: str,
    start: Instant | None = None,
    end: Instant | None = None,
    labels: Sequence[str | LabelSource] | None = None,
) -> pl.DataFrame:
    """Return what a service answered for instants in `[start, end)`, ordered by instant, then labels.

    Raises:
        UnknownNameError: there is no such service or label source.
        RequestError: nothing was logged, `labels` are no list, or a label's join keys are not in the log.
    """
    found, chosen = registry.service(service), chosen_labels(registry, labels)
    table = open_table(lake.served(service))
    if table is None:
        raise RequestError(
            f"service {service!r}: nothing that it served is logged: there is no table served/{service}. Servers log "
            f"the share log={found.log:g} of its entities; get_historical_features computes training sets instead"
        )
    rows = scan_served(table, service_schema(found, registry.plans))
    time = pl.col(SPINE_TIME)
    if start is not None:
        rows = rows.filter(time >= to_datetime(start))
    if end is not None:
        rows = rows.filter(time < to_datetime(end))
    keys = {key: kind for label in chosen for key, kind in label.key_types.items()}
    added = [name for label in chosen for name in label.columns]
    log = check_spine(rows.drop(EVENT_DATE).sort(SPINE_TIME, maintain_order=True), keys, added, f"served/{service}")
    parts = [labels_of(lake, label, log) for label in chosen]
    return pl.concat([log.rows, *parts], how="horizontal")
