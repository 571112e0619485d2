"""The command `rtml`. What a command needs is imported when it runs, so that `rtml --help` is at once there."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from rtml.errors import RtmlError
from rtml.secrets import mask
from rtml_assets import cli_access, cli_contracts, cli_cost, cli_doctor, cli_quarantine, cli_versions, cli_watch
from rtml_assets.cli_common import connected, load_project, load_settings

if TYPE_CHECKING:
    import polars as pl

    from rtml.define.source import EventSource
    from rtml.settings import Settings

app = typer.Typer(
    name="rtml",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
Write a feature once; stream it, serve it, backfill it, and prove that all agree.

First look: `rtml demo`. Your own project: write a `features.py`, then

    export RTML_FEATURES=features.py
    rtml describe   # what your definitions mean
    rtml up         # Redis, the stream, the feature server and Dagster, until Ctrl-C

Every setting is `RTML_*` in the environment or a line of `rtml.toml`; `rtml settings` shows them all.
""",
)
console = Console()


class FlowName(StrEnum):
    """Which flow of a source."""

    tiles = "tiles"
    mirror = "mirror"
    both = "both"


class Edge(StrEnum):
    """Where a request's windows end."""

    wall_clock = "wall_clock"
    watermark = "watermark"


Source = Annotated[str, typer.Argument(help="The EventSource's name.", show_default=False)]
HistoryFile = Annotated[
    Path | None,
    typer.Option("--from", help="A .parquet, .csv or .ndjson file; by default the project's own history."),
]
ArrivedFrom = Annotated[str | None, typer.Option(help="Only events that arrived from then on.")]
ArrivedBefore = Annotated[str | None, typer.Option(help="Only events that arrived before then.")]
StampsColumn = Annotated[str, typer.Option(help="The column that says when each arrived.")]


@app.command()
def demo(
    once: Annotated[bool, typer.Option("--once", help="Replay one day, check 200 served vectors, and exit.")] = False,
    speed: Annotated[
        float | None,
        typer.Option(min=1, help="How many times faster than in 2013; by default 3600, or 14400 with --once."),
    ] = None,
) -> None:
    """Real flights through the whole platform, live in this terminal.

    New York's departures and arrivals of January and February 2013 become history; March is then replayed
    through the stream. Everything lives in `.rtml/demo`, which each start wipes.

    Examples:

        rtml demo                 # until Ctrl-C
        rtml demo --speed 600     # ten minutes of 2013 a second
        rtml demo --once          # a check of everything, for machines
    """
    from rtml_assets.demo.run import run_demo

    raise typer.Exit(run_demo(console, once=once, speed=speed))


@app.command()
def up(
    dagster: Annotated[bool, typer.Option(help="Run Dagster's UI and daemon.")] = True,
    server: Annotated[bool, typer.Option(help="Run the feature server.")] = True,
    watch: Annotated[bool, typer.Option(help="Run the watch, which tells of what goes wrong.")] = True,
) -> None:
    """Run all processes of this project, and restart those that die, until Ctrl-C.

    That is the embedded Redis (unless RTML_REDIS_URL names one), two flows for every source, the feature server,
    Dagster's UI and daemon, and the watch. What they say is in `.rtml/logs`.

    Examples:

        RTML_FEATURES=features.py rtml up
        rtml up --no-dagster      # only what serves features
    """
    from rtml_assets.runtime.project import forget_last_run
    from rtml_assets.runtime.up import run_up

    forget_last_run(load_settings().home_path)
    settings, registry = load_project()
    raise typer.Exit(run_up(console, settings, registry, server=server, dagster=dagster, watched=watch))


@app.command()
def stream(
    source: Source,
    flow: Annotated[FlowName, typer.Option(help="Which of its two flows.")] = FlowName.both,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Go back first: read again what was ingested from this instant on."),
    ] = None,
) -> None:
    """Run a source's flows: `tiles` to Redis, `mirror` to the lake.

    Examples:

        rtml stream departures
        rtml stream departures --flow tiles
        rtml stream departures --from 2013-03-01T06:00:00Z   # nothing counts twice
    """
    from rtml_assets.runtime.rewind import rewind
    from rtml_assets.runtime.up import run_flows

    settings, registry = load_project()
    definition = registry.source(source)
    if start is not None:
        with connected(settings) as client:
            console.print(rewind(client, settings, registry, definition, start), highlight=False)
    chosen = [name.value for name in FlowName if name is not FlowName.both and flow in (name, FlowName.both)]
    raise typer.Exit(run_flows(console, settings, source, chosen))


