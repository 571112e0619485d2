"""Who may ask the feature server what: decided by method and path, before anything is read or routed.

A path that nobody thought of needs a key: what is open is listed, and nothing else is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv6Address, ip_network
from typing import Protocol
from urllib.parse import quote

import msgspec

from rtml import instants
from rtml.access import ADMIN, Key, find, id_of
from rtml.instants import Instant
from serving.correlation import Headers
from serving.denied import Denial, DeniedLog
from serving.keyring import KeyRing
from serving.limits import Buckets
from serving.paths import EVENTS, FEATURES, named
from serving.sla_files import FILES
from serving.wire import RETRY_SECONDS, Reply, encode, failure

LOGIN, LOGOUT = "/login", "/logout"
PROBES = frozenset({"/healthz", "/readyz"})
"""Whoever watches over a server asks these, as often as need be."""
OPEN = PROBES | FILES.keys() | {"/docs", "/openapi.json", LOGOUT}
"""What anybody may ask: these pages hold no data; what they show, they fetch with a key."""
COOKIE = "rtml_key"
SESSION_SECONDS = 12 * 3600
FAILURES_PER_SECOND, MOST_FAILURES = 1.0, 20.0
"""How often one address may come with a wrong key; one that comes with a good key is not held up by that."""
LONGEST_PATH = 100
"""So much of a path is remembered of a denied request, and said of a scope."""

Sent = Sequence[tuple[str, str]]
_WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_NO_KEYS = "keys cannot be checked: neither Redis nor the lake tells any (`rtml keys create` makes one)"
_HOW = "a valid API key is needed, as `Authorization: Bearer rtml_…`"


class Asked(Protocol):
    """What the guard looks at in a request."""

    method: str
    path: str
    client: str

    @property
    def headers(self) -> Headers:
        """The headers."""


class Login(msgspec.Struct):
    """Whose key a browser has shown."""

    name: str
    scopes: tuple[str, ...]


class Guard:
    """Lets a request pass, or answers it.

    Args:
        ring: the keys; `None` where none are asked for.
        denied: hears of every denial.
        rate: requests per second of one key or address; 0 for no limit.
        secure: whether the server speaks TLS, so that browsers are to use nothing else.
    """

    def __init__(
        self,
        ring: KeyRing | None,
        denied: DeniedLog,
        rate: float,
        *,
        secure: bool,
        now: Callable[[], Instant] = instants.now,
    ) -> None:
        """Take what to decide by."""
        self._ring, self._denied, self._now = ring, denied, now
        self._secure = secure
        self._requests = Buckets(rate)
        self._failures = Buckets(FAILURES_PER_SECOND, MOST_FAILURES)

    def start(self) -> None:
        """Look at the keys, and go on looking."""
        if self._ring is not None:
            self._ring.start()
            self._denied.start()

    def stop(self) -> None:
        """Stop looking, and append what was denied."""
        if self._ring is not None:
            self._ring.stop()
            self._denied.stop()

    def check(self, asked: Asked) -> Reply | None:
        """Return the answer to a request that may not pass, or that is the guard's own; `None` for all others."""
        path = asked.path
        if path in PROBES:
            return None
        if self._ring is None:
            return self._limited(address_of(asked.client)) or _foreign(asked)
        if path == LOGOUT and asked.method == "POST":
            return Reply(200, b"{}", headers=[("set-cookie", self._cookie("", 0))])
        if path in OPEN:
            return self._limited(address_of(asked.client))
        return self._checked(asked, self._ring)

    def _checked(self, asked: Asked, ring: KeyRing) -> Reply | None:
        needed = scope_of(asked.method, asked.path)
        text = presented(asked)
        known = ring.own if ring.keys is None else ring.keys
        key = find(known, text, self._now())
        if key is None and ring.keys is None:
            retry = [("retry-after", str(RETRY_SECONDS))]
            return failure(503, "unavailable", _NO_KEYS, retry)
        if key is None:
            return self._unknown(asked, _why(known, text))
        if not key.allows(needed):
            said = needed[:LONGEST_PATH]
            self._deny(asked, f"key {key.name} ({key.id})", 403, f"needs {said}")
            message = f"key {key.name!r} needs scope {said}; it has {', '.join(key.scopes)}"
            scope = quote(said, safe=":*")  # it comes from the path, and goes into a header
            challenge = _challenge(f'error="insufficient_scope", scope="{scope}"')
            return failure(403, "forbidden", message, [challenge])
        limited = self._limited(key.id)
        if limited is None and asked.path == LOGIN:
            return self._logged_in(key, text) if asked.method == "POST" else _only_post(asked)
        return limited

    def _unknown(self, asked: Asked, why: str) -> Reply:
        address = address_of(asked.client)
        wait = self._failures.take(address)
        self._deny(asked, f"address {address}", 429 if wait else 401, why)
        if wait:
            return _too_many(wait)
        return failure(401, "unauthorized", _HOW, [_challenge('error="invalid_token"' if why != _NO_KEY else "")])

    def _limited(self, caller: str) -> Reply | None:
        wait = self._requests.take(caller)
        return _too_many(wait) if wait else None

    def _logged_in(self, key: Key, text: str) -> Reply:
        cookie = ("set-cookie", self._cookie(text, SESSION_SECONDS))
        return Reply(200, encode(Login(key.name, key.scopes)), headers=[cookie])

    def _cookie(self, value: str, seconds: int) -> str:
        secure = "; Secure" if self._secure else ""
        return f"{COOKIE}={value}; Max-Age={seconds}; Path=/; HttpOnly; SameSite=Strict{secure}"

    def _deny(self, asked: Asked, actor: str, status: int, why: str) -> None:
        target = f"{asked.method[:10]} {asked.path[:LONGEST_PATH]}"
        self._denied.count(Denial(actor, target, status, why))


