"""The table of settings: each with its value, where that came from, and what it means."""

from __future__ import annotations

import ast
import inspect
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
from rich.table import Table

from rtml.secrets import is_secret, shown
from rtml.settings import FILE, RUN_FILE, Settings, load_settings


class Documented(NamedTuple):
    """One setting."""

    name: str
    value: str
    origin: str
    """`environment`, `rtml.toml`, `run.json` or `default`."""
    meaning: str


def documented(environment: Mapping[str, str] | None = None, folder: Path | None = None) -> list[Documented]:
    """Return all settings of a process that starts in this folder and environment."""
    environment = os.environ if environment is None else environment
    folder = Path.cwd() if folder is None else folder
    settings = load_settings(environment, folder)
    said = meanings()
    return [
        Documented(name, shown(name, getattr(settings, name)), origin(name, settings, environment, folder), said[name])
        for name in Settings.__struct_fields__
    ]


def origin(name: str, settings: Settings, environment: Mapping[str, str], folder: Path) -> str:
    """Say which of the four places a setting comes from."""
    names = (name, f"{name}{FILE}") if is_secret(name) else (name,)
    if any(f"RTML_{one.upper()}" in environment for one in names):
        return "environment"
    file = folder / "rtml.toml"
    if file.is_file() and not tomllib.loads(file.read_text()).keys().isdisjoint(names):
        return file.name
    run = folder / settings.home / RUN_FILE
    if run.is_file() and name in msgspec.json.decode(run.read_bytes()):
        return run.name
    return "default"


def is_given(name: str, settings: Settings) -> bool:
    """Say whether the user chose a setting, in the environment or in `rtml.toml`."""
    return origin(name, settings, os.environ, Path.cwd()) in ("environment", "rtml.toml")


def meanings() -> dict[str, str]:
    """Return what each setting means: the docstring beneath it in `rtml.settings.Settings`."""
    (definition,) = ast.parse(inspect.getsource(Settings)).body
    assert isinstance(definition, ast.ClassDef)
    said = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=text)):
                said[name] = str(text)
    return said


def settings_table() -> Table:
    """Return all settings of this process, for people."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("setting", style="cyan", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("from", style="dim", no_wrap=True)
    table.add_column("meaning")
    for name, value, where, meaning in documented():
        table.add_row(f"RTML_{name.upper()}", value or "—", where, meaning.replace("`", ""))
    return table
