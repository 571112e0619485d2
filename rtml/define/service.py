"""The versioned list of features that one model reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rtml.define.defaults import check_staleness, served_defaults
from rtml.define.drift import Drift
from rtml.define.naming import check_list, check_name, check_owners, check_type
from rtml.define.sla import SLA, check_sla
from rtml.define.spine import Spine
from rtml.define.views import Selection, StreamFeatureView
from rtml.errors import DefinitionError
from rtml.staleness import OnStale


@dataclass(frozen=True, eq=False)
class FeatureService:
    """What one model reads: whole views, or selections of them, in this order, under a version.

    Args:
        name: its name.
        features: views, or selections of them.
        version: the version that the model was trained on.
        log: which share of all entities has its served vectors logged to `served/<name>`, from 0 to 1; chosen by the
            hash of the join keys, so that an entity is logged always or never.
        training: which rows its training set `training/<name>` has; without it there is no such table.
        drift: how far what is served may move away from what the model was trained on; None: nobody looks.
        sla: what is promised of it: freshness, p99, availability.
        on_stale: what becomes of a view's values that are older than its `freshness` or `ttl`: `"serve"` them, with
            their status; `"refuse"`: a request while a stream is behind, and the features of an entity whose last event
            is too old, which are null then; or give a `"default"` instead.
        defaults: those values, by `view__feature`; a feature that is not named has the value of an empty window.

    Raises:
        DefinitionError: nothing is selected, or something twice; or the training set's rows lack a join key; or a
            default is not of its feature's type.
        UnknownNameError: `drift` or `defaults` name a feature that the service does not have.
    """

    name: str
    features: Sequence[StreamFeatureView | Selection]
    version: int = 1
    log: float = 0.01
    training: Spine | None = None
    description: str = ""
    owners: Sequence[str] = ()
    drift: Drift | None = field(default_factory=Drift)
    sla: SLA | None = None
    on_stale: OnStale = "serve"
    defaults: Mapping[str, object] = field(default_factory=dict)
    columns: tuple[tuple[StreamFeatureView, str], ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        """Validate, and list the features."""
        where = check_name("service", self.name)
        check_owners(where, self.owners)
        check_sla(where, "service", self.sla)
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1:
            raise DefinitionError.at(where, "version", "1 or more", self.version)
        if isinstance(self.log, bool) or not isinstance(self.log, int | float) or not 0 <= self.log <= 1:
            raise DefinitionError.at(where, "log", "a share between 0 and 1", self.log)
        if not check_list(where, "features", self.features, "a list of views or selections of them"):
            raise DefinitionError.at(where, "features", "at least one view", self.features)
        columns: list[tuple[StreamFeatureView, str]] = []
        for item in self.features:
            if isinstance(item, StreamFeatureView):
                columns += [(item, name) for name in item.resolved]
            elif isinstance(item, Selection):
                columns += [(item.view, name) for name in item.names]
            else:
                raise DefinitionError.at(where, "features", "views or selections of them", item)
        self._check_unique(where, columns)
        object.__setattr__(self, "columns", tuple(columns))
        check_staleness(where, self.on_stale, self.defaults, columns)
        if self.training is not None:
            check_type(where, "training", self.training, Spine, "a Spine")
            self._check_training(where, self.training)
        if self.drift is not None:
            check_type(where, "drift", self.drift, Drift, "Drift(...) or None")
            lists = {f"{view.name}__{name}": view.resolved[name].output.width > 0 for view, name in columns}
            self.drift.check(where, [c for c, listed in lists.items() if not listed], [c for c in lists if lists[c]])

    def _check_training(self, where: str, training: Spine) -> None:
        for view in self.views:
            training.check_service(where, view.key_types)
        features = {f"{view.name}__{name}" for view, name in self.columns}
        for label in training.labels:
            if both := features & set(label.columns):
                raise DefinitionError(f"{where}: training: {min(both)!r} is both a feature and a label")

    @staticmethod
    def _check_unique(where: str, columns: list[tuple[StreamFeatureView, str]]) -> None:
        seen: set[str] = set()
        for view, name in columns:
            column = f"{view.name}__{name}"
            if column in seen:
                raise DefinitionError(f"{where}: {column!r} is listed twice")
            seen.add(column)

    @property
    def views(self) -> tuple[StreamFeatureView, ...]:
        """The views that are read, each once, in order."""
        return tuple(dict.fromkeys(view for view, _ in self.columns))

    @property
    def key_types(self) -> dict[str, str]:
        """The join keys of all views, each once, with their types."""
        return {key: kind for view in self.views for key, kind in view.key_types.items()}

    @property
    def served_defaults(self) -> dict[str, Any]:
        """The defaults as values of their features' types, by `view__feature`."""
        return served_defaults(self.defaults, self.columns)

    def spine(self) -> Spine:
        """Return which rows its training set has.

        Raises:
            DefinitionError: it has none.
        """
        if self.training is None:
            raise DefinitionError(f"service {self.name!r} has no training=Spine(...), and so no training set")
        return self.training
