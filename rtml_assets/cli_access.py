"""The commands about who may do what, and who did: API keys, and the audit."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from rtml_assets.cli_common import load_project, load_settings

_KEYS = """
API keys of the feature server, which asks for them where it listens beyond this machine (`RTML_AUTH`).

Examples:

    rtml keys create eta-model --scope read:eta --expires 90d
    rtml keys list
    rtml keys rotate eta-model
    rtml keys revoke eta-model
"""

app = typer.Typer()
keys = typer.Typer(no_args_is_help=True, help=_KEYS)
app.add_typer(keys, name="keys")
console = Console()

Name = Annotated[str, typer.Argument(help="The key's name: who or what uses it.", show_default=False)]


@keys.command()
def create(
    name: Name,
    scope: Annotated[
        list[str], typer.Option(help="`read:<service>`, `push:<source>`, either with `*`, or `admin`; repeatable.")
    ],
    expires: Annotated[str | None, typer.Option(help="After how long it ends, such as 90d; by default never.")] = None,
) -> None:
    """Make a key, and show it this once: what is kept is a hash of it.

    Examples:

        rtml keys create eta-model --scope read:eta --expires 90d
        rtml keys create gate-feed --scope push:departures --scope push:arrivals
    """
    from rtml_assets.runtime.keys import create_key

    settings, registry = load_project()
    console.print(create_key(settings, registry, name, scope, expires), soft_wrap=True, highlight=False, markup=False)


@keys.command("list")
def list_keys() -> None:
    """Show all keys: their scopes, and until when they count. The keys themselves are not kept.

    Examples:

        rtml keys list
    """
    from rtml_assets.runtime.keys import keys_table

    console.print(keys_table(load_settings()))


@keys.command()
def rotate(
    name: Name,
    grace: Annotated[str, typer.Option(help="How long the old key still counts; 0s for not at all.")] = "1d",
) -> None:
    """Make a new key of the same name, scopes and end; the old one counts for a while yet.

    Examples:

        rtml keys rotate eta-model
        rtml keys rotate eta-model --grace 1h
    """
    from rtml_assets.runtime.keys import rotate_key

    console.print(rotate_key(load_settings(), name, grace), soft_wrap=True, highlight=False, markup=False)


@keys.command()
def revoke(name: Name) -> None:
    """End all keys of a name; servers know within a second.

    Examples:

        rtml keys revoke eta-model
    """
    from rtml_assets.runtime.keys import revoke_keys

    console.print(revoke_keys(load_settings(), name), soft_wrap=True, highlight=False, markup=False)


@app.command()
def audit(
    since: Annotated[str | None, typer.Option(help="From then on: an instant, or how long ago, such as 7d.")] = None,
    action: Annotated[str | None, typer.Option(help="Only this, such as promote or request.denied.")] = None,
) -> None:
    """Show who did what: keys, promotions, replays of what was refused, denied requests.

    Examples:

        rtml audit --since 7d
        rtml audit --action request.denied
    """
    from rtml_assets.runtime.audit_table import audit_table

    console.print(audit_table(load_settings(), since, action))
