"""API keys: what one looks like, what is kept of it, and what it allows. Pure; the store is `streaming/access.py`.

A key is `rtml_<id>_<secret>`: an id of 8 hexadecimal digits by which it is found, and a secret of 256 random bits. Only
the SHA-256 of the whole key is kept. A slow hash such as bcrypt guards passwords, which people choose and others
guess; nobody guesses 256 random bits, and a slow hash at every request would be a way to stop the server.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Sequence
from hashlib import sha256
from hmac import compare_digest

import msgspec

from rtml.errors import RequestError, near_miss
from rtml.instants import Instant

ADMIN = "admin"
"""The scope that allows everything."""
KINDS = ("read", "push")
EVERY = "*"
OF_RUN = "rtml-up"
"""The name of the key by which the processes of one `rtml up` ask its server."""

_KEY = re.compile(r"rtml_([0-9a-f]{8})_[0-9a-f]{64}")
_FINGERPRINT = re.compile(r"[0-9a-f]{8}:[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NO_DIGEST = "0" * 64


class Key(msgspec.Struct, frozen=True):
    """What is kept of a key. Instants are of the wall clock, µs."""

    id: str
    name: str
    digest: str
    """SHA-256 of the key, in hexadecimal."""
    scopes: tuple[str, ...]
    created_at: Instant
    expires_at: Instant | None = None
    revoked: bool = False

    def is_valid(self, now: Instant) -> bool:
        """Whether it counts at an instant."""
        return not self.revoked and (self.expires_at is None or now < self.expires_at)

    def allows(self, scope: str) -> bool:
        """Whether it may do what needs a scope; an empty scope needs a valid key and nothing more."""
        kind, _, _ = scope.partition(":")
        return not scope or ADMIN in self.scopes or scope in self.scopes or f"{kind}:{EVERY}" in self.scopes

    def merged(self, other: Key) -> Key:
        """Return what two copies of it say together: the earlier end counts, and a revocation stays one.

        So changes need no order, and a copy that is older than a revocation cannot undo it.
        """
        ends = [end for end in (self.expires_at, other.expires_at) if end is not None]
        return msgspec.structs.replace(self, expires_at=min(ends, default=None), revoked=self.revoked or other.revoked)


def create_key(name: str, scopes: Sequence[str], now: Instant, expires_at: Instant | None = None) -> tuple[str, Key]:
    """Return a new key, and what is to be kept of it.

    Raises:
        RequestError: the name or a scope is none.
    """
    if not _NAME.fullmatch(name):
        raise RequestError(f"a key's name must be letters, digits, '_', '.' and '-', at most 64; got {name!r}")
    number = secrets.token_hex(4)
    text = f"rtml_{number}_{secrets.token_hex(32)}"
    return text, Key(number, name, digest_of(text), checked_scopes(scopes), now, expires_at)


def checked_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """Return scopes without repetition, in order.

    Raises:
        RequestError: one is no scope, or there is none.
    """
    chosen = sorted(set(scopes))
    if not chosen:
        raise RequestError("a key needs a scope: read:<service>, push:<source> (or * for all), or admin")
    for scope in chosen:
        kind, separator, name = scope.partition(":")
        if scope != ADMIN and not (kind in KINDS and separator and name):
            near = near_miss(kind, [*KINDS, ADMIN])
            raise RequestError(f"a scope must be read:<service>, push:<source> or admin; got {scope!r}.{near}")
    return tuple(chosen)


def digest_of(text: str) -> str:
    """Return the SHA-256 of a key, in hexadecimal."""
    return sha256(text.encode()).hexdigest()


def fingerprint(key: Key) -> str:
    """Return what tells one server of a key, past the lake: its id and its SHA-256."""
    return f"{key.id}:{key.digest}"


def is_fingerprint(text: str) -> bool:
    """Whether a text is one."""
    return _FINGERPRINT.fullmatch(text) is not None


def of_run(fingerprint: str) -> dict[str, Key]:
    """Return the key of a run by its fingerprint: it may read, for as long as the server knows it; none for nothing."""
    number, _, digest = fingerprint.partition(":")
    return {number: Key(number, OF_RUN, digest, (f"read:{EVERY}",), 0)} if number else {}


def id_of(text: str) -> str | None:
    """Return the id in a key; `None` for what does not look like one."""
    found = _KEY.fullmatch(text)
    return found[1] if found else None


def find(keys: dict[str, Key], text: str, now: Instant) -> Key | None:
    """Return the valid key that a text is, if any; it takes the same time for one that is unknown, wrong or expired."""
    number = id_of(text)
    key = keys.get(number) if number else None
    same = compare_digest(digest_of(text), key.digest if key else _NO_DIGEST)
    return key if key is not None and same and key.is_valid(now) else None


def merge(changes: Iterable[Key]) -> dict[str, Key]:
    """Return keys by their ids, after all changes, in whichever order they come."""
    merged: dict[str, Key] = {}
    for key in changes:
        known = merged.get(key.id)
        merged[key.id] = key if known is None else known.merged(key)
    return merged
