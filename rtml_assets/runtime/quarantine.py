"""`rtml quarantine`: what is in it, and what mends it, on every road."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars as pl
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from rtml.define.source import EventSource
from rtml.errors import RequestError, near_miss
from rtml.instants import now, to_datetime, to_instant, to_text
from rtml.lake import EVENT_DATE, INGEST_DATE, Lake
from rtml.projection import INGESTED_AT
from rtml.registry import Registry
from rtml.settings import Settings
from rtml_assets.runtime.dagster_home import prepare
from rtml_assets.tables.mending import DROP, Decider, Fix, Mend, accept, correct, release
from rtml_assets.tables.quarantine import STATE, held, refused, summary
from rtml_assets.tables.touched import blocked_days, touched_days
from streaming.audit import actor, record

REPLAY, ACCEPT = "quarantine.replay", "quarantine.accept"


def summary_table(settings: Settings, source: EventSource) -> Table | str:
    """Return how many events of a source are in quarantine, by reason, day and state."""
    counts = summary(Lake(settings.lake_root), source)
    if counts.is_empty():
        return f"quarantine/{source.name} is empty"
    table = Table("reason", "day", "state", "events", title=f"quarantine/{source.name}", title_justify="left")
    table.columns[-1].justify = "right"
    for reason, day, state, rows in counts.rows():
        table.add_row(reason, str(day), Text(state, style="yellow" if state == "held" else "dim"), f"{rows:,}")
    return table


def shown_events(settings: Settings, source: EventSource, reason: str | None, day: str | None, limit: int) -> Group:
    """Return events in quarantine, each with its payload and all its reasons; the newest first.

    Raises:
        RequestError: there are none.
        InstantError: the day is none.
    """
    lake = Lake(settings.lake_root)
    columns = [INGESTED_AT, "day", "reason", STATE, "detail", "payload"]
    parts = [
        rows.with_columns(pl.col(of).alias("day")).select(columns)
        for rows, of in ((refused(lake, source), INGEST_DATE), (held(lake, source), EVENT_DATE))
    ]
    rows = pl.concat(parts)
    known = rows["reason"].unique().to_list()
    if reason is not None:
        rows = rows.filter(pl.col("reason") == reason)
    if day is not None:
        rows = rows.filter(pl.col("day") == to_day(day))
    if rows.is_empty():
        raise RequestError(f"quarantine/{source.name} has no such events.{near_miss(reason or '', known)}")
    panels = []
    for came, of, why, state, detail, payload in rows.sort(INGESTED_AT, descending=True).head(limit).rows():
        body = Text(payload.decode(errors="backslashreplace"), overflow="fold")
        title = Text(f"{why}, {of}, {state}")
        words = Text(detail, style="yellow")
        panels.append(Panel(Group(words, body), title=title, subtitle=f"came {to_text(to_instant(came))}"))
    return Group(f"quarantine/{source.name}: {len(panels):,} of {rows.height:,} events", *panels)


@dataclass(frozen=True)
class Asked:
    """Which events to mend, and how: the options of `rtml quarantine replay`."""

    check: str | None = None
    day: str | None = None
    reason: str | None = None
    since: str | None = None
    fix: str | None = None
    drop: bool = False

    def mend(self, lake: Lake, source: EventSource, decider: Decider) -> Mend:
        """Decide.

        Raises:
            RequestError: the options do not fit together, nothing is in quarantine so, or the fix returns something
                else.
        """
        self._validate()
        function = DROP if self.drop else None if self.fix is None else load_fix(self.fix)
        if self.check is not None and function is not None:
            day = None if self.day is None else to_day(self.day)
            return correct(lake, source, self.check, day, function, decider)
        since = None if self.since is None else to_instant(self.since)
        return release(lake, source, self.reason, since, function, decider)

    def __str__(self) -> str:
        """Return it in words."""
        which = f"check {self.check}" if self.check else self.reason or "all that was refused"
        return f"{which}, {'dropped' if self.drop else f'by {self.fix}' if self.fix else 'as they are'}"

    def _validate(self) -> None:
        if self.check is None:
            if self.drop or self.day is not None:
                raise RequestError("--drop and --day are for what a check holds: say which with --check")
            return
        if self.reason is not None or self.since is not None:
            raise RequestError("--reason and --since are for what the gate refused, --check for what a check holds")
        if self.drop == (self.fix is not None):
            got = "both" if self.drop else "neither: to let them count as they are, use `rtml quarantine accept`"
            raise RequestError(f"--check needs --fix or --drop; got {got}")


def run_replay(
    console: Console, settings: Settings, registry: Registry, source: EventSource, asked: Asked, words: str
) -> None:
    """Mend events in quarantine, then build what they touch; say what was done.

    Raises:
        RequestError: the options do not fit together, nothing is in quarantine so, or the fix returns something else.
        CompactionError: what was decided stands, and a run that builds on it failed.
    """
    lake, decider = Lake(settings.lake_root), Decider(now(), actor(), words)
    try:
        done = asked.mend(lake, source, decider)
    except Exception as error:
        record(lake, action=REPLAY, target=source.name, actor=decider.actor, outcome="failed", detail=str(error)[:500])
        raise
    told = _in_words(done)
    record(lake, action=REPLAY, target=source.name, actor=decider.actor, detail=f"{asked}: {told}")
    console.print(f"{source.name}: {told}", highlight=False)
    for code, count, example in done.still:
        words = f"{count:,} stay, refused again as {code}: {example}"
        console.print(words, style="yellow", highlight=False, markup=False)  # the example quotes an event
    if done.days:
        _build(console, settings, registry, source)


def run_accept(
    console: Console, settings: Settings, registry: Registry, source: EventSource, check: str, day: str, words: str
) -> None:
    """Let a day be built although a check fails, and build it.

    Raises:
        RequestError: the check holds nothing of that day.
        CompactionError: what was decided stands, and a run that builds on it failed.
    """
    lake, decider = Lake(settings.lake_root), Decider(now(), actor(), words)
    count = accept(lake, source, check, to_day(day), decider)
    told = f"{count:,} events of {day} are accepted as they are, whatever {check} says"
    record(lake, action=ACCEPT, target=source.name, actor=decider.actor, detail=told)
    console.print(f"{source.name}: {told}", highlight=False)
    _build(console, settings, registry, source)


def load_fix(path: str) -> Fix:
    """Return the function that `module:function` or `file.py:function` names.

    Raises:
        RequestError: there is none.
    """
    where, _, name = path.rpartition(":")
    if not where:
        raise RequestError(f"--fix must be module:function or file.py:function; got {path!r}")
    module = _module_of_file(Path(where)) if where.endswith(".py") else _module(where)
    function: Callable[[pl.DataFrame], pl.DataFrame] | None = vars(module).get(name)
    if not callable(function):
        known = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        raise RequestError(f"--fix: no function {name!r} in {where!r}.{near_miss(name, known)}")
    return function


def to_day(text: str) -> date:
    """Return the day of an instant in words, such as 2013-03-01."""
    return to_datetime(to_instant(text)).date()


def _module(name: str) -> object:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            raise RequestError(f"--fix: no module {name!r}: expected module:function or file.py:function") from None
        raise


def _module_of_file(path: Path) -> object:
    spec = importlib.util.spec_from_file_location(f"rtml_fix_{path.stem}", path) if path.is_file() else None
    if spec is None or spec.loader is None:
        raise RequestError(f"--fix: there is no file {str(path)!r}")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look it up
    spec.loader.exec_module(module)
    return module


def _in_words(done: Mend) -> str:
    parts = [f"{count:,} {what}" for what in ("corrected", "dropped", "released") if (count := getattr(done, what))]
    days = f" on {done.days[0]}" + (f" to {done.days[-1]}" if len(done.days) > 1 else "") if done.days else ""
    told = (", ".join(parts) or "nothing released") + days
    return told + (f"; {done.elsewhere:,} were decided on by somebody else meanwhile" if done.elsewhere else "")


def _build(console: Console, settings: Settings, registry: Registry, source: EventSource) -> None:
    """Build the days that were touched, and the views: versions with the old values are built anew."""
    # Dagster takes seconds to import.
    from dagster import DagsterInstance  # noqa: PLC0415

    from rtml_assets.defs.materialize import CompactionError, Summary, materialize_days  # noqa: PLC0415

    lake, plans = Lake(settings.lake_root), [registry.plans[view.name] for view in registry.views_of(source.name)]
    blocked = blocked_days(lake, source)
    days = [day for day in touched_days(lake, source, plans) if day not in blocked]
    with DagsterInstance.from_config(str(prepare(settings.home_path))) as instance, console.status("building"):
        try:
            done = materialize_days(settings, registry, days, instance=instance, sources=[source.name])
        except CompactionError as error:
            # History ends at the first day that is held: with one there may be nothing to publish yet.
            if not blocked or set(days).intersection(touched_days(lake, source, plans)):
                raise
            done = Summary(days={source.name: days}, warnings=[str(error)])
    for warning in done.warnings:  # they quote events, which are no markup
        console.print(warning, style="yellow", highlight=False, markup=False)
    console.print(f"built {_listed(done.days[source.name])} in {done.seconds:.1f} s", highlight=False)
    if blocked:
        console.print(f"held by checks still: {_listed(sorted(blocked))}", style="yellow", highlight=False)
    for view, published in done.published.items():
        version = f"version {published['version']} is" if "version" in published else "is"
        console.print(f"{view}: {version} {published['state']}", highlight=False)


def _listed(days: Sequence[date]) -> str:
    return ", ".join(str(day) for day in days) or "nothing"
