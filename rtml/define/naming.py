"""What every definition has in common: a name, people who own it, and a place in a file."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rtml.errors import DefinitionError, InstantError
from rtml.instants import Duration, parse_duration

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_OWNER = re.compile(r"team:[\w.-]+|[^@\s]+@[^@\s]+\.[^@\s]+")
_PACKAGE = str(Path(__file__).resolve().parent.parent)


def place() -> str:
    """Return `file.py:line` of the user's code that is defining something now."""
    frame = sys._getframe(1)
    while frame.f_back and (frame.f_code.co_filename.startswith(_PACKAGE) or frame.f_code.co_filename == "<string>"):
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def check_name(kind: str, name: object) -> str:
    """Return `kind 'name' (file.py:line)`, the words with which errors about it begin.

    Raises:
        DefinitionError: the name is not an identifier, or holds the `__` that separates view from feature.
    """
    where = f"{kind} {name!r} ({place()})"
    if not isinstance(name, str) or not _NAME.fullmatch(name) or "__" in name:
        raise DefinitionError(
            f"{where}: a name is letters, digits and single underscores, from a letter on, at most 64"
        )
    return where


def check_owners(where: str, owners: Sequence[str]) -> None:
    """Refuse an owner that is neither an e-mail address nor `team:…`."""
    for owner in check_list(where, "owners", owners, "a list of e-mail addresses or 'team:<name>'"):
        if not _OWNER.fullmatch(str(owner)):
            raise DefinitionError.at(where, "owners", "e-mail addresses or 'team:<name>'", owner)


def check_duration(where: str, parameter: str, text: str, *, zero: bool = False) -> Duration:
    """Return the microseconds of a parameter that is a duration."""
    if zero and text in ("0", "0s"):
        return 0
    try:
        return parse_duration(text)
    except InstantError as error:
        raise DefinitionError(f"{where}: {parameter}: {error}") from None


def check_list(where: str, parameter: str, value: object, words: str) -> Sequence[Any]:
    """Return a parameter that is a list, and refuse any other in words: a string is none."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise DefinitionError.at(where, parameter, words, value)
    return value


def check_type(where: str, parameter: str, value: object, expected: type | tuple[type, ...], words: str) -> None:
    """Refuse a parameter of another type, in words."""
    if not isinstance(value, expected):
        raise DefinitionError.at(where, parameter, words, value)
