"""`rtml keys`: API keys made, rotated and revoked, in the lake first, then in Redis, and in the audit."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import redis
from rich.table import Table

from rtml import access
from rtml.access import ADMIN, EVERY, Key, checked_scopes
from rtml.errors import RequestError, UnavailableError, UnknownNameError
from rtml.instants import Instant, now, parse_duration, to_text
from rtml.lake import Lake
from rtml.registry import Registry
from rtml.settings import Settings
from streaming import audit
from streaming.access import project_keys
from streaming.broker import connect
from streaming.key_store import save_keys, stored_keys

PATIENCE_SECONDS = 5.0


def create_key(
    settings: Settings, registry: Registry, name: str, scopes: Sequence[str], expires: str | None = None
) -> str:
    """Make a key, and say what it is.

    Raises:
        RequestError: the name is taken, or a scope is none.
        UnknownNameError: a scope names a service or source that is not defined.
    """
    lake, present = Lake(settings.lake_root), now()
    _check_named(registry, checked_scopes(scopes))
    if any(key.name == name and key.is_valid(present) for key in stored_keys(lake).values()):
        raise RequestError(f"there is a key {name!r} already: `rtml keys rotate {name}`, or revoke it first")
    text, key = access.create_key(name, scopes, present, None if expires is None else present + parse_duration(expires))
    note = _change(settings, [key], "key.create", f"{key.id}: {', '.join(key.scopes)}")
    return f"{text}\n{_told(key)}{note}"


def rotate_key(settings: Settings, name: str, grace: str = "1d") -> str:
    """Make a successor of a key, which counts for a while yet, and say what it is.

    Raises:
        UnknownNameError: no valid key has that name.
    """
    present = now()
    old = _valid(Lake(settings.lake_root), name, present)
    end = present + (0 if grace in ("0", "0s") else parse_duration(grace))
    newest = max(old, key=lambda key: key.created_at)
    text, key = access.create_key(name, newest.scopes, present, newest.expires_at)
    ended = [one.merged(msgspec.structs.replace(one, expires_at=end)) for one in old]
    words = f"{key.id} after {', '.join(one.id for one in old)}, until {to_text(end)}"
    note = _change(settings, [key, *ended], "key.rotate", words)
    return f"{text}\n{_told(key)}\nthe old one counts until {to_text(end)}{note}"


def revoke_keys(settings: Settings, name: str) -> str:
    """End all keys of a name, and say so.

    Raises:
        UnknownNameError: no valid key has that name.
    """
    old = _valid(Lake(settings.lake_root), name, now())
    words = ", ".join(key.id for key in old)
    note = _change(settings, [msgspec.structs.replace(key, revoked=True) for key in old], "key.revoke", words)
    return f"{name} is revoked ({words}){note}"


def keys_table(settings: Settings) -> Table:
    """Return all keys, for people."""
    present = now()
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in ("name", "id", "scopes", "created", "counts"):
        table.add_column(column, overflow="fold")
    for key in sorted(stored_keys(Lake(settings.lake_root)).values(), key=lambda key: (key.name, key.created_at)):
        table.add_row(key.name, key.id, " ".join(key.scopes), to_text(key.created_at), _until(key, present))
    return table


def fill_keys(settings: Settings) -> None:
    """Tell Redis all keys of the lake, as after a loss of Redis.

    Raises:
        UnavailableError: Redis does not answer.
    """
    try:
        lake = Lake(settings.lake_root)
        with connect(settings, timeout=PATIENCE_SECONDS) as client:
            told = None
            # Until nothing was changed meanwhile: else who began earlier would undo what another told Redis since.
            while told != (known := stored_keys(lake)):
                project_keys(client, known)
                told = known
    except redis.RedisError as error:
        raise UnavailableError(f"Redis does not answer at {settings.redis_shown}: {error}") from None


def _change(settings: Settings, changed: Sequence[Key], action: str, detail: str) -> str:
    """Save changes; return what is to be said of Redis, if anything. A new key must be shown whatever Redis does."""
    lake = Lake(settings.lake_root)
    save_keys(lake, changed)
    audit.record(lake, action=action, target=changed[0].name, actor=audit.actor(), detail=detail)
    try:
        fill_keys(settings)
    except UnavailableError as error:
        return f"\nservers hear of it from the lake alone, within 30 s: {error}"
    return ""


def _valid(lake: Lake, name: str, present: Instant) -> list[Key]:
    known = [key for key in stored_keys(lake).values() if key.is_valid(present)]
    found = [key for key in known if key.name == name]
    if not found:
        raise UnknownNameError.of("key", name, {key.name for key in known}, "those that count")
    return found


def _check_named(registry: Registry, scopes: Sequence[str]) -> None:
    for scope in scopes:
        kind, _, name = scope.partition(":")
        if scope == ADMIN or name == EVERY:
            continue
        known = registry.services if kind == "read" else registry.sources
        if name not in known:
            raise UnknownNameError.of("service" if kind == "read" else "source", name, known, f"scope {scope!r}")


def _told(key: Key) -> str:
    end = "does not end" if key.expires_at is None else f"counts until {to_text(key.expires_at)}"
    return f"{key.name} ({key.id}) may {', '.join(key.scopes)}, and {end}. It is shown this once."


def _until(key: Key, present: Instant) -> str:
    if key.revoked:
        return "revoked"
    if key.expires_at is None:
        return "without end"
    return f"until {to_text(key.expires_at)}" if key.is_valid(present) else f"ended {to_text(key.expires_at)}"
