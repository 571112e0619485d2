"""A finding: what is wrong, the numbers that show it, why it matters, what to do, and where more is said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from rtml_assets.watch.catalog import CATALOG

Severity = Literal["critical", "warning"]
Evidence = str | int | float | bool | list[str] | None


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong."""

    name: str
    """A name of `ADVICE`."""
    target: str
    """`platform`, `source:departures`, `view:origin_departures`, `service:eta`."""
    severity: Severity
    what: str
    evidence: dict[str, Evidence]
    why: str
    todo: str
    """What to do, with the command where there is one."""
    runbook: str


@dataclass(frozen=True)
class Advice:
    """What is always the same about a finding of one name; `{target}` stands for the target's own name."""

    severity: Severity
    why: str
    todo: str
    alert: str
    """The alert whose runbook says more."""


ADVICE: dict[str, Advice] = {
    "settings_wrong": Advice(
        "critical", "No process starts with settings that it does not understand.", "rtml settings", "stream_restarts"
    ),
    "definitions_wrong": Advice(
        "critical",
        "Running flows go on as they were; nothing new can be started, deployed or compacted.",
        "Mend the definitions, until `rtml describe` shows them; then `rtml deploy`",
        "stream_restarts",
    ),
    "port_taken": Advice(
        "critical", "The server cannot listen there.", "Stop the other program, or set RTML_PORT", "serving_unavailable"
    ),
    "server_away": Advice("critical", "Models get no features.", "rtml up, or rtml serve", "serving_unavailable"),
    "server_hangs": Advice(
        "critical",
        "Models get no features.",
        "Kill its process: the supervisor starts another; its log is in <home>/logs",
        "serving_unavailable",
    ),
    "server_unready": Advice("critical", "Some services cannot be answered.", "rtml diff", "serving_unavailable"),
    "process_dies": Advice(
        "warning",
        "What dies again and again does not do its work in between.",
        "Read the end of its log in <home>/logs",
        "stream_restarts",
    ),
    "redis_away": Advice(
        "critical",
        "Nothing is streamed or served; flows wait, and lose nothing.",
        "Start Redis, or set RTML_REDIS_URL; then look again",
        "redis_unavailable",
    ),
    "redis_old": Advice(
        "critical", "Scripts and commands of the platform need Redis 6.2.", "Upgrade Redis", "redis_unavailable"
    ),
    "redis_evicts": Advice(
        "critical",
        "Features would vanish one by one, and be served as if there had been no events. Flows refuse to start.",
        "redis-cli CONFIG SET maxmemory-policy noeviction, and in its configuration file",
        "redis_memory",
    ),
    "redis_full": Advice(
        "critical",
        "A full Redis takes no writes: the stream stops until there is room.",
        "Raise maxmemory, or shorten ttl and windows; `redis-cli --memkeys` shows what is large",
        "redis_memory",
    ),
    "redis_cannot_save": Advice(
        "critical",
        "Redis refuses writes while it cannot save, and what it holds would not survive a restart.",
        "Free its disk, and read its log; then redis-cli BGSAVE",
        "redis_memory",
    ),
    "redis_forgets": Advice(
        "warning",
        "After a restart of Redis the stream's entries that the lake does not have yet would be gone.",
        "redis-cli CONFIG SET appendonly yes, and in its configuration file",
        "redis_unavailable",
    ),
    "replica_away": Advice(
        "critical",
        "Servers that read it answer nothing.",
        "Start it; or unset RTML_REDIS_READ_URL, and restart the servers",
        "redis_unavailable",
    ),
    "replica_apart": Advice(
        "critical",
        "Features that are read from it grow old, and are served as stale.",
        "redis-cli REPLICAOF, on the replica, with the host and port of its primary; INFO replication shows how it is",
        "redis_unavailable",
    ),
    "stamps_accepted": Advice(
        "warning",
        "Whoever may append events may say when they arrived, and so make late ones count as on time.",
        "Outside replays and demos: unset RTML_ACCEPT_STAMPS, and restart",
        "clock_skew",
    ),
    "clock_skew": Advice(
        "warning",
        "Ingestion times and freshness are measured by different clocks; events may be refused as of the future.",
        "Run a time service (chrony) on all machines",
        "clock_skew",
    ),
    "flow_never_ran": Advice(
        "critical", "Nothing of this source is computed.", "rtml up, or rtml stream {target}", "stream_stalled"
    ),
    "flow_silent": Advice(
        "critical",
        "The flow is dead, or hangs: features grow old (tiles), or the lake does (mirror).",
        "rtml up, or rtml stream {target}; its log is in <home>/logs",
        "stream_stalled",
    ),
    "position_stuck": Advice(
        "critical",
        "Entries wait, and the flow does not move on.",
        "Read the end of the flow's log; kill its process: the supervisor starts another, and nothing is lost",
        "stream_stalled",
    ),
    "partition_never_written": Advice(
        "critical",
        "The watermark is the least of all partitions: a partition at −∞ keeps tiles from being sealed and late events "
        "from being published.",
        "Send to it, or `Producer.tick()`; if it is not wanted, define fewer partitions",
        "stream_stalled",
    ),
    "source_never_written": Advice(
        "warning", "Its features are empty.", "Send events: see docs/writing-features.md", "freshness"
    ),
    "contract_held": Advice(
        "critical",
        "The flows go on as they were, by the contract in force; what you changed is not in effect.",
        "rtml contracts check {target}; mend the definitions, then `rtml deploy`",
        "check_failed",
    ),
    "contract_behind": Advice(
        "warning",
        "Events of the new kind would lose columns, or be quarantined, where the old contract still runs.",
        "rtml deploy",
        "check_failed",
    ),
    "lake_unwritable": Advice(
        "critical",
        "Events are not mirrored, and the stream is not trimmed: it grows in Redis.",
        "Check the lake's permissions, credentials and space",
        "lake_unwritable",
    ),
    "disk_full": Advice(
        "critical",
        "A full disk stops the mirror, Redis' own files and Dagster.",
        "Free space: old logs in <home>/logs, `deltalake` vacuum of the lake's tables",
        "disk_full",
    ),
    "quarantine_grows": Advice(
        "warning",
        "Events are refused at this moment: features lack them.",
        "rtml quarantine list {target}; after a fix they can be replayed",
        "refused",
    ),
    "not_compacted": Advice(
        "warning",
        "Late events are not served, and training sets lack what came since.",
        "Look at the job compact_{target} in Dagster's UI; the schedule runs it hourly",
        "run_failed",
    ),
    "service_not_served": Advice(
        "warning",
        "A service is defined, or changed, and models do not get it.",
        "rtml diff {target}; then rtml promote {target}",
        "serving_unavailable",
    ),
    "version_not_ready": Advice(
        "critical",
        "A service reads a version that is not complete: requests for it get errors.",
        "rtml backfill {target}",
        "serving_unavailable",
    ),
    "version_lost": Advice(
        "warning",
        "It was not written for a while, and is built anew by the next compaction.",
        "rtml backfill {target}",
        "serving_unavailable",
    ),
    "unreadable": Advice(
        "critical",
        "Redis holds what this release of rtml cannot read: another release wrote it.",
        "Run the same release everywhere; or rebuild: rtml backfill VIEW --rebuild",
        "serving_unavailable",
    ),
    "dagster_down": Advice(
        "critical",
        "No schedule, sensor or backfill runs.",
        "rtml up; where it runs, kill the process of the daemon: another is started. Its log is in <home>/logs",
        "dagster_down",
    ),
    "dagster_away": Advice(
        "warning",
        "Without Dagster nothing is compacted: late events are not served.",
        "rtml up",
        "dagster_down",
    ),
    "schedule_stopped": Advice(
        "warning",
        "Somebody stopped it: what it does no longer happens.",
        "Switch it on in Dagster's UI, under Automation",
        "dagster_down",
    ),
}
"""Every finding that there can be."""


def found(
    name: str, what: str, target: str = "platform", severity: Severity | None = None, **evidence: Evidence
) -> Finding:
    """Return a finding with the advice of its name."""
    advice = ADVICE[name]
    todo = advice.todo.replace("{target}", target.partition(":")[2])
    runbook = CATALOG[advice.alert].runbook
    return Finding(name, target, severity or advice.severity, what, evidence, advice.why, todo, runbook)
