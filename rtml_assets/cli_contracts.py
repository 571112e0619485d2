"""The commands about contracts: what has changed against what is in force, and what was in force before."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from rtml_assets.cli_common import connected, load_project

app = typer.Typer(
    no_args_is_help=True,
    help="What sources ask of their events: check a change before it is deployed, and see the versions of before.",
)
console = Console()


@app.command()
def check(
    source: Annotated[str | None, typer.Argument(help="The EventSource's name; by default all.")] = None,
) -> None:
    """Hold contracts against those in force; exit with 1 if a change is refused.

    Examples:

        rtml contracts check
        rtml contracts check departures
    """
    from rtml.lake import Lake
    from rtml_assets.runtime.contracts import behind, judged, rendered

    settings, registry = load_project()
    chosen = [registry.source(source)] if source else list(registry.sources.values())
    with connected(settings) as client:
        found = judged(client, Lake(settings.lake_root), chosen)
        notes = behind(client, found)
    console.print(rendered(found), highlight=False)
    for note in notes:
        console.print(f"[yellow]{note}", highlight=False)
    raise typer.Exit(any(judgement.refused for judgement in found.values()))


@app.command("list")
def list_(source: Annotated[str, typer.Argument(help="The EventSource's name.", show_default=False)]) -> None:
    """Show the contracts that a source has had, the newest first.

    Examples:

        rtml contracts list departures
    """
    from rtml.lake import Lake
    from rtml_assets.runtime.contracts import listed

    settings, registry = load_project()
    console.print(listed(Lake(settings.lake_root), source, registry.sources), highlight=False)
