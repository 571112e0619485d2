"""Training rows from the log of what was served: nothing is computed anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from rtml.columns import SPINE_TIME
from rtml.define.label import LabelSource
from rtml.errors import RequestError
from rtml.instants import Instant, to_datetime
from rtml.lake import EVENT_DATE, LAST_INGESTED, PUBLISHED_TO, WATERMARK, Lake, of_view
from rtml.registry import Registry
from rtml_assets.tables.arrivals import Arrivals
from rtml_assets.tables.delta import open_table
from rtml_assets.tables.labels import chosen_labels, labels_of
from rtml_assets.tables.served import scan_served, service_schema
from rtml_assets.tables.spine import check_spine


def logged_features(  # noqa: PLR0913
    lake: Lake,
    registry: Registry,
    service: str,
    start: Instant | None = None,
    end: Instant | None = None,
    labels: Sequence[str | LabelSource] | None = None,
    arrivals: Arrivals | None = None,
    *,
    past: bool = False,
    warn: Callable[[str], None],
) -> pl.DataFrame:
    """Return what a service answered for instants in `[start, end)`, ordered by instant, then labels.

    An answer for an instant that was past when it was asked for may count what arrived after it: such rows are left
    out, and `warn` is told how many, unless `past` is set.

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
    logged = rows.drop(EVENT_DATE).sort(SPINE_TIME, maintain_order=True).collect()
    if not past:
        logged = _without_past(logged, service, warn)
    keys = {key: kind for label in chosen for key, kind in label.key_types.items()}
    added = [name for label in chosen for name in label.columns]
    log = check_spine(logged, keys, added, f"served/{service}")
    parts = [labels_of(lake, label, log, arrivals or Arrivals()) for label in chosen]
    return pl.concat([log.rows, *parts], how="horizontal")


def _without_past(logged: pl.DataFrame, service: str, warn: Callable[[str], None]) -> pl.DataFrame:
    """Return the rows that cannot count what was not known at their instant.

    The server had all that was ingested before its watermark; of the entity's own events those up to the newest, even
    beyond the watermark; and the late ones that were published.
    """
    suffixes = tuple(of_view("", name) for name in (LAST_INGESTED, PUBLISHED_TO))
    seen = [name for name in logged.columns if name == WATERMARK or name.endswith(suffixes)]
    kept = logged.filter(~pl.any_horizontal((pl.col(seen) > pl.col(SPINE_TIME)).fill_null(value=False)))
    if left_out := logged.height - kept.height:
        warn(
            f"served/{service}: {left_out:,} of {logged.height:,} rows answer for instants that were past when they "
            "were asked for, and may count what arrived later: they are left out. past=True keeps them; "
            "get_historical_features computes what was known at those instants"
        )
    return kept
