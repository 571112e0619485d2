"""Where a source's events arrive."""

from __future__ import annotations

from dataclasses import dataclass

from rtml.errors import DefinitionError


@dataclass(frozen=True)
class RedisStream:
    """A Redis stream of `partitions` keys: `name`, `name:1`, …; each entry's field `data` is one JSON object."""

    name: str
    partitions: int = 1

    def __post_init__(self) -> None:
        """Refuse what cannot be a stream."""
        if not self.name or not isinstance(self.name, str):
            raise DefinitionError.at("RedisStream", "name", "a key", self.name)
        if not isinstance(self.partitions, int) or not 1 <= self.partitions <= 1024:
            raise DefinitionError.at(f"RedisStream {self.name!r}", "partitions", "between 1 and 1024", self.partitions)

    def key(self, partition: int) -> str:
        """Return the Redis key of a partition."""
        return f"{self.name}:{partition}" if partition else self.name
