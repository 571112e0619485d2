"""What Redis says now, for people: an entity's features, and which versions are served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from rich.console import Group
from rich.table import Table
from rich.text import Text

from rtml import instants
from rtml.errors import RequestError, UnavailableError
from rtml.settings import Settings
from rtml.staleness import Status
from rtml_assets.runtime.describe import Live
from serving.client import FeatureClient
from serving.features import FeatureVectors, LeadingEdge, Value
from streaming.broker import connect
from streaming.versions import Version, live_names, read_version

STATUS_STYLES: dict[Status, str] = {
    "fresh": "green",
    "stale": "yellow",
    "expired": "yellow",
    "partial": "yellow",
    "missing": "dim",
    "damaged": "red",
}
PATIENCE_SECONDS = 1.0
_READERS: dict[str, Any] = {"str": str, "int": int, "bool": {"true": True, "false": False}.__getitem__}


def vector_table(settings: Settings, service: str, keys: Sequence[str], at: str | None, edge: LeadingEdge) -> Group:
    """Return the features of one entity, given as `key=value`, each with its status.

    Raises:
        RequestError: a key is no `key=value`, or not of its type.
    """
    with FeatureClient(settings, epoch=settings.tile_epoch_us, background=False) as client:
        snapshot = client.snapshot()
        versions = snapshot.versions(snapshot.service(service))
        kinds = {name: kind for version in versions for name, kind in version.plan.keys}
        entity = parse_entity(keys, kinds)
        return _rendered(client.get(service, [entity], at=at, leading_edge=edge))


def parse_entity(keys: Sequence[str], kinds: dict[str, str]) -> dict[str, str | int | bool]:
    """Return an entity's join keys, each of its type.

    Raises:
        RequestError: one is no `key=value`, or not of its type.
    """
    entity: dict[str, str | int | bool] = {}
    for text in keys:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise RequestError(f"an entity's key must look like origin=JFK; got {text!r}")
        kind = kinds.get(name, "str")
        try:
            entity[name] = _READERS[kind](value)
        except (ValueError, KeyError):
            words = {"int": "an integer", "bool": "true or false"}[kind]
            raise RequestError(f"key {name!r} must be {words}; got {value!r}") from None
    return entity


def format_value(value: Value) -> str:
    """Return a feature's value as people read it."""
    if value is None:
        return "null"
    if isinstance(value, str):
        return value if value.isprintable() else repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(format_value, value))}]"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}"


def live_versions(where: Settings) -> Live:
    """Return what finds a view's live versions, and finds none where Redis does not answer."""
    client = connect(where, timeout=PATIENCE_SECONDS)
    try:
        client.ping()
    except redis.RedisError:
        return _none

    def find(view: str) -> dict[str, Version]:
        try:
            names = live_names(client, view)
            found = {fingerprint: read_version(client, view, name) for fingerprint, name in names.items()}
            return {fingerprint: version for fingerprint, version in found.items() if version}
        except redis.RedisError as error:
            raise UnavailableError(f"Redis does not answer: {error}") from None

    return find


def _none(_: str) -> dict[str, Version]:
    return {}


def _rendered(vectors: FeatureVectors) -> Group:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("feature", no_wrap=True)
    table.add_column("value", justify="right")
    table.add_column("status")
    (row,) = vectors.rows
    for name, value in zip(vectors.features, row, strict=True):
        (status,) = vectors.status[name.rpartition("__")[0] or name]
        # As text: Rich would take a list of strings, such as [shoes, books], for a style, and leave it out.
        table.add_row(name, Text(format_value(value)), Text(status, STATUS_STYLES[status]))
    servable = "nothing yet" if vectors.watermark is None else instants.to_text(vectors.watermark)
    at = f"at {instants.to_text(vectors.at)}; servable up to {servable}"
    return Group(Text(at, "dim"), table)
