"""The catalog of aggregates and of state families, by the names that plans carry."""

from __future__ import annotations

from rtml.algebra.counting import Count, Rows, Tally
from rtml.algebra.extremes import Greatest, Least, Max, Min
from rtml.algebra.family import Aggregate, Family
from rtml.algebra.moments import Mean, Spread, Stddev, Sum, Total, Variance
from rtml.algebra.recent import Earliest, First, Last, Latest
from rtml.errors import UnknownNameError

AGGREGATES: dict[str, Aggregate] = {
    aggregate.name: aggregate
    for aggregate in (Count(), Sum(), Mean(), Min(), Max(), Variance(), Stddev(), First(), Last())
}
FAMILIES: dict[str, type[Family]] = {
    family.code: family for family in (Rows, Tally, Total, Spread, Least, Greatest, Earliest, Latest)
}


def aggregate(name: str) -> Aggregate:
    """Return an aggregate by name.

    Raises:
        UnknownNameError: the catalog has none of that name.
    """
    try:
        return AGGREGATES[name]
    except KeyError:
        raise UnknownNameError.of("aggregate", name, AGGREGATES) from None
