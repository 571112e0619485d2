"""The catalog of aggregates and of state families, by the names that plans carry."""

from __future__ import annotations

from functools import lru_cache

from rtml.algebra.counting import Count, Rows, Tally
from rtml.algebra.extremes import Greatest, Least, Max, Min
from rtml.algebra.family import Aggregate, Family, Parameters
from rtml.algebra.moments import Mean, Spread, Stddev, Sum, Total, Variance
from rtml.algebra.recent import Earliest, First, Last, Latest
from rtml.errors import UnknownNameError

AGGREGATES: dict[str, type[Aggregate]] = {
    aggregate.name: aggregate for aggregate in (Count, Sum, Mean, Min, Max, Variance, Stddev, First, Last)
}
FAMILIES: dict[str, type[Family]] = {
    family.code: family for family in (Rows, Tally, Total, Spread, Least, Greatest, Earliest, Latest)
}


def aggregate(name: str, parameters: Parameters = ()) -> Aggregate:
    """Return an aggregate by name, with its parameters.

    Raises:
        UnknownNameError: the catalog has none of that name.
        DefinitionError: a parameter is not what it should be.
    """
    try:
        made = AGGREGATES[name]
    except KeyError:
        raise UnknownNameError.of("aggregate", name, AGGREGATES) from None
    return _made(made, parameters)


@lru_cache(maxsize=4096)
def _made(aggregate: type[Aggregate], parameters: Parameters) -> Aggregate:
    return aggregate(**dict(parameters))
