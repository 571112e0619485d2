"""The command `rtml doctor`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer()
console = Console()


@app.command()
def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON, for machines.")] = False,
) -> None:
    """Find what is wrong, and say what to do; exit with 1 if something is critical.

    It looks at the settings, Redis, the flows, the lake, versions, the feature server and Dagster, changes nothing but
    a tiny file that it writes to the lake and removes, and takes a few seconds.

    Examples:

        rtml doctor
        rtml doctor --json | jq .findings
    """
    import msgspec

    from rtml_assets.doctor.examine import examine_project
    from rtml_assets.doctor.show import rendered

    found = examine_project()
    if json:
        typer.echo(msgspec.json.encode(found))
    else:
        console.print(rendered(found))
    raise typer.Exit(found.is_critical)
