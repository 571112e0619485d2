"""Prometheus' families of figures, put together by name: what is not known has no sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from prometheus_client.core import Metric

from rtml_assets.watch.report import Quantiles

Kind = Literal["gauge", "counter", "summary"]


class Families:
    """Collects samples of one scrape."""

    def __init__(self) -> None:
        """Begin with none."""
        self._families: dict[str, Metric] = {}

    def __iter__(self) -> Iterator[Metric]:
        """Return the families in the order in which they came."""
        return iter(self._families.values())

    def gauge(self, name: str, words: str, value: float | None, /, **labels: str) -> None:
        """Add a figure that goes up and down; `None` is left out."""
        if value is not None:
            self._family("gauge", name, words).add_sample(name, labels, float(value))

    def count(self, name: str, words: str, value: float | None, /, **labels: str) -> None:
        """Add a figure that only grows; its name is given without `_total`."""
        if value is not None:
            self._family("counter", name, words).add_sample(f"{name}_total", labels, float(value))

    def seconds(self, name: str, words: str, milliseconds: float | None, /, **labels: str) -> None:
        """Add a time, given in milliseconds."""
        self.gauge(name, words, None if milliseconds is None else milliseconds / 1_000, **labels)

    def quantiles(self, name: str, words: str, found: Quantiles | None, /, **labels: str) -> None:
        """Add a distribution, given in milliseconds."""
        if found is not None:
            self.summary(name, words, {"0.5": found.p50, "0.95": found.p95, "0.99": found.p99}, **labels)

    def summary(self, name: str, words: str, found: Mapping[str, float | None], /, **labels: str) -> None:
        """Add milliseconds by quantile."""
        for quantile, value in found.items():
            if value is not None:
                family = self._family("summary", name, words)
                family.add_sample(name, {**labels, "quantile": quantile}, value / 1_000)

    def _family(self, kind: Kind, name: str, words: str) -> Metric:
        if name not in self._families:
            self._families[name] = Metric(name, words, kind)
        return self._families[name]
