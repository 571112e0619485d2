"""What became of expectations over some rows, in plain values."""

from __future__ import annotations

from dataclasses import dataclass

from rtml.define.expectation import Expectation


@dataclass(frozen=True)
class Judged:
    """One expectation over some rows."""

    expectation: Expectation
    passed: bool
    judged: int
    """Over how many rows; 0 where there were too few to judge."""
    observed: float | None = None
    """What was measured, where that is one number: what is plotted."""
    unexpected: int | None = None
    """How many rows failed, where rows are named."""
    unexpected_percent: float | None = None
    examples: tuple[str, ...] = ()
    failing: tuple[int, ...] | None = None
    """The numbers of the rows that fail, of an expectation that was not met; none where it names no rows."""
    words: str = ""
    """What was found, for people."""

    @property
    def name(self) -> str:
        """The name of its check."""
        return self.expectation.name

    @property
    def blocks(self) -> bool:
        """Whether what was judged may not go on."""
        return not self.passed and self.expectation.blocks


@dataclass(frozen=True)
class Judgement:
    """What became of all expectations over some rows."""

    checked: int
    results: tuple[Judged, ...] = ()
    page: str = ""
    """A page of Data Docs, where one was asked for."""

    @property
    def passed(self) -> bool:
        """Whether everything was as expected."""
        return all(result.passed for result in self.results)

    @property
    def failures(self) -> tuple[Judged, ...]:
        """What was not."""
        return tuple(result for result in self.results if not result.passed)

    def __getitem__(self, name: str) -> Judged:
        """Return what became of one expectation."""
        return next(result for result in self.results if result.name == name)

    def __str__(self) -> str:
        """Return the judgement in words, a line for each failure."""
        if self.passed:
            return f"{self.checked:,} rows are as expected"
        return "\n".join(f"{result.name}: {result.words}" for result in self.failures)
