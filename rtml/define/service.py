"""The versioned list of features that one model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rtml.define.naming import check_name, check_owners
from rtml.define.views import Selection, StreamFeatureView
from rtml.errors import DefinitionError


@dataclass(frozen=True, eq=False)
class FeatureService:
    """What one model reads: whole views, or selections of them, in this order, under a version.

    Args:
        name: its name.
        features: views, or selections of them.
        version: the version that the model was trained on.
        log: which share of all entities has its served vectors logged to `served/<name>`, from 0 to 1; chosen by the
            hash of the join keys, so that an entity is logged always or never.

    Raises:
        DefinitionError: nothing is selected, or something twice.
    """

    name: str
    features: Sequence[StreamFeatureView | Selection]
    version: int = 1
    log: float = 0.01
    description: str = ""
    owners: Sequence[str] = ()
    columns: tuple[tuple[StreamFeatureView, str], ...] = field(init=False, repr=False, default=())

    def __post_init__(self) -> None:
        """Validate, and list the features."""
        where = check_name("service", self.name)
        check_owners(where, self.owners)
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1:
            raise DefinitionError.at(where, "version", "1 or more", self.version)
        if isinstance(self.log, bool) or not isinstance(self.log, int | float) or not 0 <= self.log <= 1:
            raise DefinitionError.at(where, "log", "a share between 0 and 1", self.log)
        if not self.features:
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
