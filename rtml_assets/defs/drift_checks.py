"""The check `drift` on `served/<service>`, with a daily job of its own."""

# No `from __future__ import annotations`: Dagster reads the annotations of a check's configuration.

import sys
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import dagster as dg

from quality.drift import FeatureDrift
from quality.drift_page import by_feature, drifted_words
from quality.drift_svg import tiny_bars, tiny_line
from rtml import instants
from rtml.define.drift import MEASURES
from rtml.define.service import FeatureService
from rtml.errors import InstantError
from rtml.instants import Instant, to_datetime
from rtml_assets.defs.deployment import Deployment
from rtml_assets.defs.described import key_of
from rtml_assets.defs.parity_checks import Checking, Day, checking
from rtml_assets.tables.drift import Drifts, drift, write_page

DRIFT = "drift"
SHOWN = 30
"""So many features are shown; those that drifted first."""


def drift_checks(deployment: Deployment, now: Callable[[], Instant] = instants.now) -> list[Checking]:
    """Return the daily check of every service that logs what it serves, unless its definition says otherwise."""
    services = deployment.registry.services.values()
    return [drift_of(deployment, service, now) for service in services if service.log > 0 and service.drift is not None]


def drift_of(deployment: Deployment, service: FeatureService, now: Callable[[], Instant] = instants.now) -> Checking:
    """Return the daily check of what a service serves."""

    @dg.asset_check(
        asset=key_of("served", service.name),
        name=DRIFT,
        description="The values served on the newest day that is over, feature by feature, against the training set "
        "and against the week before.",
    )
    def check(config: Day) -> dg.AssetCheckResult:
        lake, today = deployment.lake, to_datetime(now()).date()
        found = drift(lake, deployment.registry, service.name, today=today, day=_day(config.day))
        page = write_page(lake, found)
        settings = deployment.settings
        link = f"{settings.server_url}/quality/drift/{service.name}/{found.day}.html"
        return drift_result(found, link if page else None)

    words = f"What {service.name} serves, against its training set and against the week before."
    return checking(f"drift_{service.name}", [check], "10 4 * * *", words)


def drift_result(found: Drifts, link: str | None = None) -> dg.AssetCheckResult:
    """Return what became of a comparison; one that had nothing to compare with passes, and says why.

    Args:
        found: the comparison.
        link: the page about it.
    """
    critical = any(one.severity == "critical" for some in found.drifted.values() for one in some)
    return dg.AssetCheckResult(
        passed=not found.drifted,
        check_name=DRIFT,
        severity=dg.AssetCheckSeverity.ERROR if critical else dg.AssetCheckSeverity.WARN,
        description=_words(found)[:2_000],
        metadata={**_numbers(found), **_shown(found, link)},
    )


def _day(asked: str) -> date | None:
    if not asked:
        return None
    try:
        return date.fromisoformat(asked)
    except ValueError:
        raise InstantError(f"day must be a date such as 2024-03-01; got {asked!r}") from None


def _words(found: Drifts) -> str:
    if not found.features:
        return f"nothing was compared: {' '.join(found.told)}"
    names = len({one.feature for one in found.features})
    worst = [str(one) for group in by_feature(found.features) for one in group if one.drifted]
    details = [f"{'; '.join(worst)}."] if worst else []
    return " ".join([f"{found.day}: {drifted_words(len(found.drifted), names)}.", *details, *found.told])


def _numbers(found: Drifts) -> dict[str, Any]:
    """Return what Dagster plots over time: the largest of each measure, and how many features drifted."""
    numbers: dict[str, Any] = {
        "drifted": len(found.drifted),
        "compared": sum(bool(one.measures) for one in found.features),
        "too_few": sum(not one.measures for one in found.features),
    }
    if found.day is not None:
        numbers["day"] = str(found.day)
    for measure in MEASURES:
        values = [value for one in found.features if (value := one.of(measure)) is not None]
        if values:
            numbers[f"worst_{measure}"] = min(max(values), sys.float_info.max)
    return numbers


def _shown(found: Drifts, link: str | None) -> dict[str, Any]:
    shown: dict[str, Any] = {"told": " ".join(found.told)}
    if link:
        shown["report"] = dg.MetadataValue.url(link)
    if found.features:
        groups = by_feature(found.features)[:SHOWN]
        head = ("feature", "against", *MEASURES, "now over then", "psi by day")
        lines = [head, ("---",) * len(head), *(_row(found, group) for group in groups)]
        shown["features"] = dg.MetadataValue.md("\n".join(f"| {' | '.join(line)} |" for line in lines))
    return shown


def _row(found: Drifts, group: Sequence[FeatureDrift]) -> tuple[str, ...]:
    """Return a feature's row: of its references the one from which it lies furthest."""
    one = max(group, key=lambda found: found.worst)
    mark = " ✗" if one.drifted else ""
    psi = next((measure for measure in one.measures if measure.name == "psi"), None)
    trend = tiny_line(found.trends.get((one.feature, one.reference), ()), psi.allowed) if psi else ""
    values = [_cell(one, measure) for measure in MEASURES]
    return (f"`{one.feature}`{mark}", one.reference, *values, _image(tiny_bars(one.bars)), _image(trend))


def _cell(one: FeatureDrift, measure: str) -> str:
    value = one.of(measure)
    broken = any(found.name == measure for found in one.broken)
    return "" if value is None else f"**{value:.3g}**" if broken else f"{value:.3g}"


def _image(uri: str) -> str:
    return f"![]({uri})" if uri else ""
