"""A module of definitions → a registry: a value that every process loads for itself."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TypeVar

from rtml.compile import compile_view
from rtml.define.custom import CustomAggregate
from rtml.define.entity import Entity
from rtml.define.label import LabelSource
from rtml.define.service import FeatureService
from rtml.define.source import EventSource
from rtml.define.views import StreamFeatureView
from rtml.errors import DefinitionError, SettingsError, UnknownNameError
from rtml.plan import Plan

T = TypeVar("T", EventSource, Entity, StreamFeatureView, FeatureService, LabelSource)


@dataclass(frozen=True)
class Registry:
    """All definitions of a project, by name."""

    sources: dict[str, EventSource]
    entities: dict[str, Entity]
    views: dict[str, StreamFeatureView]
    services: dict[str, FeatureService]
    labels: dict[str, LabelSource] = field(default_factory=dict)

    @classmethod
    def of(cls, definitions: Iterable[object]) -> Registry:
        """Collect definitions, and those that they refer to.

        Raises:
            DefinitionError: two different definitions have one name, or an entity's keys differ in type between views.
        """
        found = list(definitions)
        services = [item for item in found if isinstance(item, FeatureService)]
        spines = [service.training for service in services if service.training is not None]
        labels = [item for item in found if isinstance(item, LabelSource)]
        labels += [label for spine in spines for label in spine.labels]
        _check_customs(item for item in found if isinstance(item, CustomAggregate))
        views = [item for item in found if isinstance(item, StreamFeatureView)]
        views += [view for service in services for view in service.views]
        entities = [item for item in found if isinstance(item, Entity)] + [view.entity for view in views]
        sources = [item for item in found if isinstance(item, EventSource)] + [view.source for view in views]
        sources += [spine.source for spine in spines] + [label.source for label in labels]
        registry = cls(
            _by_name("source", sources),
            _by_name("entity", entities),
            _by_name("view", views),
            _by_name("service", services),
            _by_name("label source", labels),
        )
        registry._check_key_types()
        registry._check_streams()
        return registry

    def _check_streams(self) -> None:
        used: dict[str, str] = {}
        for source in self.sources.values():
            for partition in range(source.stream.partitions):
                key = source.stream.key(partition)
                other = used.setdefault(key, source.name)
                if other != source.name:
                    raise DefinitionError(f"sources {other!r} and {source.name!r} both read the stream {key!r}")

    def _check_key_types(self) -> None:
        seen: dict[str, tuple[str, dict[str, str]]] = {}
        for view in self.views.values():
            other, types = seen.setdefault(view.entity.name, (view.name, view.key_types))
            if types != view.key_types:
                raise DefinitionError(
                    f"entity {view.entity.name!r} has keys {types} in view {other!r}, "
                    f"{view.key_types} in view {view.name!r}"
                )

    @cached_property
    def plans(self) -> dict[str, Plan]:
        """Every view's plan."""
        return {name: compile_view(view) for name, view in self.views.items()}

    def views_of(self, source: str) -> list[StreamFeatureView]:
        """Return the views over a source."""
        return [view for view in self.views.values() if view.source.name == source]

    def partition_key(self, source: str) -> tuple[str, ...]:
        """Return the columns whose values choose an event's partition: the first view's join keys, else the event id.

        Empty where there is neither.
        """
        views = self.views_of(source)
        if views:
            return tuple(views[0].entity.join_keys)
        event_id = self.source(source).event_id
        return () if event_id is None else (event_id,)

    def source(self, name: str) -> EventSource:
        """Return a source, or an error with the nearest name."""
        return _get("source", self.sources, name)

    def view(self, name: str) -> StreamFeatureView:
        """Return a view, or an error with the nearest name."""
        return _get("view", self.views, name)

    def service(self, name: str) -> FeatureService:
        """Return a service, or an error with the nearest name."""
        return _get("service", self.services, name)

    def label(self, name: str) -> LabelSource:
        """Return a label source, or an error with the nearest name."""
        return _get("label source", self.labels, name)


def load(features: str) -> Registry:
    """Return the registry of an import path (`package.module`) or a `.py` file.

    Raises:
        SettingsError: there is no such module or file, or it defines nothing.
        DefinitionError: a definition in it cannot mean what it says.
    """
    module = _load_file(Path(features)) if features.endswith(".py") else _import(features)
    registry = Registry.of(vars(module).values())
    if not registry.sources:
        raise SettingsError(f"{features!r} (RTML_FEATURES) defines no EventSource and no view")
    return registry


def _import(path: str) -> ModuleType:
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name and (path == error.name or path.startswith(f"{error.name}.")):
            raise SettingsError(f"no module {path!r} (RTML_FEATURES): expected an import path or a .py file") from None
        raise


class _FromSource(SourceFileLoader):
    """Compiles a file each time: a cached copy is found by the second and the size, which an edit may leave alike."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise SettingsError(f"no file {str(path)!r} (RTML_FEATURES): expected an import path or a .py file")
    name = f"rtml_features_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
    if spec is None or spec.loader is None:
        raise SettingsError(f"{str(path)!r} (RTML_FEATURES) is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _by_name(kind: str, items: Iterable[T]) -> dict[str, T]:
    named: dict[str, T] = {}
    for item in items:
        other = named.setdefault(item.name, item)
        if other is not item and not (isinstance(item, Entity) and other == item):
            raise DefinitionError(f"two different {kind} definitions are called {item.name!r}")
    return named


def _check_customs(aggregates: Iterable[CustomAggregate]) -> None:
    seen: dict[tuple[str, int], CustomAggregate] = {}
    for aggregate in aggregates:
        other = seen.setdefault((aggregate.name, aggregate.version), aggregate)
        if other is not aggregate:
            raise DefinitionError(f"{other.place} and {aggregate.place} both are version {aggregate.version}")


def _get(kind: str, known: dict[str, T], name: str) -> T:
    try:
        return known[name]
    except KeyError:
        raise UnknownNameError.of(kind, name, known) from None
