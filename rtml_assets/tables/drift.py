"""`drift/<service>`: how far what is served lies from training and from the week before, day by day; and its pages."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import polars as pl

from quality.drift import FeatureDrift, compare
from quality.drift_page import Page
from rtml.define.drift import MEASURES
from rtml.errors import DefinitionError
from rtml.lake import EVENT_DATE, Lake
from rtml.registry import Registry
from rtml_assets.tables.delta import Built, meaning_of, open_table, rebuild_days, scan
from rtml_assets.tables.drift_samples import Sample, features_of, lists_of, samples

_NAMES = {"training": "Training", "week": "The week before"}
TREND_DAYS = 30
PAGES = 30
"""So many days' pages are kept."""

FIGURES: dict[str, pl.DataType] = {
    "feature": pl.String(),
    "reference": pl.String(),
    "rows_now": pl.Int64(),
    "rows_then": pl.Int64(),
    "nulls_now": pl.Float64(),
    "nulls_then": pl.Float64(),
    **dict.fromkeys(MEASURES, pl.Float64()),
    "drifted": pl.Boolean(),
    "words": pl.String(),
    EVENT_DATE: pl.Date(),
}
"""The columns of `drift/`; a measure is null where it could not be told, and `nulls` is how far their share moved."""


@dataclass(frozen=True)
class Drifts:
    """How far a service's features drifted by one day."""

    service: str
    day: date | None
    """The newest day that was looked at; None: there is none."""
    told: tuple[str, ...]
    """What was compared with what, and what could not be: a sentence each."""
    features: tuple[FeatureDrift, ...] = ()
    """Each feature against each reference that there is."""
    trends: Mapping[tuple[str, str], Sequence[float | None]] = field(default_factory=dict)
    """By feature and reference: its stability index on the last days, oldest first."""

    @property
    def drifted(self) -> dict[str, list[FeatureDrift]]:
        """The features that drifted, by name."""
        found: dict[str, list[FeatureDrift]] = {}
        for one in self.features:
            if one.drifted:
                found.setdefault(one.feature, []).append(one)
        return found


def drift(lake: Lake, registry: Registry, name: str, *, today: date, day: date | None = None) -> Drifts:
    """Compare what a service served on a day with its references; `drift/<service>` gets what that came to.

    Args:
        lake: where the tables are.
        registry: the definitions.
        name: the service.
        today: the day that is not over yet, by the wall clock.
        day: which day; by default the newest one that is over.

    Raises:
        UnknownNameError: there is no such service.
        DefinitionError: its definition says that nobody looks at drift.
        NotReadyError: nothing was logged on that day.
    """
    service = registry.service(name)
    if service.drift is None:
        raise DefinitionError(f"service {name!r} has drift=None: nobody looks at what drifts")
    found = samples(lake, registry, service, service.drift)
    if found is None:
        return Drifts(name, None, (f"Nothing that {name} served is logged yet.",))
    now = found.now(today, day)
    newest = now.days[-1]
    if not now.rows.height:
        return Drifts(name, newest, (f"Nothing served on {newest} is of the meaning and version that {name} has now.",))
    references = {against: found.reference(against, now) for against in service.drift.against}
    bounds = {feature: service.drift.bounds(feature) for feature in features_of(service)}
    there = {against: one for against, one in references.items() if isinstance(one, Sample)}
    features = [
        compared
        for against, then in there.items()
        for compared in compare(now.rows, then.rows, bounds, against, len(bounds) * len(there), then.rows[EVENT_DATE])
    ]
    if features:
        _keep(lake, name, newest, features)
    told = [f"{_NAMES[against]}: {one}." if isinstance(one, Sample) else one for against, one in references.items()]
    if lists := lists_of(service):
        told.append(f"Not compared, since they are lists: {', '.join(lists)}.")
    return Drifts(name, newest, (f"Served now: {now}.", *told), tuple(features), _trends(lake, name, newest))


def write_page(lake: Lake, found: Drifts) -> Path | None:
    """Write the page about a day, and `index.html`, which is that of the newest day; return the day's.

    There is none in a lake that is not a folder, and none about a day of which nothing could be compared.
    """
    if found.day is None or not found.features or "://" in lake.root:
        return None
    folder = Path(lake.root) / "quality" / "drift" / found.service
    folder.mkdir(parents=True, exist_ok=True)
    others = {page.stem for page in folder.glob("????-??-??.html")}
    days = sorted(others | {str(found.day)}, reverse=True)
    page = Page(found.service, str(found.day), found.features, found.told, found.trends, days[:PAGES])
    html = page.html()
    _replace(folder / f"{found.day}.html", html)
    if str(found.day) == days[0]:
        _replace(folder / "index.html", html)
    for old in days[PAGES:]:
        (folder / f"{old}.html").unlink(missing_ok=True)
    return folder / f"{found.day}.html"


def _keep(lake: Lake, service: str, day: date, features: Sequence[FeatureDrift]) -> None:
    """Put a day's figures in place of those that it had."""
    rows = pl.DataFrame([_figures(one, day) for one in features], schema=FIGURES)
    meaning = meaning_of(service, FIGURES)
    rebuild_days(lake.drift(service), FIGURES, meaning, lambda: Built(rows, {day: rows.height}, None))


def _figures(one: FeatureDrift, day: date) -> dict[str, object]:
    return {
        "feature": one.feature,
        "reference": one.reference,
        "rows_now": one.now,
        "rows_then": one.then,
        "nulls_now": one.nulls_now,
        "nulls_then": one.nulls_then,
        **{measure: one.of(measure) for measure in MEASURES},
        "drifted": one.drifted,
        "words": str(one),
        EVENT_DATE: day,
    }


def _trends(lake: Lake, service: str, until: date) -> dict[tuple[str, str], list[float | None]]:
    rows = scan(open_table(lake.drift(service)), FIGURES).filter(pl.col(EVENT_DATE) <= until)
    days = rows.select(pl.col(EVENT_DATE).unique().sort().tail(TREND_DAYS))
    by_day = rows.join(days, on=EVENT_DATE, how="semi").sort(EVENT_DATE).group_by("feature", "reference").agg("psi")
    return {(feature, reference): list(psi) for feature, reference, psi in by_day.collect().iter_rows()}


def _replace(path: Path, text: str) -> None:
    """Write a file at once: who reads it meanwhile gets the one before."""
    written = path.with_suffix(f".{os.getpid()}.tmp")
    written.write_text(text, "utf-8")
    written.replace(path)
