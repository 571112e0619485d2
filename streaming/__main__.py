"""`python -m streaming SOURCE --flow tiles|mirror`: run one flow of one source, until it is stopped."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

from bytewax._bytewax import cli_main
from bytewax.errors import BytewaxRuntimeError
from bytewax.recovery import RecoveryConfig, init_db_dir

from rtml import logs
from rtml.errors import RtmlError
from rtml.lake import Lake, raw_schema
from rtml.online import keys
from rtml.secrets import mask_logs
from rtml.settings import Settings, load_settings
from streaming.broker import RestartRequiredError, check, connect
from streaming.contracts import runs_by
from streaming.evolve import follow
from streaming.flow import FLOWS, Flow, mirror_flow, tiles_flow
from streaming.recovered import notice_history

RESTART = 75
"""The exit code that asks for a new process (`EX_TEMPFAIL`)."""


def run(source_name: str, flow: Flow, settings: Settings) -> None:
    """Run a flow; returns only when it is stopped."""
    client = connect(settings, timeout=30)
    check(client)
    deployed: Any = client.get(keys.DEPLOYED)  # before the definitions are read: what is deployed meanwhile is news
    lake = Lake(settings.lake_root)
    source, registry = runs_by(client, lake, source_name, flow, settings.features)
    # The cache is hundreds of thousands of objects without cycles: walking them took a third of the writer's time.
    gc.set_threshold(500_000, 50, 1_000)
    if flow == "mirror":
        follow(lake.raw(source_name), raw_schema(source))
    notice_history(client, lake, source)
    build = tiles_flow if flow == "tiles" else mirror_flow
    epoch = settings.tile_epoch_us if flow == "tiles" else settings.mirror_epoch_us
    cli_main(
        build(client, registry, source, settings, deployed),
        epoch_interval=timedelta(microseconds=epoch),
        recovery_config=RecoveryConfig(str(recovery_store(settings, source_name, flow))),
    )


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
    arguments = parser.parse_args()
    try:
        settings = load_settings()
        mask_logs(settings.secrets)
        logs.configure(settings.log_format, process="stream", source=arguments.source, flow=arguments.flow)
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
