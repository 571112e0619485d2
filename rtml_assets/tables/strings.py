"""The strings of published events, written ahead of what refers to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from rtml.online import keys
from rtml.online.texts import KEEP, kept
from rtml.plan import Plan

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline


class EntityStrings(NamedTuple):
    """The strings of some events of one entity: by hash the number of the newest coarsest tile, and texts."""

    seen: Mapping[int, int]
    texts: Mapping[int, bytes]

    @staticmethod
    def of(rows: Iterable[tuple[int, tuple[int, ...]]], texts: Mapping[int, bytes]) -> EntityStrings:
        """Return them from pairs of a coarsest tile's number and the hashes of an event in it."""
        seen: dict[int, int] = {}
        for number, hashes in rows:
            for one in hashes:
                seen[one] = max(number, seen.get(one, number))
        return EntityStrings(seen, texts)


class StringsWriter:
    """Writes strings of a version's entities by pipelines."""

    def __init__(self, client: Redis, plan: Plan) -> None:
        """Take where they go."""
        self._script = client.register_script(KEEP)
        self._plan = plan

    def write(self, pipeline: Pipeline, key: str, strings: EntityStrings) -> None:
        """Add to a pipeline what writes strings, ahead of what refers to them."""
        if strings.seen:
            self._script([keys.texts(key)], kept(self._plan, strings.seen, strings.texts), pipeline)
