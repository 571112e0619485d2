"""The feature server as its clients see it: heartbeats, readiness, real traffic by its metrics, and a probe."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import httpx
from prometheus_client.parser import text_string_to_metric_families

from rtml import instants
from rtml.define.service import FeatureService
from rtml.instants import MINUTE, Instant
from rtml.online import keys
from rtml.registry import Registry
from rtml.settings import Settings
from rtml_assets.runtime.probes import own_tls
from rtml_assets.watch.conditions import LEAST_EVENTS
from rtml_assets.watch.objectives import LEAST_REQUESTS
from rtml_assets.watch.report import Quantiles, ServerLook, Service

BEYOND_REDIS_SECONDS = 0.3
"""How much longer than for Redis the server is waited for: it knows best what is wrong."""
LOOK_SECONDS = 0.5
"""After so long a look asks nothing more that needs Redis."""
LEAST_VALUES = LEAST_EVENTS
"""Of fewer values of a feature in the last minute no share of nulls is told: of one that is null, all are."""

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""A scrape: by name and labels."""


class ServerHeartbeats(NamedTuple):
    """The newest heartbeat of each partition, as the server sees it, and how long its answer took."""

    partitions: dict[int, str]
    took_ms: float


class Seen(NamedTuple):
    """What one look at the server saw."""

    server: ServerLook
    heartbeats: dict[str, ServerHeartbeats]
    services: dict[str, Service]
    nulls: dict[str, dict[str, float]]
    """By view and feature: the share of nulls in a sample of the values served in the last minute."""


