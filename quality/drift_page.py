"""The page about a service's drift on one day: one file of HTML that loads nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from itertools import groupby

from quality.drift import FeatureDrift, Measure
from quality.drift_svg import bars, line

Trends = Mapping[tuple[str, str], Sequence[float | None]]
"""By feature and reference: its population stability index day by day, oldest first."""

_MEANINGS = {
    "psi": "population stability index",
    "ks": "Kolmogorov-Smirnov distance",
    "js": "Jensen-Shannon distance",
    "nulls": "how far the share of nulls moved",
    "unseen": "share of new values, beyond those to be expected",
}
_LABELS = {"nulls": "null moved", "unseen": "unseen, unexpected"}


@dataclass(frozen=True)
class Page:
    """What a page shows."""

    service: str
    day: str
    features: Sequence[FeatureDrift]
    told: Sequence[str]
    """What was compared with what, and what could not be: a sentence each."""
    trends: Trends = field(default_factory=dict)
    days: Sequence[str] = ()
    """The days that have a page, newest first."""

    def html(self) -> str:
        """Return the page: features that drifted first, and then by how near their bounds they are."""
        groups = by_feature(self.features)
        drifted = sum(any(one.drifted for one in group) for group in groups)
        badge = _badge("bad" if drifted else "good", drifted_words(drifted, len(groups)))
        told = "".join(f"<p>{escape(words)}</p>" for words in self.told)
        articles = "".join(self._article(group) for group in groups)
        template = files("quality").joinpath("drift_page.html").read_text("utf-8")
        parts = {
            "TITLE": f"drift of {escape(self.service)}, {escape(self.day)}",
            "SERVICE": escape(self.service),
            "DAY": escape(self.day),
            "BADGE": badge,
            "TOLD": told,
            "ARTICLES": articles,
            "DAYS": self._days(),
        }
        for name, part in parts.items():
            template = template.replace(f"<!--{name}-->", part, -1 if name == "TITLE" else 1)
        return template

    def _article(self, group: Sequence[FeatureDrift]) -> str:
        figures = "".join(self._figure(one) for one in group)
        return (
            f'<article id="{escape(group[0].feature)}"><h2><code>{escape(group[0].feature)}</code> '
            f'{_state(group)}</h2><div class="pair">{figures}</div></article>'
        )

    def _figure(self, one: FeatureDrift) -> str:
        words = f"{one.feature} now, and {one.reference}"
        note = f'<p class="soft">{escape(one.note)}</p>' if one.note else ""
        psi = next((measure for measure in one.measures if measure.name == "psi"), None)
        trend = line(self.trends.get((one.feature, one.reference), ()), psi.allowed, "PSI day by day") if psi else ""
        shown = f'<p class="soft trend">psi by day {trend}</p>' if trend else ""
        return (
            f"<figure><figcaption>against <b>{escape(one.reference)}</b></figcaption>{bars(one.bars, words)}"
            f"{_axis(one)}{note}{_measures(one)}{shown}</figure>"
        )

    def _days(self) -> str:
        links = "".join(f'<li><a href="{escape(day)}.html">{escape(day)}</a></li>' for day in self.days)
        return f"<nav><h2>Days</h2><ul>{links}</ul></nav>" if links else ""


def by_feature(features: Sequence[FeatureDrift]) -> list[list[FeatureDrift]]:
    """Return each feature's comparisons together, the worst features first."""
    named = sorted(features, key=lambda one: one.feature)
    groups = [list(group) for _, group in groupby(named, key=lambda one: one.feature)]
    return sorted(groups, key=lambda group: max(one.worst for one in group), reverse=True)


def drifted_words(drifted: int, features: int) -> str:
    """Say how many features drifted."""
    return f"{drifted} of {features} features drifted" if drifted else f"none of {features} features drifted"


def _state(group: Sequence[FeatureDrift]) -> str:
    if any(one.drifted and one.severity == "critical" for one in group):
        return _badge("bad", "drifted, critical")
    if any(one.drifted for one in group):
        return _badge("bad", "drifted")
    if not any(one.measures for one in group):
        return _badge("soft", "too few rows")
    return _badge("good", "within its bounds")


def _badge(kind: str, words: str) -> str:
    return f'<span class="badge {kind}">{escape(words)}</span>'


def _axis(one: FeatureDrift) -> str:
    labels = one.bars.labels
    if not labels:
        return ""
    ends = labels if len(labels) <= 8 else (labels[0], labels[-1])
    kind = "values" if one.bars.is_of_values and len(labels) <= 8 else "ends"
    return f'<div class="axis {kind}">{"".join(f"<span>{escape(label)}</span>" for label in ends)}</div>'


def _measures(one: FeatureDrift) -> str:
    rows = "".join(_row(measure) for measure in one.measures)
    sizes = (
        f"<tr><th>rows</th><td>{one.now:,} now</td><td>{one.then:,} then</td></tr>"
        f"<tr><th>share null</th><td>{one.nulls_now:.1%} now</td><td>{one.nulls_then:.1%} then</td></tr>"
    )
    return f"<table>{rows}{sizes}</table>"


def _row(measure: Measure) -> str:
    chance = " (may be chance)" if measure.value > measure.allowed and not measure.broken else ""
    usual = "too few days to tell" if measure.usual is None else f"{measure.usual:.3g}"
    kind = ' class="bad"' if measure.broken else ""
    return (
        f'<tr{kind}><th title="{escape(_MEANINGS[measure.name])}">{_LABELS.get(measure.name, measure.name)}</th>'
        f"<td>{measure.value:.3g}{chance}</td>"
        f'<td title="bound {measure.bound:g}, usual: {usual}">at most {measure.allowed:.3g}</td></tr>'
    )
