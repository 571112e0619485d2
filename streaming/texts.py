"""The strings that a view returns, on their way to Redis: written ahead of the tiles that refer to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from rtml.instants import Instant
from rtml.online import keys
from rtml.online.commands import Command
from rtml.online.texts import kept, out_of_reach
from rtml.plan import Plan
from rtml.texts import text_column
from streaming.link import Link

REMEMBERED = 200_000
"""How many strings of a view's entities a process knows to be written."""


@dataclass
class BatchTexts:
    """The strings of one view's events: by row the hashes of its own, and the text of each hash."""

    rows: list[tuple[int, ...]] = field(default_factory=list)
    texts: dict[int, bytes] = field(default_factory=dict)
    conflicting: int = 0
    """How many strings have the hash of another one of the batch: the first one is kept."""

    @classmethod
    def of(cls, plan: Plan, events: pl.DataFrame) -> BatchTexts:
        """Take them from events as `project` gives them."""
        found = cls()
        columns = []
        for name in plan.texts:
            hashes = events[name].to_list()
            columns.append(hashes)
            for text_hash, text in zip(hashes, events[text_column(name)].to_list(), strict=True):
                if text_hash is not None:
                    found._take(text_hash, text.encode())
        found.rows = [tuple(one for one in row if one is not None) for row in zip(*columns, strict=True)]
        return found

    def at(self, rows: Sequence[int]) -> BatchTexts:
        """Return those of some rows; what is counted goes with the first row of all."""
        if not self.rows:
            return BatchTexts()
        chosen = [self.rows[row] for row in rows]
        texts = {one: self.texts[one] for hashes in chosen for one in hashes}
        return BatchTexts(chosen, texts, self.conflicting if 0 in rows else 0)

    def _take(self, text_hash: int, text: bytes) -> None:
        self.conflicting += self.texts.setdefault(text_hash, text) != text


class TextWriter:
    """Writes the strings of one version's entities."""

    def __init__(self, link: Link, plan: Plan) -> None:
        """Begin with nothing known to be written."""
        self._link = link
        self._plan = plan
        self._known: dict[str, dict[int, int]] = {}
        """By entity's key and hash: the number of the coarsest tile that Redis has it in."""
        self._size = 0
        self._texts: dict[int, bytes] = {}

    def conflicts(self, strings: BatchTexts) -> int:
        """Return how many strings have the hash of another one, of those that are remembered."""
        if len(self._texts) > REMEMBERED:
            self._texts.clear()
        others = sum(self._texts.setdefault(one, text) != text for one, text in strings.texts.items())
        return strings.conflicting + others

    def keep(self, key: str, seen: Mapping[int, int], texts: Mapping[int, bytes]) -> list[Command]:
        """Return what writes strings ahead of the tiles that refer to them; what is written already is left out.

        It may be written and the tiles not: then it waits for those, or goes like all that is out of reach.
        """
        if not seen:
            return []
        known = self._known.setdefault(key, {})
        fresh = {one: number for one, number in seen.items() if known.get(one, -1) < number}
        if not fresh:
            return []
        self._size += sum(one not in known for one in fresh)
        known.update(fresh)
        if self._size > REMEMBERED:
            self._known, self._size = {key: known}, len(known)
        return [self._link.keep_texts(keys.texts(key), kept(self._plan, fresh, texts))]

    def drop(self, key: str, was: Instant, fence: Instant, *, renewed: bool) -> list[Command]:
        """Return what follows an entity's write.

        Strings out of reach go, where the fence enters another coarsest tile; where the entity is `renewed`, they live
        as long as it does.
        """
        if not self._plan.texts:
            return []
        name, commands = keys.texts(key), list[Command]()
        turned = was >= 0 and was // self._plan.tiles.coarsest != fence // self._plan.tiles.coarsest
        if turned and (first := out_of_reach(self._plan, fence)):
            commands.append(self._link.drop_texts(name, self._forget(key, first)))
        if renewed:
            commands.append(("PEXPIRE", name, self._plan.expire_after // 1_000))
        return commands

    def _forget(self, key: str, first: int) -> int:
        known = self._known.get(key, {})
        for text_hash in [one for one, number in known.items() if number < first]:
            del known[text_hash]
            self._size -= 1
        if not known:
            self._known.pop(key, None)
        return first
