"""The commands about alerts: the watch itself, and what it has told."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from rtml_assets.cli_common import load_project, load_settings

app = typer.Typer()
console = Console()


@app.command()
def watch() -> None:
    """Look at the running platform, measure what its SLAs promise, and tell of what is wrong, until Ctrl-C.

    `rtml up` runs it by itself. Who is told is in the settings RTML_ALERT_*; what it finds is in Dagster and in
    `rtml alerts`.

    Examples:

        rtml watch
        RTML_ALERT_WEBHOOK=https://example.org/hook rtml watch
    """
    from rtml_assets.watch.process import run_watch

    settings, registry = load_project()
    run_watch(settings, registry)


@app.command()
def alerts(
    days: Annotated[int, typer.Option(min=0, max=30, help="How many days back.")] = 1,
    test: Annotated[
        bool, typer.Option("--test", help="Send a test through every channel, and say what came of it.")
    ] = False,
) -> None:
    """Show what is wrong, what was in the last days, and what was done about it by itself.

    Examples:

        rtml alerts
        rtml alerts --days 7
        rtml alerts --test
    """
    from rtml_assets.watch.told import alerts_shown, send_test

    settings = load_settings()
    if test:
        raise typer.Exit(send_test(console, settings))
    console.print(alerts_shown(settings, days))
