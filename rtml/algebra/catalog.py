"""The catalog of aggregates and of state families, by the names that plans carry."""

from __future__ import annotations

from functools import lru_cache

from rtml.algebra.binned import Bins, Histogram
from rtml.algebra.counting import Count, Rows, Tally
from rtml.algebra.distinct import CountDistinct, Distinct
from rtml.algebra.extremes import Greatest, Least, Max, Min
from rtml.algebra.family import Aggregate, Family, Parameters
from rtml.algebra.frequent import ApproxTopK, Counters
from rtml.algebra.moments import Mean, Spread, Stddev, Sum, Total, Variance
from rtml.algebra.quantiles import ApproxPercentile, ApproxPercentiles, Ranks
from rtml.algebra.recent import Earliest, First, Last, Latest
from rtml.algebra.references import PercentileBounds, TopCounts
from rtml.algebra.uniques import ApproxCountDistinct, Uniques
from rtml.errors import UnknownNameError

AGGREGATES: dict[str, type[Aggregate]] = {
    aggregate.name: aggregate
    for aggregate in (
        *(Count, Sum, Mean, Min, Max, Variance, Stddev, First, Last),
        *(CountDistinct, ApproxCountDistinct, ApproxPercentile, ApproxPercentiles, ApproxTopK, Histogram),
    )
}
REFERENCES: dict[str, type[Aggregate]] = {aggregate.name: aggregate for aggregate in (PercentileBounds, TopCounts)}
"""What others are judged by; definitions cannot name them."""
FAMILIES: dict[str, type[Family]] = {
    family.code: family
    for family in (
        *(Rows, Tally, Total, Spread, Least, Greatest, Earliest, Latest),
        *(Distinct, Uniques, Ranks, Counters, Bins),
    )
}


def aggregate(name: str, parameters: Parameters = ()) -> Aggregate:
    """Return an aggregate by name, with its parameters.

    Raises:
        UnknownNameError: the catalog has none of that name.
        DefinitionError: a parameter is not what it should be.
    """
    made = AGGREGATES.get(name) or REFERENCES.get(name)
    if made is None:
        raise UnknownNameError.of("aggregate", name, AGGREGATES)
    return _made(made, parameters)


@lru_cache(maxsize=4096)
def _made(aggregate: type[Aggregate], parameters: Parameters) -> Aggregate:
    return aggregate(**dict(parameters))
