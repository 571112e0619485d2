"""Events → what a view keeps of them: the one place where `where` and `derive` are applied, on every road."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
import numpy as np

from rtml.algebra.family import EVENT_TIME, ID64, NUMPY_KIND, Events, Lane
from rtml.errors import DefinitionError, near_miss
from rtml.lazy import pl
from rtml.plan import Plan
from rtml.texts import hashed, text_column

if TYPE_CHECKING:
    from rtml.define.source import EventSource

INGESTED_AT = "ingested_at"


class RowWise(Protocol):
    """What the roads ask of a view: whose events, which of them count, and what is derived from them."""

    @property
    def name(self) -> str:
        """The view's name."""

    @property
    def source(self) -> EventSource:
        """Whose events."""

    @property
    def where(self) -> pl.Expr | None:
        """Which of them count."""

    @property
    def derive(self) -> Mapping[str, pl.Expr]:
        """Further columns."""


class Projection(msgspec.Struct, frozen=True):
    """A view's row-wise part written down, so that a version goes on being computed when its definition has changed."""

    timestamp: str
    event_id: str | None
    where: str | None
    derive: dict[str, str]

    @staticmethod
    def of(view: RowWise) -> Projection:
        """Write down what a view does."""
        where = None if view.where is None else _written(view.where)
        derive = {name: _written(expression) for name, expression in view.derive.items()}
        return Projection(view.source.timestamp, view.source.event_id, where, derive)

    def roots(self, name: str) -> set[str]:
        """Return the columns that it reads: of the contract, and those that it derives itself."""
        texts = [*self.derive.values(), *([] if self.where is None else [self.where])]
        return {self.timestamp, *(root for text in texts for root in _read(name, text).meta.root_names())}

    def over(self, name: str, source: EventSource) -> FormerView:
        """Return what was written down as a view of a source.

        Raises:
            DefinitionError: the source no longer has what it needs.
        """
        where = None if self.where is None else _read(name, self.where)
        derive = {column: _read(name, text) for column, text in self.derive.items()}
        view = FormerView(name, source, where, derive)
        missing = sorted(self.roots(name) - {*source.columns, *derive})
        if missing or source.timestamp != self.timestamp:
            wanted = missing[0] if missing else self.timestamp
            raise DefinitionError(
                f"view {name!r}, as it was defined before, needs column {wanted!r} of {source.where}."
                f"{near_miss(wanted, source.columns)}"
            )
        if source.event_id != self.event_id:
            raise DefinitionError(
                f"view {name!r}, as it was defined before, tells events apart by {self.event_id!r}, and {source.where} "
                f"by {source.event_id!r} now: they would count twice. Give the source another name"
            )
        return view


class FormerView(NamedTuple):
    """A view as it was defined when one of its versions was made."""

    name: str
    source: EventSource
    where: pl.Expr | None
    derive: Mapping[str, pl.Expr]


def _written(expression: pl.Expr) -> str:
    return str(expression.meta.serialize(format="json"))


def _read(name: str, text: str) -> pl.Expr:
    try:
        return pl.Expr.deserialize(text.encode(), format="json")
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise DefinitionError(
            f"view {name!r}: this Polars cannot read an expression of a former one: {error}"
        ) from None


def project(
    view: RowWise, plan: Plan, events: pl.LazyFrame, keep: Sequence[str] = (), *, texts: bool = False
) -> pl.LazyFrame:
    """Return a view's events: join keys, `event_time` and `ingested_at` (int64 µs), `id64`, and its value columns.

    Columns to `keep` come along as they are. Value columns are float64, int64, or uint64 for the hashes of strings; a
    derived value that is not finite counts as null, and so does a string of more than `LONGEST_TEXT` bytes. With
    `texts`, the strings that the view returns come along too, as `text_column` names them.
    """
    from rtml.columns import KEY_TYPES  # noqa: PLC0415  # needs Polars, which a server that reads versions does without

    frame = events.with_columns(**view.derive) if view.derive else events
    if view.where is not None:
        frame = frame.filter(view.where)
    return frame.select(
        *(pl.col(name).cast(KEY_TYPES[kind]) for name, kind in plan.keys),
        pl.col(view.source.timestamp).dt.epoch("us").alias(EVENT_TIME),
        pl.col(INGESTED_AT).dt.epoch("us"),
        pl.col(ID64),
        *(_lane(name, kind) for name, kind in plan.lanes.items()),
        *(pl.col(name).alias(text_column(name)) for name in plan.texts if texts),
        *keep,
    )


def _lane(name: str, kind: str) -> pl.Expr:
    if kind == "str":
        return hashed(name)
    if kind == "i64":
        return pl.col(name).cast(pl.Int64)
    value = pl.col(name).cast(pl.Float64)
    return pl.when(value.is_finite()).then(value).alias(name)


def to_events(plan: Plan, frame: pl.DataFrame) -> Events:
    """Return a projected frame as columns of numpy arrays."""
    lanes = {
        name: Lane(
            frame[name].fill_null(0).to_numpy().astype(NUMPY_KIND[kind], copy=False),
            frame[name].is_not_null().to_numpy().astype(np.bool_, copy=False),
        )
        for name, kind in plan.lanes.items()
    }
    return Events(frame[EVENT_TIME].to_numpy(), frame[ID64].to_numpy(), lanes)
