"""Which bound of which SLA holds at this look: a report and the agreements → objectives. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rtml_assets.watch.agreements import Agreement
from rtml_assets.watch.conditions import LEAST_EVENTS
from rtml_assets.watch.report import Flow, Objective, Report, Service, Source

LEAST_REQUESTS = 20
"""Of fewer requests in the last minute no p99 is judged but the probe's."""

Measured = tuple[float | None, str]
"""A value, or why there is none."""


def objectives(report: Report, agreed: Mapping[str, Agreement]) -> list[Objective]:
    """Return one objective for each bound of each target."""
    return [objective for agreement in agreed.values() for objective in _of(report, agreement)]


def _of(report: Report, agreement: Agreement) -> Iterator[Objective]:
    kind, _, name = agreement.target.partition(":")
    if kind == "source":
        yield from _source(report, agreement, report.sources.get(name))
    elif kind == "view":
        view = report.views.get(name)
        nothing = "nothing was seen of it"
        yield from _duration(agreement, "freshness", (view.age_ms, view.words) if view else (None, nothing))
        yield from _nulls(agreement, view.nulls if view else {})
    else:
        yield from _service(agreement, report.services.get(name))


def _source(report: Report, agreement: Agreement, source: Source | None) -> Iterator[Objective]:
    tiles = source.flows.get("tiles") if source else None
    tiles = tiles or Flow()
    words = source.words if source else "nothing was seen of it"
    yield from _duration(agreement, "freshness", (tiles.freshness_p99_ms, words))
    yield from _duration(agreement, "lag", (tiles.worst("lag_ms"), words))
    lost = not report.platform.redis.up  # whatever is sent does not come through
    yield from _duration(agreement, "heartbeat", (tiles.worst("missing_ms"), words), lost=lost)
    minute = tiles.minute
    total = minute.get("accepted", 0) + minute.get("refused", 0)
    for name in ("late", "duplicates", "refused"):
        of = total if name == "refused" else minute.get("accepted", 0)
        enough = of >= LEAST_EVENTS
        value = minute.get(name, 0) / of if enough else None
        yield from _share(agreement, name, (value, "" if enough else f"{of} events in the last minute"))
    yield from _nulls(agreement, tiles.nulls if minute.get("accepted", 0) >= LEAST_EVENTS else {})


def _service(agreement: Agreement, service: Service | None) -> Iterator[Objective]:
    service = service or Service(words="nothing was seen of it")
    yield from _duration(agreement, "freshness", (service.age_ms, service.words))
    busy = service.latency is not None
    p99 = service.latency.p99 if service.latency else service.probe_ms
    yield from _duration(agreement, "p99", (p99, "" if busy else "of the watch's own requests"))
    bound = agreement.sla.availability
    if bound is None:
        return
    requests, errors = service.requests or 0, service.errors or 0
    if service.probe_ok is False and not errors:
        requests, errors = max(requests, 1), 1
    value = 1 - errors / requests if requests else None
    good = None if value is None else value >= bound
    yield Objective(
        agreement.target,
        "availability",
        value,
        bound,
        "share",
        good,
        share=bound,
        budget=agreement.sla.budget_us,
        promised="availability" in agreement.promised,
        total=requests,
        bad=errors,
        words=service.words,
    )


def _duration(agreement: Agreement, name: str, measured: Measured, *, lost: bool = False) -> Iterator[Objective]:
    bound = agreement.sla.us(name)
    if bound is not None:
        yield _objective(agreement, name, measured, bound / 1_000, "ms", lost=lost)


def _share(agreement: Agreement, name: str, measured: Measured) -> Iterator[Objective]:
    bound = getattr(agreement.sla, name)
    if bound is not None:
        yield _objective(agreement, name, measured, bound, "share")


def _nulls(agreement: Agreement, nulls: Mapping[str, float]) -> Iterator[Objective]:
    for name, bound in agreement.sla.nulls.items():
        measured = nulls.get(name)
        words = "" if measured is not None else "too few values in the last minute"
        yield _objective(agreement, f"nulls:{name}", (measured, words), bound, "share")


def _objective(
    agreement: Agreement, name: str, measured: Measured, bound: float, unit: str, *, lost: bool = False
) -> Objective:
    value, words = measured
    good = False if lost else None if value is None else value <= bound
    return Objective(
        agreement.target,
        name,
        value,
        bound,
        "ms" if unit == "ms" else "share",
        good,
        share=agreement.sla.objective,
        budget=agreement.sla.budget_us,
        promised=name.partition(":")[0] in agreement.promised,
        bad=None if good is None else int(not good),
        words=words,
    )
