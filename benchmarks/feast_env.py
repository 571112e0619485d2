"""The environment of a peer that is Feast: made by the benchmarks, apart from our own, and kept for the next run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from rtml.errors import RtmlError

VERSION = "0.67"
FOLDER = Path(".rtml", "bench", "feast")
ADDRESS = re.compile(r"[a-z+]+://[^\s`)]+")
INSTALLING_SECONDS = 600


class PeerError(RtmlError):
    """Feast could not be asked; says why."""


def environment(folder: Path = FOLDER) -> Path:
    """Return the Python of an environment with Feast, made where it is not there yet.

    Raises:
        PeerError: there is no uv, or Feast cannot be installed.
    """
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise PeerError("there is no uv to install Feast with")
    python = folder / "bin" / "python"
    wanted = [f"feast[redis]=={VERSION}.*", "pandas<3"]
    for argv in (
        ["venv", "--quiet", "--allow-existing", "--python", sys.executable, str(folder)],
        ["pip", "install", "--quiet", "--python", str(python), *wanted],
    ):
        ran([uv, *argv], INSTALLING_SECONDS, "Feast cannot be installed")
    return python


def ran(argv: list[str], seconds: float, failure: str) -> str:
    """Run a command and return what it prints; Feast's telemetry is off.

    Raises:
        PeerError: it failed; says `failure` and what it printed last, without addresses.
    """
    environ = os.environ | {"FEAST_USAGE": "False"}
    try:
        done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=seconds, env=environ)
    except subprocess.TimeoutExpired:
        raise PeerError(f"{failure}: no end after {seconds:g} s") from None
    except subprocess.CalledProcessError as error:
        lines = [line.strip() for line in error.stderr.splitlines() if line.strip()]
        reason = lines[-1] if lines else f"exit code {error.returncode}"
        raise PeerError(f"{failure}: {ADDRESS.sub('…', reason)}") from None
    return done.stdout
