"""The replica that servers read features from, if there is one: whether it is there, and follows its primary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import redis

from rtml_assets.doctor.finding import Finding, found
from rtml_assets.doctor.subject import Subject
from streaming.broker import connect

SECONDS = 2.0
FAR_BEHIND_BYTES = 16 * 1024 * 1024
"""So much of what its primary wrote a replica may lack."""


def examine(subject: Subject) -> list[Finding]:
    """Look, and judge."""
    settings = subject.settings
    if not settings.redis_read_url:
        return []
    where = settings.reading.redis_shown
    with connect(settings.reading, timeout=SECONDS) as client:
        try:
            known: dict[str, Any] = client.info("replication")
        except redis.RedisError as error:
            return [found("replica_away", f"the replica at {where} does not answer: {error}")]
    return list(judge(where, known, subject.client.info("replication")))


def judge(where: str, replica: Mapping[str, Any], primary: Mapping[str, Any]) -> Iterator[Finding]:
    """Return what is wrong with it, by what both say of replication."""
    role, link = str(replica.get("role", "")), str(replica.get("master_link_status", ""))
    lacks = int(primary.get("master_repl_offset", 0)) - int(replica.get("slave_repl_offset", 0))
    if replica.get("master_replid") == primary.get("master_replid") and role == "master":
        return  # it is the primary itself, under another name
    if role != "slave" or replica.get("master_replid") != primary.get("master_replid"):
        yield found("replica_apart", f"the Redis at {where} does not follow that of redis_url", role=role)
    elif link != "up":
        down = int(replica.get("master_link_down_since_seconds", 0))
        yield found("replica_apart", f"the replica at {where} has lost its primary", link=link, down_seconds=down)
    elif lacks > FAR_BEHIND_BYTES:
        words = f"the replica at {where} lacks {lacks:,} bytes of what its primary wrote"
        yield found("replica_apart", words, lacks_bytes=lacks, severity="warning")
