"""The OpenAPI 3.1 description of the server, its schemas taken from the structs that really travel."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from serving.entities import MOST_ENTITIES
from serving.guard import COOKIE, LOGIN, OPEN, Login
from serving.heartbeats import Heartbeats
from serving.listing import Listing
from serving.pushed import Pushed, PushRequest
from serving.sla import MOST_MINUTES, SLA, SLA_HISTORY, Sla
from serving.sla_history import History
from serving.wire import Failure, FeatureRequest, FeatureResponse, Health, Readiness

_SCHEMA = "#/components/schemas/"
_JSON = "application/json"


def openapi(max_entities: int = MOST_ENTITIES) -> dict[str, Any]:
    """Return the description as a document, of a server that takes so many entities in one request."""
    features, pushes = (FeatureRequest, FeatureResponse, Listing), (PushRequest, Pushed)
    structs = (*features, *pushes, Heartbeats, Sla, History, Health, Readiness, Login, Failure)
    _, schemas = msgspec.json.schema_components(structs, ref_template=_SCHEMA + "{name}")
    _describe_entities(schemas[FeatureRequest.__name__]["properties"]["entities"], max_entities)
    return _secured(_document(schemas))


def _describe_entities(schema: dict[str, Any], most: int) -> None:
    """Say what rows and columns of entities hold, and how many there may be."""
    value = {"type": ["string", "integer", "boolean"]}
    column = {"type": "array", "items": value, "maxItems": most}
    rows = {"type": "array", "items": {"type": "object", "additionalProperties": value}, "maxItems": most}
    columns = {"type": "object", "additionalProperties": {"anyOf": [value, column]}, "minProperties": 1}
    schema["anyOf"] = [rows, columns]


def _document(schemas: dict[str, Any]) -> dict[str, Any]:
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "rtml feature server",
            "version": _version(),
            "summary": "Features of entities, computed on the live stream, read in one round trip.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [
            {"name": "features", "description": "What models ask for."},
            {"name": "events", "description": "What producers send."},
            {"name": "operation", "description": "What whoever runs the server asks for."},
        ],
        "paths": {
            "/v1/features/{service}": {"post": _read_features()},
            "/v1/services": {
                "get": _get("features", "listServices", "The services, their columns, views and versions", Listing, 503)
            },
            "/v1/events/{source}": {"post": _push()},
            "/v1/heartbeats/{source}": {"get": _heartbeats()},
            SLA: {"get": _get("operation", "sla", "The platform as the watch last saw it, and open alerts", Sla)},
            SLA_HISTORY: {"get": _history()},
            "/healthz": {"get": _get("operation", "health", "Whether the process lives", Health)},
            "/readyz": {"get": _readiness()},
            "/metrics": {"get": _text("operation", "metrics", "Figures for Prometheus", "text/plain")},
            "/openapi.json": {"get": _text("operation", "openapi", "This document", _JSON)},
            "/": {"get": _text("operation", "page", "A page that shows the platform live", "text/html")},
            LOGIN: {"post": _log_in()},
            "/docs": {"get": _text("operation", "docs", "A page that shows this, and lets you try it", "text/html")},
        },
        "components": {"schemas": schemas, "securitySchemes": _SCHEMES},
    }


_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key: `Authorization: Bearer rtml_…`."},
    "header": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same key."},
    "session": {"type": "apiKey", "in": "cookie", "name": COOKIE, "description": f"For browsers: see `{LOGIN}`."},
}


def _secured(document: dict[str, Any]) -> dict[str, Any]:
    """Say of each operation what it asks for, and how it is denied, where the server asks for keys at all."""
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if path in OPEN:
                operation["security"] = []
                continue
            schemes = ("bearer", "header") if path == LOGIN else tuple(_SCHEMES)
            operation["security"] = [{scheme: []} for scheme in schemes]
            operation["responses"] |= _failures(401, *((403,) if "{" in path else ()), 429)
    return document


def _log_in() -> dict[str, Any]:
    described = _get("operation", "logIn", "Keep the key of this request in this browser, for 12 hours", Login, 404)
    described["description"] = "The cookie is for reading alone; `POST /logout` removes it."
    return described


def _version() -> str:
    try:
        return version("rtml")
    except PackageNotFoundError:
        return "0"


def _read_features() -> dict[str, Any]:
    return {
        "tags": ["features"],
        "operationId": "readFeatures",
        "summary": "The features of some entities, at an instant",
        "description": "One row an entity, in the order asked. Reading changes nothing. An entity that was never seen "
        "is no error: its values are those of empty windows, its status is `missing`.",
        "parameters": [_named("service", "A feature service's name.", "eta")],
        "requestBody": {"required": True, "content": _content(FeatureRequest)},
        "responses": {"200": _answer("The features.", FeatureResponse)}
        | _failures(400, 404, 408, 413, 422, 500, 503, 504),
    }


def _push() -> dict[str, Any]:
    event = {"type": "object", "description": "One event: an object of the contract's columns."}
    many = {"$ref": _SCHEMA + PushRequest.__name__}
    one = {"event_id": "1", "event_time": "2026-01-01T12:00:00Z", "origin": "JFK", "dep_delay": 4}
    examples = {"one": {"value": one}, "many": {"value": {"events": [one, one | {"event_id": "2"}]}}}
    refused = _answer("None of the events was accepted; `error.pushed` says why.", Failure)
    return {
        "tags": ["events"],
        "operationId": "pushEvents",
        "summary": "Append events to a source's stream",
        "description": "Each is held against the contract that the source's flows run by; those that it allows are "
        "appended, the others named with the reason. Where the source has an event id, what is pushed again counts "
        "once: after a 503, push all of it again.",
        "parameters": [_named("source", "An event source's name.", "departures")],
        "requestBody": {
            "required": True,
            "content": {_JSON: {"schema": {"anyOf": [many, event]}, "examples": examples}},
        },
        "responses": {"200": _answer("What came of the events.", Pushed), "422": refused}
        | _failures(400, 404, 408, 409, 413, 500, 503),
    }


def _named(name: str, description: str, example: str) -> dict[str, Any]:
    schema = {"type": "string"}
    return {
        "name": name, "in": "path", "required": True, "description": description, "schema": schema, "example": example
    }  # fmt: skip


def _heartbeats() -> dict[str, Any]:
    described = _get("operation", "heartbeats", "Which heartbeats of a source came through", Heartbeats, 503)
    return {**described, "parameters": [_named("source", "An event source's name.", "departures")]}


def _history() -> dict[str, Any]:
    described = _get("operation", "slaHistory", "What the watch saw lately, to be plotted", History, 400, 503)
    schema = {"type": "integer", "minimum": 1, "maximum": MOST_MINUTES, "default": MOST_MINUTES}
    minutes = {"name": "minutes", "in": "query", "schema": schema, "description": "How far back."}
    return {**described, "parameters": [minutes]}


def _readiness() -> dict[str, Any]:
    described = _get("operation", "ready", "Whether requests would be answered", Readiness)
    described["description"] = (
        "Redis answers, and every service's views are ready. Staleness does not count. A server that was told to end "
        "is not ready, and answers for a while yet."
    )
    described["responses"]["503"] = _answer("Not now, and why.", Readiness)
    return described


def _get(tag: str, name: str, summary: str, struct: type[msgspec.Struct], *failures: int) -> dict[str, Any]:
    return {
        "tags": [tag],
        "operationId": name,
        "summary": summary,
        "responses": {"200": _answer(summary + ".", struct)} | _failures(*failures),
    }


def _text(tag: str, name: str, summary: str, content_type: str) -> dict[str, Any]:
    schema = {"type": "object"} if content_type == _JSON else {"type": "string"}
    answer = {"description": summary + ".", "content": {content_type: {"schema": schema}}}
    return {"tags": [tag], "operationId": name, "summary": summary, "responses": {"200": answer}}


_WHY = {
    400: "The request is malformed: not JSON, an unknown or missing field, a wrong type, a naive or too early instant.",
    401: "No valid API key came with the request.",
    403: "The key does not have the scope that this needs; the message names it.",
    408: "The body did not come to its end in time.",
    409: "The source runs on replay time: see `error.message`.",
    404: "There is no such thing; the message offers the nearest name.",
    413: "Too long a body (RTML_MAX_BODY_BYTES), or too many entities (RTML_MAX_ENTITIES) or events (RTML_MAX_EVENTS).",
    422: "An integer sum needs more than 64 bits.",
    429: "Too many requests; ask again after `Retry-After` seconds.",
    500: "An unexpected error, with the request id under which it was logged.",
    503: "A view is not ready, or stale where its service refuses that, or Redis does not answer, or the server has "
    "too much to do (`overloaded`); ask again after `Retry-After` seconds.",
    504: "The request's time was up before it was answered; the message says what took how long.",
}


def _failures(*statuses: int) -> dict[str, Any]:
    return {str(status): _answer(_WHY[status], Failure) for status in statuses}


def _answer(description: str, struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {"description": description, "content": _content(struct)}


def _content(struct: type[msgspec.Struct]) -> dict[str, Any]:
    return {_JSON: {"schema": {"$ref": _SCHEMA + struct.__name__}}}
