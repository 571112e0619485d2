"""The command `rtml cost`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from rtml_assets.cli_common import connected, load_project

app = typer.Typer()
console = Console()


@app.command()
def cost(
    view: Annotated[str, typer.Argument(help="The StreamFeatureView's name.", show_default=False)],
    entities: Annotated[
        float | None,
        typer.Option(min=1, help="For how many entities to project, such as 1e6; by default those there are."),
    ] = None,
    sample: Annotated[int, typer.Option(min=1, help="How many entities to measure at most.")] = 1_000,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to look for them at most.")] = 10.0,
    json: Annotated[bool, typer.Option("--json", help="Print it as JSON, for machines.")] = False,
) -> None:
    """Measure what a view costs: bytes of an entity and of an event in Redis and in the lake, and of many entities.

    It reads some entities from Redis and changes nothing. Where nothing of the view is served yet, or Redis does not
    answer, it estimates from the definition, and says so.

    Examples:

        rtml cost origin_departures
        rtml cost origin_departures --entities 1e6
        rtml cost origin_departures --json | jq .online.per_entity
    """
    import msgspec

    from rtml.errors import UnknownNameError
    from rtml.lake import Lake
    from rtml_assets.runtime.cost import cost as measure
    from rtml_assets.runtime.cost_shown import rendered
    from rtml_assets.runtime.online import live_versions

    settings, registry = load_project()
    if view not in registry.plans:
        raise UnknownNameError.of("view", view, registry.plans)
    plan, live, lake = registry.plans[view], live_versions(settings)(view), Lake(settings.lake_root)
    version = live.get(plan.fingerprint) or next(iter(live.values()), None)
    count = None if entities is None else round(entities)
    if version is None:
        found = measure(None, None, plan, lake, entities=count)
    else:
        with connected(settings) as client:
            found = measure(client, version, plan, lake, entities=count, sample=sample, seconds=seconds)
    if json:
        typer.echo(msgspec.json.encode(found))
    else:
        console.print(rendered(found))
