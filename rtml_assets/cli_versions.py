"""The commands about versions: what has changed, backfills, promotions and the way back."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from rtml_assets.cli_common import connected, load_project

app = typer.Typer()
console = Console()

View = Annotated[str, typer.Argument(help="The StreamFeatureView's name.", show_default=False)]
Service = Annotated[str, typer.Argument(help="The FeatureService's name.", show_default=False)]


@app.command()
def diff(
    service: Annotated[str | None, typer.Argument(help="A FeatureService's name; by default all.")] = None,
) -> None:
    """Show how definitions differ from what is served, and what it takes to serve them.

    Examples:

        rtml diff
        rtml diff eta
    """
    from rtml.lake import Lake
    from rtml_assets.runtime.contracts import differences
    from rtml_assets.runtime.diff import diff as compare
    from rtml_assets.runtime.diff import rendered

    settings, registry = load_project()
    with connected(settings) as client:
        found = compare(client, Lake(settings.lake_root), registry, service)
        contracts = differences(client, Lake(settings.lake_root), registry)
    if contracts is not None:
        console.print(contracts, highlight=False)
    console.print(rendered(found))


@app.command()
def deploy(
    force: Annotated[
        bool, typer.Option("--force", help="Even if what is served cannot be written on, or a contract is refused.")
    ] = False,
) -> None:
    """Have all running processes load the definitions of now; what is served stays as it is until `rtml promote`.

    Examples:

        rtml deploy
    """
    from rtml.lake import Lake
    from rtml_assets.runtime.contracts import put_in_force
    from rtml_assets.runtime.deployments import deploy as tell

    settings, registry = load_project()
    with connected(settings) as client:
        put_in_force(client, Lake(settings.lake_root), registry, force=force)
        notes = tell(client, registry, force=force)
    console.print(f"deployed {len(registry.views)} views: the flows and Dagster load them", highlight=False)
    for note in notes:
        console.print(f"[yellow]{note}", highlight=False)


@app.command()
def backfill(
    view: View,
    start: Annotated[str | None, typer.Option("--from", help="The first day, such as 2013-01-01.")] = None,
    end: Annotated[str | None, typer.Option("--to", help="The day after the last one.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Also days that are built already.")] = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="And a new build of what is served, as after a correction of its data.")
    ] = False,
) -> None:
    """Build a view's past days through Dagster, and publish its history beside what is served.

    It may be stopped and repeated: days that are built are left out. It does not disturb the live stream.

    Examples:

        rtml backfill origin_departures
        rtml backfill origin_departures --from 2013-01-01 --to 2013-02-01 --all
    """
    from rtml_assets.runtime.backfill import run_backfill

    settings, registry = load_project()
    run_backfill(console, settings, registry, view, start, end, every=every, rebuild=rebuild)


@app.command()
def promote(
    service: Service,
) -> None:
    """Serve a service as it is defined now: at once, and only when all that it reads is complete and proven.

    Examples:

        rtml promote eta
    """
    from rtml_assets.runtime.promoting import run_promote

    settings, registry = load_project()
    run_promote(console, settings, registry, service)


@app.command()
def rollback(service: Service) -> None:
    """Serve a service as it was before its last promotion.

    Examples:

        rtml rollback eta
    """
    from rtml_assets.runtime.promoting import run_rollback

    settings, _ = load_project()
    run_rollback(console, settings, service)


@app.command()
def retire(service: Service) -> None:
    """Serve a service that is no longer defined no longer; `rtml rollback` brings it back.

    Examples:

        rtml retire eta
    """
    from rtml.errors import RequestError
    from rtml.instants import now
    from rtml.lake import Lake
    from streaming.audit import audited
    from streaming.services import retire_service

    settings, registry = load_project()
    if service in registry.services:
        raise RequestError(f"service {service!r} is defined: remove its definition first, or it would come back")
    with connected(settings) as client, audited(Lake(settings.lake_root), "retire", service):
        retire_service(client, service, now())
    console.print(f"{service} is served no longer")
