"""`python -m streaming SOURCE --flow tiles|mirror`: run one flow of one source, until it is stopped.

A tiles flow runs in as many processes as `RTML_STREAM_PROCESSES` says; this one starts the others, and ends with them.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from bytewax._bytewax import cli_main
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.recovery import RecoveryConfig, init_db_dir

from rtml import logs
from rtml.define.written import Kept
from rtml.errors import RtmlError, UnknownNameError
from rtml.instants import Duration
from rtml.lake import Lake, raw_schema
from rtml.online import keys
from rtml.plan import Plan
from rtml.registry import load
from rtml.secrets import mask_logs
from rtml.settings import Settings, load_settings
from streaming.adoption import written_views
from streaming.broker import RestartRequiredError, check, connect
from streaming.contracts import runs_by
from streaming.evolve import follow
from streaming.flow import FLOWS, Flow, adopt, mirror_flow, tiles_flow
from streaming.group import RESTART, Leader, Member, Process, ending
from streaming.recovered import notice_history


def run(source_name: str, flow: Flow, settings: Settings) -> None:
    """Run a flow, in several processes where it may have them; returns only when it is stopped."""
    client = connect(settings, timeout=30)
    check(client)
    several = flow == "tiles" and settings.stream_processes > 1
    # Members take a while to start: before what is theirs to know.
    leader = Leader(settings.stream_processes, _member_command(source_name)) if several else None
    deployed: Any = client.get(keys.DEPLOYED)  # before the definitions are read: what is deployed meanwhile is news
    lake = Lake(settings.lake_root)
    source, registry = runs_by(client, lake, source_name, flow, settings.features)
    if flow == "mirror":
        follow(lake.raw(source_name), raw_schema(source))
    notice_history(client, lake, source)
    if flow == "mirror":
        _run(mirror_flow(client, source, settings, deployed), settings.mirror_epoch_us, settings, source_name, flow)
        return
    adoption = adopt(client, registry, source, settings)
    if leader:
        client.delete(keys.figure_parts(source_name, flow))
        recovery_store(settings, source_name, flow)
        names = tuple(version.name for _, version in adoption.views)
        leader.order(Kept.of(source), names, deployed)
    built = tiles_flow(client, source, settings, deployed, adoption.views, adoption, leader)
    _run(built, settings.tile_epoch_us, settings, source_name, flow, leader)


def follow_leader(settings: Settings, member: Member) -> None:
    """Run one of several processes of a tiles flow, as the leader orders."""
    client = connect(settings, timeout=30)
    check(client)
    orders = member.orders
    source = orders.source.source()
    views = written_views(client, source, orders.versions)
    if len(views) != len(orders.versions):
        raise RestartRequiredError(f"some of the versions {', '.join(orders.versions)} are gone; a new process looks")
    load_functions(settings.features, [version.plan for _, version in views])
    built = tiles_flow(client, source, settings, orders.deployed, views, group=member)
    _run(built, settings.tile_epoch_us, settings, source.name, "tiles", member)


def load_functions(features: str, plans: Iterable[Plan]) -> None:
    """Load the definitions where plans need functions of theirs; all else that they say is in the plans."""
    for plan in plans:
        try:
            plan.require_functions()
        except UnknownNameError:
            load(features)
            plan.require_functions()


def _run(
    built: Dataflow, epoch: Duration, settings: Settings, source: str, flow: Flow, group: Process | None = None
) -> None:
    # The cache is hundreds of thousands of objects without cycles: walking them took a third of the writer's time.
    gc.set_threshold(500_000, 50, 1_000)
    recovery = RecoveryConfig(str(recovery_store(settings, source, flow)))
    interval = timedelta(microseconds=epoch)
    if group is None:
        cli_main(built, epoch_interval=interval, recovery_config=recovery)
        return
    with ending(group):
        where = {"process_id": group.place.process, "addresses": list(group.addresses)}
        cli_main(built, epoch_interval=interval, recovery_config=recovery, **where)


def _member_command(source: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "streaming", source, "--flow", "tiles", "--member")


def recovery_store(settings: Settings, source: str, flow: Flow) -> Path:
    """Return the folder of a flow's recovery store, made when there is none."""
    folder = settings.home_path / "recovery" / f"{source}-{flow}"
    if not folder.is_dir():
        # Bytewax reads its snapshots as pickles, which run what they are given: nobody else may write here.
        folder.mkdir(parents=True, mode=0o700)
        init_db_dir(folder, 1)
    return folder


def main() -> int:
    """Parse the command line, and run."""
    parser = argparse.ArgumentParser(prog="python -m streaming", description=__doc__)
    parser.add_argument("source", help="the EventSource's name")
    parser.add_argument("--flow", choices=FLOWS, required=True, help="which of the two flows")
    parser.add_argument("--member", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    member = Member() if arguments.member else None
    try:
        settings = load_settings()
        mask_logs(settings.secrets)
        logs.configure(settings.log_format, process="stream", source=arguments.source, flow=arguments.flow)
        if member:
            with ending(member):
                follow_leader(settings, member)
        run(arguments.source, arguments.flow, settings)
    except RtmlError as error:
        logging.getLogger("streaming").error("%s", error)
        return RESTART
    except BytewaxRuntimeError as error:
        reason = _reason(error)
        if reason is None:
            raise
        logging.getLogger("streaming").warning("%s", reason)
        return RESTART
    return 0


def _reason(error: BaseException | None) -> RestartRequiredError | None:
    """Return why the process asked for a successor, if it did; Bytewax wraps what is raised in its steps."""
    while error is not None:
        if isinstance(error, RestartRequiredError):
            return error
        error = error.__cause__ or error.__context__
    return None


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