class ServerEyes:
    """Looks at one feature server, again and again.

    Args:
        settings: where it is, and the key that opens it.
        registry: the sources and services to ask for.
        now: the wall clock.
    """

    def __init__(self, settings: Settings, registry: Registry, now: Callable[[], Instant] = instants.now) -> None:
        """Take where it is; nothing is asked yet."""
        self._http = httpx.Client(
            base_url=settings.server_url,
            verify=own_tls(settings.tls_cert) if settings.tls_cert else True,
            timeout=settings.redis_timeout_seconds + BEYOND_REDIS_SECONDS,
            headers={"authorization": f"Bearer {settings.key}"} if settings.key else {},
            trust_env=False,
        )
        self._registry, self._now = registry, now
        self._scrapes: deque[tuple[Instant, Series]] = deque()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def look(self) -> Seen:
        """Return what the server shows of itself; never raises."""
        try:
            return self._look()
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            self._scrapes.clear()
            words = f"the feature server does not answer at {self._http.base_url}: {_words(error)}"
            lost = Service(ready=False, probe_ok=False, words=words)
            return Seen(ServerLook(up=False, words=words), {}, dict.fromkeys(self._registry.services, lost), {})

    def _look(self) -> Seen:
        until = time.monotonic() + LOOK_SECONDS
        readiness = self._http.get("/readyz")
        told: Mapping[str, Any] = readiness.json()
        words = "; ".join(told["reasons"]) if "reasons" in told else _problem(readiness)
        look = ServerLook(up=True, ready=bool(told.get("ready")), words=words)
        heartbeats: dict[str, ServerHeartbeats] = {}
        for source in self._registry.sources:
            found = self._heartbeats(source) if time.monotonic() < until else None
            if found is not None:
                heartbeats[source], look = found[0], _with_clock(look, *found[1:])
        # A server that took so long to say that it is not ready would take as long for every service.
        late = Service(ready=look.ready, probe_ok=None if look.ready else False, words=words or "not asked: no time")
        probes = {
            name: self._probe(service) if time.monotonic() < until else late
            for name, service in self._registry.services.items()
        }
        self._scrape()
        services = {name: self._service(name, probe) for name, probe in probes.items()}
        return Seen(look, heartbeats, services, self._nulls())

    def _heartbeats(self, source: str) -> tuple[ServerHeartbeats, float, float] | None:
        """Return a source's heartbeats, how far the server's clock is ahead, and how wrong that may be, in ms."""
        begun = self._now()
        answer = self._http.get(f"/v1/heartbeats/{source}")
        ended = self._now()
        if answer.status_code != 200:
            return None
        body = answer.json()
        took = (ended - begun) / 1_000
        partitions = {int(partition): beat["id"] for partition, beat in body["flows"]["tiles"].items()}
        offset = (body["clock"] - (begun + ended) / 2) / 1_000
        return ServerHeartbeats(partitions, took), offset, took / 2

    def _probe(self, service: FeatureService) -> Service:
        """Ask for an entity that nobody has: the answer costs what any costs."""
        entity = {key: keys.PROBES[kind] for key, kind in service.key_types.items()}
        begun = self._now()
        answer = self._http.post(f"/v1/features/{service.name}", json={"entities": [entity]})
        took = (self._now() - begun) / 1_000
        ok = answer.status_code == 200
        words = "" if ok else f"the watch's own request got {answer.status_code}: {_problem(answer)}"
        # A request that is refused for its key or its rate says nothing of whether models are answered.
        served = None if answer.status_code in (401, 403, 429) else ok
        return Service(version=service.version, ready=served, probe_ms=round(took, 3), probe_ok=served, words=words)

    def _scrape(self) -> None:
        answer = self._http.get("/metrics")
        now = self._now()
        if answer.status_code != 200:
            self._scrapes.clear()
            return
        series: Series = {}
        for family in text_string_to_metric_families(answer.text):
            if family.name.startswith(("rtml_service_", "rtml_feature_")):
                for sample in family.samples:
                    series[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
        self._scrapes.append((now, series))
        while len(self._scrapes) > 2 and self._scrapes[1][0] <= now - MINUTE:
            self._scrapes.popleft()

    def _since(self, place: int) -> tuple[float, Series]:
        """Return the seconds and the increase since an earlier scrape: the last one (-2), or a minute ago (0).

        A counter that fell began anew: the server was restarted.
        """
        if len(self._scrapes) < 2:
            return 0.0, {}
        (then, old), (now, new) = self._scrapes[place], self._scrapes[-1]
        grown = {key: value - old.get(key, 0.0) for key, value in new.items()}
        if any(value < 0 for value in grown.values()):
            grown = new
        return (now - then) / 1e6, grown

    def _service(self, name: str, probe: Service) -> Service:
        seconds, grown = self._since(-2)
        if not seconds:
            return probe
        answers = {
            labels: value for (metric, labels), value in grown.items() if metric == "rtml_service_requests_total"
        }
        by_status = {dict(labels)["status"]: value for labels, value in answers.items() if ("service", name) in labels}
        requests = int(sum(by_status.values()))
        errors = int(sum(value for status, value in by_status.items() if status.startswith("5")))
        return Service(
            version=probe.version,
            ready=probe.ready,
            requests=requests,
            errors=errors,
            requests_per_second=round(requests / seconds, 3),
            latency=self._latency(name),
            probe_ms=probe.probe_ms,
            probe_ok=probe.probe_ok,
            words=probe.words,
        )

    def _latency(self, name: str) -> Quantiles | None:
        """Return the last minute's latencies, where others than the watch asked often enough."""
        _, grown = self._since(0)
        buckets = sorted(
            (float(dict(labels)["le"]), value)
            for (metric, labels), value in grown.items()
            if metric == "rtml_service_seconds_bucket" and ("service", name) in labels
        )
        own = len(self._scrapes) - 1
        if not buckets or buckets[-1][1] - own < LEAST_REQUESTS:
            return None
        p50, p95, p99 = (round(1_000 * quantile(buckets, share), 3) for share in (0.5, 0.95, 0.99))
        return Quantiles(p50, p95, p99)

    def _nulls(self) -> dict[str, dict[str, float]]:
        _, grown = self._since(0)
        found: dict[str, dict[str, float]] = {}
        for (metric, labels), values in grown.items():
            if metric == "rtml_feature_values_total" and values >= LEAST_VALUES:
                of = dict(labels)
                nulls = grown.get(("rtml_feature_nulls_total", labels), 0.0)
                found.setdefault(of["view"], {})[of["feature"]] = round(nulls / values, 6)
        return found


def quantile(buckets: list[tuple[float, float]], share: float) -> float:
    """Return a quantile of a cumulative histogram, in its unit, linear within a bucket.

    Args:
        buckets: upper bounds, the last of them infinite, and how many values lie up to each.
        share: between 0 and 1.
    """
    wanted = share * buckets[-1][1]
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if bound == float("inf"):
                return low
            return low + (bound - low) * ((wanted - below) / (count - below) if count > below else 1.0)
        low, below = bound, count
    return low


def _with_clock(look: ServerLook, offset: float, error: float) -> ServerLook:
    """Keep the quickest answer's offset: it is the most exact."""
    if look.clock_error_ms is not None and look.clock_error_ms <= error:
        return look
    return ServerLook(look.up, look.ready, look.words, round(2 * error, 3), round(offset, 3), round(error, 3))


def _problem(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:200]


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
