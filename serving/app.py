"""The feature server: routes, and what answers them. Bare RSGI, so that a request costs little beside its features."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter
from types import MappingProxyType
from typing import NamedTuple, Protocol

from rtml.access import of_run
from rtml.errors import RtmlError, UnavailableError, near_miss
from rtml.lake_paths import Lake
from rtml.settings import Settings
from serving.admission import Admission, OverloadedError
from serving.batches import Batches
from serving.bodies import Bodies, is_short
from serving.bodies import Exchange as BodyExchange
from serving.budget import Budget, server_timing
from serving.correlation import Call, Calls, Headers
from serving.denied import DeniedLog
from serving.documents import QUALITY, Documents
from serving.feature_log import FeatureLog
from serving.guard import Guard, security_headers
from serving.heartbeats import read_heartbeats
from serving.keyring import KeyRing
from serving.links import Links
from serving.listing import listing
from serving.metrics import Metrics
from serving.openapi import openapi
from serving.page import page
from serving.paths import EVENTS, FEATURES, HEARTBEATS, named
from serving.push import Pushes
from serving.runbooks import RUNBOOKS, runbook
from serving.sla import SLA, SLA_HISTORY, Slas
from serving.sla_files import sla_files
from serving.state import ServingState
from serving.wire import (
    Health,
    Readiness,
    Reply,
    decode_request,
    encode,
    encode_vectors,
    failure,
    failure_of,
    overloaded,
    unexpected,
    with_timings,
)

Body = Callable[[], Awaitable[bytes]]
"""Reads a request's body, when a handler wants it."""

DRAINING = "draining: this server was told to end, and answers for a while yet"
_FEATURES_LABEL = f"{FEATURES}{{service}}"
_OVERLOADED = overloaded("the server has more to do than it can, and takes no more for now")
NAMED = (_FEATURES_LABEL, f"{EVENTS}{{source}}", f"{HEARTBEATS}{{source}}")
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_log = logging.getLogger("rtml.serving")


class Scope(Protocol):
    """An RSGI request."""

    method: str
    path: str
    query_string: str
    client: str
    headers: Headers


class Exchange(BodyExchange, Protocol):
    """The RSGI way to read a request's body and to answer it."""

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        """Answer."""


class Route(NamedTuple):
    """What answers a path, by which method; the metrics name it by its `label`, and by the `service` it is about."""

    method: str
    label: str
    handler: Callable[[Body], Awaitable[Reply]]
    service: str | None = None
    """The feature service that it asks, if any."""


