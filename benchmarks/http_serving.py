"""One entity over HTTP: our server, which aggregates when asked, beside `feast serve`, which looks up.

Each server is one process beside the same Redis, asked by the same load over 16 connections. Nothing is pinned.
"""

from __future__ import annotations

import msgspec
import numpy as np

from benchmarks.feast_env import PeerError
from benchmarks.harness import feature_server, process, wait_for_port
from benchmarks.http_load import Load, Loaded, loaded
from benchmarks.rows import Row, alone, milliseconds, more, within
from benchmarks.sampled import read, sampling, table
from benchmarks.shared import SERVICE, Shared
from rtml_assets.runtime.ports import free_port
from serving.paths import FEATURES

CONNECTIONS, SECONDS, BODIES = 16, 8.0, 10_000
AIM, AIM_P99 = 20.0, 0.005
FEAST = ("--no-access-log", "--workers", "1", "--max-requests", "0")
"""By default its worker is replaced after a thousand requests, and requests fail meanwhile."""
WHAT = f"HTTP, 1 entity, 3 views × 5 features, 1h/24h/7d, {CONNECTIONS} connections"


def run(shared: Shared) -> list[Row]:
    """Measure both servers; without Feast, ours and the reason."""
    found = ours(shared)
    try:
        peer = feast(shared)
    except PeerError as error:
        return [alone(WHAT, f"{found.per_second:,.0f} requests/s", f"≥ {AIM:g}×", error), _p99(found)]
    return [
        more(WHAT, "requests/s", found.per_second, peer.per_second, AIM),
        Row("  p50", milliseconds(found.p50), milliseconds(peer.p50), f"{peer.p50 / found.p50:.1f}×"),
        _p99(found, milliseconds(peer.p99)),
    ]


def _p99(found: Loaded, peer: str = "") -> Row:
    return within("  p99", found.p99, AIM_P99, peer)


def ours(shared: Shared) -> Loaded:
    """Load our server."""
    settings, samples = shared.cards.settings, shared.samples("http")
    load = Load(settings.port, f"{FEATURES}{SERVICE}", bodies(shared), CONNECTIONS, SECONDS)
    with feature_server(settings, samples=samples):
        found = loaded(load)
        if samples is not None:
            with sampling(samples):
                sampled = loaded(load)
            profile = read(samples)
            requests = sampled.per_second * profile.seconds
            shared.profiles.append(("http: the server's loop", table(profile, requests, "request")))
    return found


def bodies(shared: Shared) -> list[str]:
    """Return requests for one random card each."""
    chosen = np.random.default_rng(4).choice(shared.cards.names, BODIES)
    return [msgspec.json.encode({"entities": [{"card": str(card)}]}).decode() for card in chosen]


def feast(shared: Shared) -> Loaded:
    """Load `feast serve`.

    Raises:
        PeerError: there is no Feast.
    """
    python, folder = shared.feast
    port = free_port()
    program = (str(python.parent / "feast"), "-c", str(folder), "serve", "-h", "127.0.0.1", "-p", str(port))
    chosen = np.random.default_rng(4).choice(shared.cards.names, BODIES)
    asked = [{"feature_service": SERVICE, "entities": {"card": [str(card)]}} for card in chosen]
    load = Load(
        port, "/get-online-features", [msgspec.json.encode(one).decode() for one in asked], CONNECTIONS, SECONDS
    )
    with process(shared.cards.settings, "feast", (*program, *FEAST)):
        wait_for_port(port)
        return loaded(load)
