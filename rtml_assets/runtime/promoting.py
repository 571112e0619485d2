"""`rtml promote` and `rtml rollback`: what becomes of them, in words."""

from __future__ import annotations

from rich.console import Console

from rtml.instants import now
from rtml.lake import Lake
from rtml.registry import Registry
from rtml.settings import Settings
from rtml_assets.cli_common import connected
from rtml_assets.tables.promotion import Promotion, promote, rollback
from rtml_assets.tables.proof import prover
from streaming.audit import audited


def run_promote(console: Console, settings: Settings, registry: Registry, name: str) -> None:
    """Promote a service.

    Raises:
        UnknownNameError, NotReadyError: it cannot be; names what is in the way.
    """
    lake = Lake(settings.lake_root)
    with (
        connected(settings) as client,
        console.status(f"promoting {name}"),
        audited(lake, "promote", name) as words,
    ):
        outcome = promote(lake, client, registry, name, now(), prover(lake, client, registry))
        words.append(outcome.words)
    _tell(console, outcome)


def run_rollback(console: Console, settings: Settings, name: str) -> None:
    """Roll a service back.

    Raises:
        RequestError, NotReadyError: it cannot be; names what is in the way.
    """
    lake = Lake(settings.lake_root)
    with connected(settings) as client, audited(lake, "rollback", name) as words:
        outcome = rollback(client, name, now(), settings.version_grace_us)
        words.append(outcome.words)
    _tell(console, outcome)


def _tell(console: Console, outcome: Promotion) -> None:
    service = outcome.service
    if not outcome.changed:
        console.print(f"{service.name} is served as it is defined already")
        return
    before = {} if outcome.before is None else outcome.before.fingerprints
    console.print(f"{service.name} v{service.version} is served now", highlight=False)
    for view, fingerprint in service.fingerprints.items():
        was = before.get(view)
        told = "as before" if was == fingerprint else f"was {was}" if was else "new"
        console.print(f"  {view} {fingerprint} ({told})", highlight=False)