class App:
    """One feature server, without the sockets."""

    def __init__(self, settings: Settings) -> None:
        """Take the settings; nothing is connected before `start`."""
        self._links, self._reader = (links := Links(settings)), links.reader
        self.state = ServingState(links.client, settings.features)
        lake = Lake(settings.lake_root)
        self._secure, self.bodies = bool(settings.tls_cert), Bodies(settings.max_body_bytes)
        ring = KeyRing(links.primary, lake, own=of_run(settings.run_key)) if settings.needs_key else None
        self.guard = Guard(ring, DeniedLog(lake), settings.rate_limit, secure=self._secure)
        self.metrics = Metrics(lambda: self.state.snapshot)
        self.log = FeatureLog(lake, settings.log_epoch_us)
        self.metrics.watch(self.log)
        self._patience = settings.redis_timeout_seconds
        self.is_draining = False
        self._admission = Admission(settings.queue_target_seconds, settings.max_in_flight)
        self.metrics.admit(self._admission)
        epoch, most = settings.tile_epoch_us, settings.max_entities
        self._batches = Batches(self.state, self._reader, self.metrics, epoch, self.log, most, self._admission)
        self._pushes = Pushes(settings, self.metrics, lambda: self.state.snapshot.watermarks)
        self._calls = Calls(settings)
        self._sla = Slas(settings, self._reader.read, lambda: self.state.snapshot)
        self._documents = Documents(lake)
        self._routes = {
            **{path: Route("GET", path, _constant(reply)) for path, reply in sla_files().items()},
            "/docs": Route("GET", "/docs", _constant(page())),
            "/healthz": Route("GET", "/healthz", self._healthz),
            "/metrics": Route("GET", "/metrics", self._metrics),
            "/openapi.json": Route(
                "GET", "/openapi.json", _constant(Reply(200, encode(openapi(settings.max_entities))))
            ),
            "/readyz": Route("GET", "/readyz", self._readyz),
            "/v1/services": Route("GET", "/v1/services", self._services),
            SLA: Route("GET", SLA, lambda _: self._sla.latest()),
        }

    def start(self) -> None:
        """Look at Redis, and go on looking; where it does not answer yet, requests hear so until it does."""
        logs = False
        try:
            logs = any(service.log for service in self.state.refresh().services.values())
        except UnavailableError as error:
            _log.warning("%s", error)
        self.guard.start()
        self.state.start()
        self.log.start(soon=logs)

    def drain(self) -> None:
        """Say that this server is not ready any more, and send those who are connected elsewhere; go on answering."""
        self.is_draining = True

    async def close(self) -> None:
        """Stop looking, append what is still to be logged, and close all connections."""
        self.state.stop()
        await asyncio.to_thread(self.guard.stop)
        await asyncio.to_thread(self.log.stop)
        await self._pushes.close()
        await asyncio.to_thread(self._calls.close)
        await self._links.close()

    async def __rsgi__(self, scope: Scope, exchange: Exchange) -> None:
        """Answer one request; the RSGI entry."""
        refusal = self.guard.check(scope)
        if refusal is None and scope.path.startswith(FEATURES) and self._admission.is_full():
            # What costs as much as an answer relieves nobody: the server itself drops a short body.
            reply = self._turn_away(scope)
            if not is_short(scope.headers):
                await self.bodies.of(scope.headers, exchange).discard()
        else:
            body = self.bodies.of(scope.headers, exchange)
            if refusal is None:
                reply = await self.answer(scope.method, scope.path, body.read, scope.headers, scope.query_string)
            else:
                reply = self._refuse(scope, refusal)
            await body.discard()
        safe = security_headers(scope.path, secure=self._secure)
        headers = [("content-type", reply.content_type), *safe, *reply.headers]
        if self.is_draining:
            headers.append(("connection", "close"))
        exchange.response_bytes(reply.status, headers, reply.body)

    def _turn_away(self, scope: Scope) -> Reply:
        """Answer a request for features that comes to a server which has enough to do."""
        call = self._calls.begin(scope.headers)
        self.metrics.overloaded.inc()
        self.metrics.answered(_FEATURES_LABEL, _OVERLOADED.status, perf_counter() - call.started)
        if service := named(FEATURES, scope.path):
            self.metrics.answered_by(service, _OVERLOADED.status)
        return self._calls.end(call, scope.method, scope.path, _FEATURES_LABEL, _OVERLOADED)

    def _refuse(self, scope: Scope, refusal: Reply) -> Reply:
        """Answer a request that the guard does not let pass; `answer` never hears of it."""
        call = self._calls.begin(scope.headers)
        route = self._route(scope.path, call)
        label = route.label if route else "other"
        self.metrics.answered(label, refusal.status, perf_counter() - call.started)
        return self._calls.end(call, scope.method, scope.path, label, refusal)

    async def answer(
        self, method: str, path: str, body: Body, headers: Headers = _NO_HEADERS, query: str = ""
    ) -> Reply:
        """Answer one request: `HEAD` as `GET`, whose body the server then keeps to itself."""
        call = self._calls.begin(headers)
        self.metrics.in_progress.inc()
        route = self._route(path, call, query)
        try:
            if route is None:
                near = near_miss(path, [*self._routes, *NAMED])
                reply = failure(404, "not_found", f"no path {path!r}.{near}")
            elif method != route.method and not (method == "HEAD" and route.method == "GET"):
                allowed = "GET, HEAD" if route.method == "GET" else route.method
                message = f"{path} answers {allowed}; got {method}"
                reply = failure(405, "method_not_allowed", message, [("allow", allowed)])
            else:
                reply = await route.handler(body)
        # Whatever it was, the client must hear of it.
        except Exception as error:  # noqa: BLE001
            if isinstance(error, OverloadedError):
                self.metrics.overloaded.inc()
            reply = _failed(error, method, path, call)
        finally:
            self.metrics.in_progress.dec()
        label, took = route.label if route else "other", perf_counter() - call.started
        self.metrics.answered(label, reply.status, took)
        if route is not None and route.service is not None:
            self.metrics.answered_by(route.service, reply.status, took)
        return self._calls.end(call, method, path, label, reply)

    def _route(self, path: str, call: Call, query: str = "") -> Route | None:
        if service := named(FEATURES, path):
            return Route("POST", _FEATURES_LABEL, lambda body: self._features(service, body, call), service)
        if filled := named(EVENTS, path):
            return Route("POST", f"{EVENTS}{{source}}", lambda body: self._push(filled, body))
        if source := named(HEARTBEATS, path):
            return Route("GET", f"{HEARTBEATS}{{source}}", lambda _: self._heartbeats(source))
        if name := named(RUNBOOKS, path):
            return Route("GET", f"{RUNBOOKS}{{name}}", lambda _: asyncio.to_thread(runbook, name))
        if path == SLA_HISTORY:
            return Route("GET", SLA_HISTORY, lambda _: self._sla.history(query))
        if path == QUALITY or path.startswith(f"{QUALITY}/"):
            return Route("GET", QUALITY, lambda _: asyncio.to_thread(self._documents.get, path))
        return self._routes.get(path)

    async def _features(self, service: str, body: Body, call: Call) -> Reply:
        received = await body()
        decoding = perf_counter()
        request = decode_request(received)
        given, at = request.seconds(), request.instant()
        budget = Budget(call.started, given or self._patience, is_own=given is not None, trace=call.trace)
        decoded = perf_counter()
        budget.spend("decode", decoding, decoded)
        self.metrics.decode.observe(decoded - decoding)
        self._admission.enter(budget)
        try:
            vectors = await self._batches.get(service, request.entities, at, request.leading_edge, budget)
        finally:
            self._admission.leave()
        started = perf_counter()
        encoded = encode_vectors(vectors, edges=request.edges)
        ended = perf_counter()
        budget.spend("encode", started, ended)
        self.metrics.encode.observe(ended - started)
        if call.trace is not None:
            call.trace.answered(service, vectors)
        if not request.timings:
            return Reply(200, encoded)
        timings = budget.timings()
        return Reply(200, with_timings(encoded, timings), headers=[server_timing(timings)])

    async def _push(self, source: str, body: Body) -> Reply:
        return await self._pushes.push(source, await body())

    async def _services(self, _: Body) -> Reply:
        return Reply(200, encode(listing(self.state.snapshot)))

    async def _heartbeats(self, source: str) -> Reply:
        return Reply(200, encode(await read_heartbeats(self._reader, source)))

    async def _healthz(self, _: Body) -> Reply:
        return Reply(200, encode(Health()))

    async def _readyz(self, _: Body) -> Reply:
        if self.is_draining:
            return Reply(503, encode(Readiness(ready=False, reasons=[DRAINING])))
        try:
            reasons = self.state.snapshot.unready()
            await self._links.check()
        except UnavailableError as error:
            reasons = [self._links.said(error)]
        warnings = await self._links.warnings()
        return Reply(503 if reasons else 200, encode(Readiness(not reasons, reasons, warnings)))

    async def _metrics(self, _: Body) -> Reply:
        return self.metrics.reply()


def _constant(reply: Reply) -> Callable[[Body], Awaitable[Reply]]:
    async def answered(_: Body) -> Reply:
        return reply

    return answered


def _failed(error: Exception, method: str, path: str, call: Call) -> Reply:
    reply = failure_of(error) if isinstance(error, RtmlError) else None
    if reply is None:
        _log.error("%s %r failed, request id %s", method, path, call.request_id, exc_info=error, extra=call.ids)
        reply = unexpected(call.request_id)
    return reply
