"""Expectations as asset checks: one check an expectation, with its figures and a link to its page."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg

from quality.data_docs import folder_of, page_of
from quality.judgement import Judged, Judgement
from rtml.define.expectation import Expectation
from rtml_assets.defs.deployment import Deployment
from rtml_assets.tables.gates import JudgedDay

DAYS_SHOWN = 10


def specs_of(expectations: Iterable[Expectation], key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Return the checks of expectations; critical ones keep what is downstream from being built."""
    return [
        dg.AssetCheckSpec(one.name, asset=key, blocking=one.blocks, description=f"Expected: {one}"[:1_000])
        for one in expectations
    ]


def gate_results(
    deployment: Deployment,
    key: dg.AssetKey,
    expectations: Sequence[Expectation],
    judged: Mapping[date, JudgedDay],
    waiting: Mapping[str, Sequence[date]] | None = None,
) -> Iterator[dg.AssetCheckResult]:
    """Yield what each expectation came to over days; an accepted failure warns.

    Other days that are `waiting`, by check, fail it as well: a check is as its last result says, and good days must not
    hide a bad one. They warn, since these days may go on.
    """
    for one in expectations:
        results = {
            day: (found.judgement[one.name], found.blocks(found.judgement[one.name])) for day, found in judged.items()
        }
        yield _result(deployment, key, one, results, (waiting or {}).get(one.name, ()))


def _result(
    deployment: Deployment,
    key: dg.AssetKey,
    one: Expectation,
    results: Mapping[date, tuple[Judged, bool]],
    waiting: Sequence[date],
) -> dg.AssetCheckResult:
    failed = {day: result for day, (result, _) in results.items() if not result.passed}
    blocked = any(blocks for _, blocks in results.values())
    words = [f"{day}: {result.words}" for day, result in failed.items()] + waiting_words(waiting)
    severity = dg.AssetCheckSeverity.ERROR if blocked else dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        passed=not failed and not waiting,
        check_name=one.name,
        asset_key=key,
        severity=severity,
        description=_shortened(words),
        metadata={
            "days": len(results),
            "failed_days": len(failed) + len(waiting),
            **_figures([result for result, _ in results.values()]),
            **_report(deployment, key, [*failed, *waiting, *sorted(set(results) - set(failed), reverse=True)]),
        },
    )


def waiting_words(days: Sequence[date]) -> list[str]:
    """Say which days of former runs are kept from being built."""
    return [f"{day}: not built, what it held then is in quarantine" for day in days]


def suite_result(
    deployment: Deployment, name: str, title: str, day: date, judgement: Judgement, path: str
) -> dg.AssetCheckResult:
    """Return what a whole suite came to over one day, as one check."""
    failures = judgement.failures
    return dg.AssetCheckResult(
        passed=not failures,
        check_name=name,
        severity=dg.AssetCheckSeverity.ERROR,
        description=_shortened([f"{title} {day}: {one.name}: {one.words}" for one in failures]),
        metadata={
            "day": str(day),
            "rows": judgement.checked,
            "expectations": len(judgement.results),
            "failed": len(failures),
            **link(deployment, [path]),
        },
    )


def link(deployment: Deployment, paths: Iterable[str]) -> dict[str, Any]:
    """Return a link to the first of some pages that there is, served by the feature server."""
    folder = folder_of(deployment.lake)
    if folder is None:
        return {"report": "the lake is an object store: pages are written where it is a folder"}
    found = next((path for path in paths if (folder / path).is_file()), None)
    return {} if found is None else {"report": dg.MetadataValue.url(page_url(deployment, found))}


def page_url(deployment: Deployment, path: str | Path) -> str:
    """Return the address at which the feature server shows a page of `quality/`."""
    return f"{deployment.settings.server_url}/quality/{path}"


def _report(deployment: Deployment, key: dg.AssetKey, days: Collection[date]) -> dict[str, Any]:
    table, name = key.path
    return link(deployment, [page_of(table, name, day) for day in days])


def _figures(results: Sequence[Judged]) -> dict[str, float | int]:
    """Return what is plotted: of several days the worst share, and the newest value."""
    figures: dict[str, float | int] = {"rows": sum(result.judged for result in results)}
    counts = [result.unexpected for result in results if result.unexpected is not None]
    shares = [result.unexpected_percent for result in results if result.unexpected_percent is not None]
    observed = [result.observed for result in results if result.observed is not None]
    if counts:
        figures["unexpected"] = sum(counts)
    if shares:
        figures["unexpected_percent"] = max(shares)
    if observed:
        figures["observed"] = observed[-1]
    return figures


def _shortened(words: Sequence[str]) -> str | None:
    more = f"; and {len(words) - DAYS_SHOWN} more" if len(words) > DAYS_SHOWN else ""
    return ("; ".join(words[:DAYS_SHOWN])[:1_900] + more) or None
