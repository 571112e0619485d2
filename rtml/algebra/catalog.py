"""The catalog of aggregates, by the names that plans carry."""

from __future__ import annotations

from functools import lru_cache

from rtml.algebra.binned import Histogram
from rtml.algebra.counting import Count
from rtml.algebra.custom import CUSTOM, Custom
from rtml.algebra.decayed import DecayedCount, DecayedMean, DecayedSum
from rtml.algebra.distinct import CountDistinct
from rtml.algebra.extremes import Max, Min
from rtml.algebra.family import Aggregate, Parameters
from rtml.algebra.frequent import ApproxTopK
from rtml.algebra.moments import Mean, Stddev, Sum, Variance
from rtml.algebra.quantiles import ApproxPercentile, ApproxPercentiles
from rtml.algebra.rates import Rate, Share, SumRate
from rtml.algebra.recent import First, Last
from rtml.algebra.recent_n import FirstN, LastDistinctN, LastN
from rtml.algebra.references import PercentileBounds, TopCounts
from rtml.algebra.shape import Kurtosis, Reach, Skew
from rtml.algebra.uniques import ApproxCountDistinct
from rtml.errors import UnknownNameError

AGGREGATES: dict[str, type[Aggregate]] = {
    aggregate.name: aggregate
    for aggregate in (
        *(Count, Rate, Sum, Mean, Share, SumRate, Min, Max),
        *(Variance, Stddev, Skew, Kurtosis),
        *(First, Last, FirstN, LastN, LastDistinctN),
        *(DecayedCount, DecayedSum, DecayedMean),
        *(CountDistinct, ApproxCountDistinct, ApproxPercentile, ApproxPercentiles, ApproxTopK, Histogram),
    )
}
REFERENCES: dict[str, type[Aggregate]] = {
    aggregate.name: aggregate for aggregate in (PercentileBounds, TopCounts, Reach)
}
"""What others are judged by; definitions cannot name them."""


def aggregate(name: str, parameters: Parameters = ()) -> Aggregate:
    """Return an aggregate by name, with its parameters.

    Raises:
        UnknownNameError: the catalog has none of that name.
        DefinitionError: a parameter is not what it should be.
    """
    made = AGGREGATES.get(name) or REFERENCES.get(name) or (Custom if name == CUSTOM else None)
    if made is None:
        raise UnknownNameError.of("aggregate", name, AGGREGATES)
    try:
        return _made(made, parameters)
    except TypeError:  # one that has no hash is what no aggregate takes: it says so itself
        return made(**dict(parameters))


@lru_cache(maxsize=4096)
def _made(aggregate: type[Aggregate], parameters: Parameters) -> Aggregate:
    return aggregate(**dict(parameters))
