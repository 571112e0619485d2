"""The table of what was gone through, for people: printed, and written into `docs/reliability.md`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.chaos.fault import Outcome

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: begin -->", "<!-- chaos: end -->"
HEADS = ("fault", "what is done", "alert", "told after", "meanwhile", "exact again after", "resolved after", "lost")


def table_of(outcomes: Sequence[Outcome]) -> str:
    """Return what faults came to as a Markdown table."""
    rows = [HEADS, tuple("-" * 3 for _ in HEADS), *(_cells(outcome) for outcome in outcomes)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_table(table: str, page: Path = PAGE) -> None:
    """Put a table in place of the one between the page's markers."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def _cells(outcome: Outcome) -> tuple[str, ...]:
    fault = outcome.fault
    resolved = "–" if outcome.resolved is None else f"{outcome.resolved:.0f} s"
    told, recovered = f"{outcome.detected:.0f} s", f"{outcome.recovered:.0f} s"
    return fault.name, fault.does, f"`{fault.alert}`", told, fault.holds, recovered, resolved, str(outcome.lost)
