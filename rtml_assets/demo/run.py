"""`rtml demo`: from an empty folder to features of real flights, live or checked."""

from __future__ import annotations

import os

from rich.console import Console

from rtml.registry import load
from rtml.settings import load_settings
from rtml_assets.demo.flights import BOUNDARY, END, ONE_DAY
from rtml_assets.demo.once import RESULT_FILE, check_one_day
from rtml_assets.demo.phases import Phases
from rtml_assets.demo.settings import FEATURES, demo_settings, wipe
from rtml_assets.demo.show import show
from rtml_assets.demo.stage import Stage
from rtml_assets.runtime.documented import is_given
from rtml_assets.runtime.progress import progress_bar
from rtml_assets.runtime.project import Project
from rtml_assets.runtime.up import until_told

INTERRUPTED = 130


def run_demo(console: Console, *, once: bool, speed: float | None) -> int:
    """Run the demo until it is told to stop, or one checked day of it; return the exit code.

    Args:
        console: where it is shown.
        once: replay one day, check it, and end.
        speed: how many times faster than in 2013 the flights come.
    """
    given = load_settings()
    settings = demo_settings(given)
    wipe(settings)
    (given.home_path / RESULT_FILE).unlink(missing_ok=True)  # a run that fails leaves no summary, not the last one's
    registry = load(FEATURES)
    embedded = not is_given("redis_url", given)
    # A check for machines needs neither a UI nor somebody who is told.
    project = Project(settings, list(registry.sources), embedded=embedded, dagster=not once, watch=not once)
    stage = Stage(project, registry, BOUNDARY + ONE_DAY if once else END)
    code = INTERRUPTED if once else 0
    with until_told():
        try:
            with progress_bar(console) as bars:
                phases = Phases(bars)
                stage.prepare(phases)
                checked = check_one_day(stage, phases, speed) if once else None
            code = checked.tell(console, given.home_path) if checked else show(console, stage, speed)
        finally:
            with console.status("stopping"):
                project.stop()
            console.print(f"stopped; what the demo kept is in {os.path.relpath(settings.home_path)}")
    return code
