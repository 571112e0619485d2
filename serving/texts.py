"""The strings of an answer: hashes come with the tiles, their texts from memory or in a second round trip.

A text never changes, so that what is remembered is never stale. Only a string that this process has not served of late
costs a round trip more: one `HMGET` for each entity that has such strings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rtml.online import keys
from rtml.online.commands import Command
from rtml.online.texts import field, text_of
from serving.merging import ViewMerge
from serving.text_cache import TextCache


class Strings:
    """The strings of an answer whose views are merged.

    While `unfinished`, send `commands()` and `absorb` the replies; then `resolve`.
    """

    def __init__(self, merges: Sequence[ViewMerge], cache: TextCache) -> None:
        """Take the views' parts of the answer."""
        self._commands: list[Command] | None = None
        texts = [_ViewStrings(merge, cache) for merge in merges if merge.lookup.plan.texts]
        self._views = [found for found in texts if found.features]

    def __bool__(self) -> bool:
        """Whether any feature is a string, or a list of them."""
        return bool(self._views)

    @property
    def unfinished(self) -> bool:
        """Whether a round trip is needed; of a lookup of which all is merged."""
        return bool(self.commands())

    def commands(self) -> list[Command]:
        """Return what reads the texts that are not remembered, once."""
        if self._commands is None:
            self._commands = [command for view in self._views for command in view.commands()]
        return self._commands

    def absorb(self, replies: Sequence[Any]) -> None:
        """Take the replies to `commands`."""
        remaining, self._commands = iter(replies), []
        for view in self._views:
            view.absorb(remaining)

    def resolve(self) -> None:
        """Put texts in the place of hashes; an entity of which one is nowhere is `damaged`, and has no values."""
        for view in self._views:
            view.resolve()


class _ViewStrings:
    """The strings of one view's entities."""

    def __init__(self, merge: ViewMerge, cache: TextCache) -> None:
        self._merge, self._cache = merge, cache
        plan = merge.lookup.plan
        self.features = [feature for feature in merge.values if plan.feature(feature).output.kind == "str"]
        self._known: dict[int, str] = {}
        self._asked: list[list[int]] = []

    def commands(self) -> Iterator[Command]:
        """One `HMGET` for each entity, or partial state of one, that has strings which are not known."""
        self._asked = []
        lookup = self._merge.lookup
        for place in range(lookup.entities):
            missing = [one for one in self._hashes(place) if not self._recall(one)]
            if missing:
                for row in lookup.rows_of(place, place + 1):
                    self._asked.append(missing)
                    yield ("HMGET", keys.texts(row.key), *(field(one) for one in missing))

    def absorb(self, replies: Iterator[Any]) -> None:
        """Remember what was read."""
        for missing in self._asked:
            for text_hash, value in zip(missing, next(replies), strict=True):
                if value is not None:
                    text = self._known[text_hash] = text_of(value)
                    self._cache.put(self._merge.view, text_hash, text)
        self._asked = []

    def resolve(self) -> None:
        """Give texts for hashes; a row that lacks one becomes damaged."""
        for place in range(len(self._merge.statuses)):
            if all(self._recall(one) for one in self._hashes(place)):
                for feature in self.features:
                    column = self._merge.values[feature]
                    column[place] = self._texts(column[place])
            else:
                self._merge.damage(place)

    def _texts(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._texts(each) for each in value]
        return self._known[value] if isinstance(value, int) else value

    def _recall(self, text_hash: int) -> bool:
        """Whether a text is known by now."""
        if text_hash not in self._known:
            text = self._cache.get(self._merge.view, text_hash)
            if text is None:
                return False
            self._known[text_hash] = text
        return True

    def _hashes(self, place: int) -> dict[int, None]:
        """Return the hashes of an entity's strings; what is given instead of an old value is text already."""
        found: dict[int, None] = {}
        for feature in self.features:
            value = self._merge.values[feature][place]
            each = value if isinstance(value, list) else [value]
            found.update((one, None) for one in each if isinstance(one, int))
        return found