def scope_of(method: str, path: str) -> str:
    """Return the scope that a request needs; nothing where any key will do: to look on at what is shown to people."""
    for kind, prefix in (("read", FEATURES), ("push", EVENTS)):
        name = named(prefix, path)
        if name is not None:
            return f"{kind}:{name}"
    return ADMIN if method in _WRITES and path != LOGIN else ""


def presented(asked: Asked) -> str:
    """Return the key that a request shows, or nothing.

    A cookie counts only for what reads: no page of another site can have a browser write with it.
    """
    headers = asked.headers
    scheme, _, text = (headers.get("authorization") or "").partition(" ")
    if scheme.lower() == "bearer":
        return text.strip()
    if given := headers.get("x-api-key"):
        return given
    if asked.method in _WRITES and not asked.path.startswith(FEATURES):
        return ""
    for part in (headers.get("cookie") or "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def address_of(client: str) -> str:
    """Return the address in `host:port`; of an IPv6 one its network of 64 bits, all of which one caller may have."""
    host = client.rpartition(":")[0].strip("[]")
    if ":" not in host:
        return host
    try:
        return str(ip_network((IPv6Address(host).packed[:8] + bytes(8), 64)))
    except ValueError:
        return host


def security_headers(path: str, *, secure: bool) -> Sent:
    """Return what every answer carries; features are kept by nobody on the way."""
    headers = [("x-content-type-options", "nosniff"), ("x-frame-options", "DENY"), ("referrer-policy", "no-referrer")]
    if path.startswith("/v1/") or path in (LOGIN, LOGOUT):
        headers.append(("cache-control", "no-store"))
    if secure:
        headers.append(("strict-transport-security", "max-age=31536000"))
    return headers


def _foreign(asked: Asked) -> Reply | None:
    """Refuse what a page of another site has a browser send: without keys, whoever has it open could push events."""
    origin = asked.headers.get("origin")
    if origin is None or named(EVENTS, asked.path) is None:
        return None
    host = asked.headers.get("host") or ""
    if origin.partition("://")[2] == host:
        return None
    return failure(403, "forbidden", f"a page of {origin[:LONGEST_PATH]!r} may not push events to this server")


_NO_KEY = "no key"


def _why(known: dict[str, Key], text: str) -> str:
    """Say for the audit, and not to the caller, what was wrong."""
    if not text:
        return _NO_KEY
    number = id_of(text)
    if number is None or number not in known:
        return "unknown key" if number is None else f"unknown key {number}"
    # Of a key that is revoked or expired, too, only who has the secret can tell that it ever was one.
    return f"wrong, expired or revoked key {number}"


def _challenge(more: str) -> tuple[str, str]:
    return ("www-authenticate", f'Bearer realm="rtml"{", " if more else ""}{more}')


def _too_many(seconds: int) -> Reply:
    message = f"too many requests; ask again in {seconds} s"
    return failure(429, "too_many_requests", message, [("retry-after", str(seconds))])


def _only_post(asked: Asked) -> Reply:
    return failure(405, "method_not_allowed", f"{asked.path} answers POST; got {asked.method}", [("allow", "POST")])
