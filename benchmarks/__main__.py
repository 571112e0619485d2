"""`python -m benchmarks [name ...]`: run these, or all, one after the other, and print one table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import (
    backfill,
    compaction,
    contention,
    entity_size,
    freshness,
    http_serving,
    in_process,
    latest_value,
    stored_bytes,
    throughput,
    training_sets,
    write_volume,
)
from benchmarks.report import Section, machine, markdown
from benchmarks.rows import Row
from benchmarks.shared import Shared

BENCHMARKS: dict[str, Callable[[Shared], Sequence[Row]]] = {
    "http": http_serving.run,
    "in_process": in_process.run,
    "contention": contention.run,
    "entity_size": lambda _: entity_size.run(),
    "throughput": throughput.run,
    "freshness": lambda _: freshness.run(),
    "stored_bytes": lambda _: stored_bytes.run(),
    "write_volume": lambda _: write_volume.run(),
    "training_sets": lambda shared: training_sets.run(1 if shared.full else training_sets.PEER_SCALE),
    "latest_value": lambda _: latest_value.run(),
    "compaction": lambda _: compaction.run(),
    "backfill": lambda _: backfill.run(),
}
PROFILED = ("http", "in_process", "throughput")
RESULTS = Path(__file__).with_name("results.md")


def main() -> None:
    """Run and print; a run of all is written down."""
    asked = _arguments()
    names = asked.names or ([asked.profile] if asked.profile else list(BENCHMARKS))
    console = Console()
    sections: list[Section] = []
    with Shared(full=asked.full, profile=bool(asked.profile)) as shared:
        try:
            for name in names:
                with console.status(f"{name} runs …"):
                    sections.append(Section.of(name, partial(BENCHMARKS[name], shared)))
        finally:
            console.print(_table(sections))
    for title, text in shared.profiles:
        console.rule(title)
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if output := asked.output or (None if asked.names or asked.profile else RESULTS):
        output.write_text(markdown(machine(), sections))
        console.print(f"written to {output.name}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Each figure beside a peer's.")
    parser.add_argument("names", nargs="*", metavar="name", help=f"which: {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--full", action="store_true", help="the peer of training_sets at full size: many minutes")
    parser.add_argument("--profile", choices=PROFILED, help="run this one, and show where the time goes")
    parser.add_argument("--output", type=Path, help="write the table there; by default a run of all to results.md")
    asked = parser.parse_args()
    for name in asked.names:
        if name not in BENCHMARKS:
            parser.error(f"no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
    return asked


def _table(sections: Sequence[Section]) -> Table:
    table = Table(*Row._fields, title="rtml benchmarks")
    for section in sections:
        table.add_row(f"[bold]{section.name}[/bold], {section.seconds:.0f} s")
        for row in section.rows:
            table.add_row(*row)
        table.add_section()
    return table


if __name__ == "__main__":
    main()
