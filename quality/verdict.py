"""What a check found: whether it passed, over how much, and every failure with examples."""

from __future__ import annotations

from dataclasses import dataclass

EXAMPLES = 3
"""How many failing values a failure shows."""


@dataclass(frozen=True)
class Failure:
    """One check that rows of a column did not pass: how many rows (0: the column as a whole), and a few values."""

    column: str
    check: str
    count: int
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the failure in words."""
        shown = f", such as {', '.join(self.examples)}" if self.examples else ""
        return f"{self.column}: {self.check}" + (f": {self.count:,} rows{shown}" if self.count else shown)


@dataclass(frozen=True)
class Verdict:
    """The outcome of a check over `checked` rows."""

    checked: int
    failures: tuple[Failure, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def __str__(self) -> str:
        """Return the verdict in words, a line for each failure."""
        if self.passed:
            return f"{self.checked:,} rows passed"
        return "\n".join(str(failure) for failure in self.failures)
