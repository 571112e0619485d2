"""A parity verdict as Dagster shows it: numbers that are plotted, a summary by feature, a table of the worst rows."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import dagster as dg

from quality.parity import FeatureParity, Parity
from rtml.instants import to_instant, to_text

COUNTS = ("compared", "equal", "differing", "missing", "unsettled")


def parity_result(parity: Parity, name: str, where: str = "", **figures: Any) -> dg.AssetCheckResult:
    """Return the outcome of a check; `where` says what was looked at, and goes before what is wrong with it."""
    words = str(parity)
    return dg.AssetCheckResult(
        passed=parity.agrees,
        check_name=name,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"{where}: {words}"[:2_000] if where else words[:2_000],
        metadata={**figures, **_numbers(parity), **_tables(parity)},
    )


def nothing_compared(name: str, reason: str, *, expected: bool, **figures: Any) -> dg.AssetCheckResult:
    """Return the outcome of a check that had nothing to compare: it passes only where nothing could be `expected`."""
    return dg.AssetCheckResult(
        passed=not expected,
        check_name=name,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"nothing was compared: {reason}"[:2_000],
        metadata={**figures, **_numbers(Parity())},
    )


def _numbers(parity: Parity) -> dict[str, Any]:
    largest = max((feature.largest for feature in parity.features), default=0.0)
    relative = max((feature.largest_relative for feature in parity.features), default=0.0)
    return {
        **{count: parity.total(count) for count in COUNTS},
        "largest_difference": _finite(largest),
        "largest_relative_difference": _finite(relative),
    }


def _finite(value: float) -> float:
    """Dagster plots no infinity."""
    return min(value, sys.float_info.max)


def _tables(parity: Parity) -> dict[str, Any]:
    if not parity.features:
        return {}
    tables: dict[str, Any] = {"features": dg.MetadataValue.md(_summary(parity))}
    if parity.worst.height:
        rows = [{name: _shown(value) for name, value in row.items()} for row in parity.worst.to_dicts()]
        schema = dg.TableSchema(columns=[dg.TableColumn(name, "string") for name in parity.worst.columns])
        tables["worst"] = dg.MetadataValue.table([dg.TableRecord(row) for row in rows], schema)
    return tables


def _summary(parity: Parity) -> str:
    """Return a table of all features; those that are wrong first."""
    ordered = sorted(parity.features, key=lambda feature: feature.agrees)
    head = ("feature", *COUNTS, "largest", "relative")
    lines = [head, ("---",) * len(head), *(_cells(feature) for feature in ordered)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(feature: FeatureParity) -> tuple[str, ...]:
    counts = [f"{getattr(feature, count):,}" for count in COUNTS]
    mark = "" if feature.agrees else " ✗"
    return (f"`{feature.feature}`{mark}", *counts, f"{feature.largest:.3g}", f"{feature.largest_relative:.3g}")


def _shown(value: object) -> str:
    if isinstance(value, datetime):
        return to_text(to_instant(value))
    if isinstance(value, float):
        return f"{value:.17g}"
    return "" if value is None else str(value)
