"""`python -m benchmarks`: run all, one after the other, and print one table."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from benchmarks import freshness, throughput


def main() -> None:
    """Run and print."""
    console = Console()
    table = Table("what", "figure", title="rtml benchmarks")
    for benchmark in (freshness, throughput):
        name = benchmark.__name__.rsplit(".", 1)[-1]
        with console.status(f"{name} runs …"):
            rows = benchmark.run()
        for row in rows:
            table.add_row(*row)
        table.add_section()
    console.print(table)


if __name__ == "__main__":
    main()
