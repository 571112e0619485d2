"""The key grammar of design §6. All keys of an entity share one hash tag, so that they live on one node.

Where a view has salts, that is said of each of an entity's partial states.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from urllib.parse import quote

GENERATION = "rtml:generation"
SERVICES = "rtml:services"
FORMER_SERVICES = "rtml:former_services"
VIEWS = "rtml:views"
"""The set of views of which something was published: so what is defined no longer is found and removed."""
DEPLOYED = "rtml:deployed"
"""A counter of deployments: processes that find it raised load the definitions anew."""
KEYS = "rtml:keys"
"""The hash of API keys, by their ids. No other key may begin with `rtml:k`: the stream's Redis user may write all but
those (ops/redis/users.acl)."""
WATCH, WATCH_HISTORY, WATCH_CHECKS = "rtml:watch", "rtml:watch:history", "rtml:watch:checks"
"""The watch's last look (JSON), a point of each of the last ones, and what Dagster's asset checks came to."""
KEPT, HELD = "kept", "held"
"""Fields of what a source's flows run by (`contract`); the others are named after flows."""
LONGEST_PART = 64
SHARDS = 64
"""A fixed number: the count of workers may change, an entity's shard may not (I9)."""

PROBES: dict[str, str | int | bool] = {"str": "~rtml-probe~", "int": -(2**62), "bool": False}
"""By type: the join key of the entity that the watch asks for, and that nobody else has."""

_PLAIN = re.compile(r"[A-Za-z0-9_.~-]{1,64}")


@lru_cache(maxsize=200_000)
def escape(value: str) -> str:
    """Return a key's part: percent-escaped, and hashed when that is longer than 64 bytes."""
    if _PLAIN.fullmatch(value):
        return value
    escaped = quote(value, safe="")
    if len(escaped) <= LONGEST_PART:
        return escaped
    return "#" + blake2b(value.encode(), digest_size=16).hexdigest()


def key_part(value: str | int | bool) -> str:
    """Return one join key's value as a key's part."""
    if isinstance(value, str):
        return escape(value)
    return str(value).lower()


def entity_tag(entity: str, values: Sequence[str | int | bool]) -> str:
    """Return `rtml:{entity|k1|k2}`, with which all keys of an entity begin."""
    return f"rtml:{{{escape(entity)}|{'|'.join([key_part(value) for value in values])}}}"


def salted(tag: str, salt: int) -> str:
    """Return the tag of one of an entity's partial states, `rtml:{entity|k1|+2}`.

    It is no entity's own: in the parts of those a plus sign is escaped.
    """
    return f"{tag[:-1]}|+{salt}}}"


def parted(tag: str) -> tuple[str, int]:
    """Return the tag of the entity that a tag is about, and the salt: 0 where it is the entity's own."""
    if "|+" not in tag:
        return tag, 0
    head, _, salt = tag.rpartition("|+")
    return head + "}", int(salt[:-1])


def is_probe(tag: str) -> bool:
    """Whether an entity's tag is the watch's own; one of nothing but booleans cannot be told."""
    return any(part in (str(PROBES["str"]), str(PROBES["int"])) for part in tag.rstrip("}").split("|")[1:])


def versioned(view: str, version: str) -> str:
    """Return what follows the entity's tag in the key of its hash."""
    return f":{view}@{version}"


def raw(entity_key: str, index: int) -> str:
    """Return the key of the raw records of one hot finest tile."""
    return f"{entity_key}:r{index}"


def texts(entity_key: str) -> str:
    """Return the key of the hash of the strings that an entity's events have."""
    return f"{entity_key}:s"


def meta(view: str, version: str) -> str:
    """Return the key of a version's meta."""
    return f"rtml:meta:{view}@{version}"


def versions(view: str) -> str:
    """Return the key of the set of a view's versions."""
    return f"rtml:versions:{view}"


def live(view: str) -> str:
    """Return the key of the hash that names, for each fingerprint of a view, the version that is served."""
    return f"rtml:live:{view}"


def rewind_from(source: str) -> str:
    """Return the key of the instant that a rewind goes back to; without one, to the stream's beginning."""
    return f"rtml:rewind_from:{source}"


def position(source: str) -> str:
    """Return the key of the tiles flow's positions."""
    return f"rtml:position:{source}"


def mirrored(source: str) -> str:
    """Return the key of the mirror flow's positions."""
    return f"rtml:mirrored:{source}"


def replay_time(source: str) -> str:
    """Return the key that says that a source runs on carried stamps."""
    return f"rtml:replay:{source}"


def dead(source: str) -> str:
    """Return the key of the capped list of refused events."""
    return f"rtml:dead:{source}"


def figures(source: str, flow: str) -> str:
    """Return the key of a flow's own figures."""
    return f"rtml:figures:{source}:{flow}"


def figure_parts(source: str, flow: str) -> str:
    """Return the key of the hash of what each process of a flow contributes to its figures."""
    return f"rtml:parts:{source}:{flow}"


def heartbeat(source: str, flow: str) -> str:
    """Return the key of the hash of the newest heartbeat that a flow has passed on, by partition."""
    return f"rtml:heartbeat:{source}:{flow}"


def passed(source: str, flow: str) -> str:
    """Return the key of the hash of the newest heartbeat that each process of a flow has passed, by partition."""
    return f"rtml:passed:{source}:{flow}"


def trimmed(source: str) -> str:
    """Return the key that says that a source's stream no longer holds its beginning."""
    return f"rtml:trimmed:{source}"


def landed(source: str) -> str:
    """Return the key that says up to when history was landed in the lake without going through the stream."""
    return f"rtml:landed:{source}"


def contract(source: str) -> str:
    """Return the key of the hash of what a source's flows run by.

    `kept`: all of it, as JSON. `held`: why it is not what is defined, empty when it is. By flow: the contract's hash.
    """
    return f"rtml:contract:{source}"


def contract_lock(source: str) -> str:
    """Return the key of the lock that whoever registers a source's contract holds."""
    return f"rtml:contract_lock:{source}"


def rewinding(source: str) -> str:
    """Return the key of the set of partitions that the tiles flow must read again from the stream's beginning."""
    return f"rtml:rewinding:{source}"


def late_entities(view: str, version: str) -> str:
    """Return the key of the set of entities whose hash has a `late` field."""
    return f"rtml:late:{view}@{version}"


def written(source: str) -> str:
    """Return the key of the set of versions that a source's tiles flow writes, as `view@version`."""
    return f"rtml:written:{source}"


def publishing(view: str) -> str:
    """Return the key of the lock that the one publisher of a view holds."""
    return f"rtml:publishing:{view}"


def scratch(view: str) -> str:
    """Return the key of the hash of a view's scratch versions, with when each was begun: replays to be compared."""
    return f"rtml:scratch:{view}"
