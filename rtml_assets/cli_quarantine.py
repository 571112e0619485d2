"""The commands about what did not pass: `rtml quarantine list | show | replay | accept`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from rtml_assets.cli_common import load_project

app = typer.Typer()
quarantine = typer.Typer(
    name="quarantine",
    no_args_is_help=True,
    help="What did not pass: look at it, mend it, or let it pass. `rtml quarantine list SOURCE` to begin with.",
)
app.add_typer(quarantine)
console = Console()

Source = Annotated[str, typer.Argument(help="The EventSource's name.", show_default=False)]
Reason = Annotated[str | None, typer.Option(help="Only those of a reason, such as out_of_range.")]
Words = Annotated[str, typer.Option("--because", help="Why, for those who come after.")]


@quarantine.command("list")
def list_(source: Source) -> None:
    """Count the events in quarantine, by reason, day and state.

    A reason is the gate's code, or `check:` and the name of the check that holds the events. The day is that of the
    event, or for what the gate refused that of its arrival.

    Examples:

        rtml quarantine list departures
    """
    from rtml_assets.runtime.quarantine import summary_table

    settings, registry = load_project()
    console.print(summary_table(settings, registry.source(source)))


@quarantine.command()
def show(
    source: Source,
    reason: Reason = None,
    day: Annotated[str | None, typer.Option(help="Only those of a day.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
) -> None:
    """Show events in quarantine, the newest first: as received, with all reasons.

    Examples:

        rtml quarantine show departures --reason out_of_range --limit 3
        rtml quarantine show departures --reason check:delays --day 2013-03-01
    """
    from rtml_assets.runtime.quarantine import shown_events

    settings, registry = load_project()
    console.print(shown_events(settings, registry.source(source), reason, day, limit))


@quarantine.command()
def replay(
    source: Source,
    check: Annotated[str | None, typer.Option(help="What this check holds; else what the gate refused.")] = None,
    day: Annotated[str | None, typer.Option(help="With --check: of one day only.")] = None,
    reason: Reason = None,
    since: Annotated[str | None, typer.Option(help="Only those that came from then on.")] = None,
    fix: Annotated[str | None, typer.Option(help="module:function or file.py:function, frame → frame.")] = None,
    drop: Annotated[bool, typer.Option("--drop", help="With --check: they never count.")] = False,
    because: Words = "",
) -> None:
    """Mend events in quarantine, build the days that they touch, and all views of the source anew.

    With `--check`, the fix takes the events (the contract's columns, `ingested_at` and `id64`) and returns them
    corrected; those that it leaves out are dropped. Without, events that the gate refused are held against the contract
    as it is by now; a fix takes rows with a `payload` each, and returns those that it can mend.

    Examples:

        rtml quarantine replay departures --check delay_unit --day 2013-03-01 --fix fixes.py:to_minutes
        rtml quarantine replay departures --check duplicated_hour --fix fixes.py:first_of_each
        rtml quarantine replay departures --check null_delays --drop --because "the feed was broken"
        rtml quarantine replay departures --reason out_of_range
    """
    from rtml_assets.runtime.quarantine import Asked, run_replay

    settings, registry = load_project()
    asked = Asked(check, day, reason, since, fix, drop)
    run_replay(console, settings, registry, registry.source(source), asked, because)


@quarantine.command()
def accept(
    source: Source,
    check: Annotated[str, typer.Option(help="The check that holds them.", show_default=False)],
    day: Annotated[str, typer.Option(help="The day.", show_default=False)],
    because: Words = "",
) -> None:
    """Let a day be built as it is: the check goes on failing there, but no longer blocks.

    Examples:

        rtml quarantine accept departures --check volume --day 2013-02-09 --because "a blizzard, few flights"
    """
    from rtml_assets.runtime.quarantine import run_accept

    settings, registry = load_project()
    run_accept(console, settings, registry, registry.source(source), check, day, because)
