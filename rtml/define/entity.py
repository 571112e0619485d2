"""What a feature is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rtml.define.naming import check_name, check_owners
from rtml.errors import DefinitionError


@dataclass(frozen=True)
class Entity:
    """A thing that features describe, told apart by its join keys (non-null strings, integers or booleans)."""

    name: str
    join_keys: Sequence[str] = ()
    description: str = ""
    owners: Sequence[str] = ()

    def __post_init__(self) -> None:
        """Validate, and freeze the keys; the default is one key of the entity's own name."""
        where = check_name("entity", self.name)
        if isinstance(self.join_keys, str):
            raise DefinitionError.at(where, "join_keys", "a list of column names", self.join_keys)
        keys = tuple(self.join_keys) or (self.name,)
        if len(set(keys)) != len(keys) or not all(isinstance(key, str) and key for key in keys):
            raise DefinitionError.at(where, "join_keys", "different column names", list(keys))
        check_owners(where, self.owners)
        object.__setattr__(self, "join_keys", keys)
