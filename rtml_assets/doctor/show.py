"""An examination for people."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from rtml_assets.doctor.examine import Examination
from rtml_assets.doctor.finding import Evidence, Finding

_STYLES = {"critical": "bold red", "warning": "yellow"}


def rendered(examination: Examination) -> RenderableType:
    """Return each finding with its evidence, why it matters and what to do; the worst first."""
    return Group(*_lines(examination))


def _lines(examination: Examination) -> Iterator[RenderableType]:
    for finding in examination.findings:
        yield from _finding(finding)
    for name, reason in examination.unseen.items():
        yield Text(f"could not look at {name}: {reason}", "magenta")
    critical = sum(finding.severity == "critical" for finding in examination.findings)
    if examination.findings:
        yield Text(f"{critical} critical, {len(examination.findings) - critical} to be aware of", "bold")
    elif not examination.unseen:
        yield Text("nothing is wrong", "bold green")


def _finding(finding: Finding) -> Iterator[RenderableType]:
    head = Text(finding.severity, _STYLES[finding.severity])
    yield head.append(f"  {finding.target}: {finding.what}", "default")
    evidence = ", ".join(f"{name}={_shown(value)}" for name, value in finding.evidence.items() if value is not None)
    lines = [("evidence", evidence), ("why", finding.why), ("do", finding.todo), ("more", finding.runbook)]
    for word, text in lines:
        if text:
            yield Padding(Text(f"{word:<9}", "dim").append(text, "default"), (0, 0, 0, 2))
    yield Text()


def _shown(value: Evidence) -> str:
    return "[" + ", ".join(value) + "]" if isinstance(value, list) else str(value)