@app.command()
def serve() -> None:
    """Run the feature server on RTML_HOST and RTML_PORT, with its page and its API at `/`.

    Examples:

        rtml serve
        RTML_PORT=9000 rtml serve
    """
    from serving.run import serve as run_server

    run_server(load_settings())


@app.command()
def replay(
    source: Source,
    file: HistoryFile = None,
    speed: Annotated[
        float, typer.Option(min=0, help="How many times faster than it happened; 0: as fast as can be.")
    ] = 0,
    start: ArrivedFrom = None,
    end: ArrivedBefore = None,
    stamps: StampsColumn = "ingested_at",
) -> None:
    """Send history into a source's stream, under its own stamps and in their order.

    Needs RTML_ACCEPT_STAMPS=true, here and for the flows. Without a file, the events are those of the function
    named like the source in the module `data` beside the definitions, as in `examples/flights`.

    Examples:

        rtml replay departures --start 2013-03-01 --end 2013-03-02 --speed 3600
        rtml replay payments --from payments.parquet
    """
    from rtml_assets.runtime.replay import replay_one

    settings, definition, events = _history(source, file, stamps, start, end)
    replay_one(console, settings, definition, events, speed)


@app.command()
def land(
    source: Source,
    file: HistoryFile = None,
    start: ArrivedFrom = None,
    end: ArrivedBefore = None,
    stamps: StampsColumn = "ingested_at",
) -> None:
    """Append history to the lake, checked against the contract; compaction or `rtml backfill` builds on it.

    Where a file is cut, `--end` says before when all that arrived is in it. It may be done beside running flows: the
    next compaction makes a new build, which counts what was landed.

    Examples:

        rtml land departures --end 2013-03-01
        rtml land payments --from payments.parquet
    """
    from rtml_assets.runtime.landing import land_history

    settings, definition, events = _history(source, file, stamps, start, end)
    land_history(console, settings, definition, events, end)


@app.command()
def get(
    service: Annotated[str, typer.Argument(help="The FeatureService's name.", show_default=False)],
    keys: Annotated[list[str], typer.Argument(help="The entities' join keys.", metavar="KEY=VALUE…")],
    at: Annotated[
        str | None, typer.Option(help="The instant that windows end at, such as 2013-03-01T12:00:00Z.")
    ] = None,
    edge: Annotated[Edge, typer.Option(help="Where windows end unless --at says.")] = Edge.wall_clock,
) -> None:
    """Read the features of one entity, straight from Redis, as a model would.

    Examples:

        rtml get eta origin=JFK carrier=UA dest=LAX route=JFK-LAX --edge watermark
    """
    from rtml_assets.runtime.online import vector_table

    console.print(vector_table(load_settings(), service, keys, at, edge.value))


@app.command()
def describe(
    name: Annotated[str | None, typer.Argument(help="A source, entity, view or service; by default all.")] = None,
) -> None:
    """Say what definitions mean: windows and their edges, tiles, states, versions.

    Examples:

        rtml describe                     # the whole project
        rtml describe origin_departures   # one view
    """
    from rtml_assets.runtime import describe as words
    from rtml_assets.runtime.online import live_versions

    settings, registry = load_project()
    console.print(words.describe(registry, name, live_versions(settings)))


@app.command("settings")
def showload_settings() -> None:
    """Show every setting: its value, where that comes from, and what it means.

    The environment (`RTML_*`) goes before `rtml.toml`, that before `.rtml/run.json`, which a running `rtml up`
    writes, and that before the defaults.
    """
    from rtml_assets.runtime.documented import settings_table

    console.print(settings_table())


def _history(
    source: str, file: Path | None, stamps: str, start: str | None, end: str | None
) -> tuple[Settings, EventSource, pl.DataFrame]:
    from rtml_assets.runtime.history import read_history

    settings, registry = load_project()
    definition = registry.source(source)
    with console.status(f"reading the history of {source}"):
        return settings, definition, read_history(definition, settings.features, file, stamps, start, end)


app.add_typer(cli_versions.app)
app.add_typer(cli_quarantine.app)
app.add_typer(cli_contracts.app, name="contracts")
app.add_typer(cli_doctor.app)
app.add_typer(cli_cost.app)
app.add_typer(cli_access.app)
app.add_typer(cli_watch.app)


def main() -> None:
    """Run the command; what goes wrong on purpose is one red line."""
    try:
        app()
    except RtmlError as error:
        fail(error)
        sys.exit(1)


def fail(error: Exception) -> None:
    """Print an error without its traceback."""
    from rich.text import Text

    Console(stderr=True).print(Text(f"error: {mask(str(error))}", style="bold red"), soft_wrap=True)


if __name__ == "__main__":
    main()
