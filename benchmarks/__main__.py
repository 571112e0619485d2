"""`python -m benchmarks [name ...]`: run these, or all, one after the other, and print one table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from rich.console import Console
from rich.table import Table

from benchmarks import backfill, compaction, freshness, latest_value, throughput, training_sets
from benchmarks.rows import Row

BENCHMARKS: dict[str, Callable[[], Sequence[tuple[str, ...]]]] = {
    "freshness": freshness.run,
    "throughput": throughput.run,
    "training_sets": training_sets.run,
    "latest_value": latest_value.run,
    "compaction": compaction.run,
    "backfill": backfill.run,
}


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Each figure beside a peer's.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"which: {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--full", action="store_true", help="the peer of training_sets at full size: many minutes")
    asked = parser.parse_args()
    for name in asked.names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    runs = BENCHMARKS | {"training_sets": partial(training_sets.run, scale=1)} if asked.full else BENCHMARKS
    console = Console()
    table = Table(*Row._fields, title="rtml benchmarks")
    for name in asked.names or BENCHMARKS:
        with console.status(f"{name} runs …"):
            rows = runs[name]()
        for row in rows:
            table.add_row(*row)
        table.add_section()
    console.print(table)


if __name__ == "__main__":
    main()
