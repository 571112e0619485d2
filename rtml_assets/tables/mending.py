"""Quarantined events → decisions: corrected by a function, dropped, released through the gate, or accepted as they are.

Nothing here counts before its one commit; a mend that is killed has not happened, and one that is repeated finds its
events decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

import polars as pl

from quality.contracts import check_contract
from rtml.algebra.family import EVENT_TIME, ID64
from rtml.define.source import EventSource
from rtml.errors import RequestError, near_miss
from rtml.instants import Instant
from rtml.lake import EVENT_DATE, INGEST_DATE, Lake, signed, unsigned
from rtml.projection import INGESTED_AT
from rtml_assets.tables.decisions import CHECK, decide, subject_of_event, with_revision
from rtml_assets.tables.quarantine import CONTRACT, HELD, STATE, held, payloads, refused
from streaming.entries import Entries
from streaming.gate import Gate, id64
from streaming.mended import ACCEPTED, CORRECTED, DROPPED, RELEASED, decode_events, scan_mirrored

Fix = Callable[[pl.DataFrame], pl.DataFrame]
"""A frame of events that do not pass → the same, mended; what it does not return is left out."""

DROP: Fix = lambda events: events.clear()  # noqa: E731 - a fix like any other
_IDENTITY = [EVENT_TIME, ID64, INGESTED_AT]


@dataclass(frozen=True)
class Decider:
    """Who decides, when, and why."""

    at: Instant
    actor: str
    words: str


@dataclass(frozen=True)
class Mend:
    """What was decided: how many events are corrected, dropped or released, and of which days."""

    corrected: int = 0
    dropped: int = 0
    released: int = 0
    days: tuple[date, ...] = ()
    still: tuple[tuple[str, int, str], ...] = ()
    """Of those that the gate refuses again: the reason, how many, and the words for one of them."""
    elsewhere: int = 0
    """Events that somebody else decided on meanwhile."""


def correct(lake: Lake, source: EventSource, check: str, day: date | None, fix: Fix, decider: Decider) -> Mend:
    """Decide on all events that a check holds, of one day or of all: what the fix returns counts instead of them.

    An event keeps its time and its id; one that the fix leaves out is dropped, and all its copies with it.

    Raises:
        RequestError: nothing is held so, or the fix returns what are not those events.
    """
    rows = _held(lake, source, check, day)
    first = rows.sort(INGESTED_AT).unique([EVENT_TIME, ID64], keep="first", maintain_order=True).sort(_IDENTITY)
    events = decode_events(source, first, "quarantine").with_columns(unsigned(ID64))
    fixed = _fixed(source, events.drop(EVENT_DATE), fix)
    stored = fixed.with_columns(signed(ID64)).rename({source.timestamp: EVENT_TIME})
    kept = first.drop("payload").join(stored.select(EVENT_TIME, ID64, "payload"), on=[EVENT_TIME, ID64], how="inner")
    gone = first.join(kept, on=[EVENT_TIME, ID64], how="anti")
    copies = _copies(lake, source, gone)
    columns = [*_IDENTITY, EVENT_DATE, "revision"]
    named = [kept.select(*columns, "payload", kind=pl.lit(CORRECTED))]
    named += [
        part.select(*columns, payload=pl.lit(None, pl.Binary), kind=pl.lit(DROPPED))
        for part in (gone, copies.join(gone, on=_IDENTITY, how="anti"))
    ]
    decisions = pl.concat(named).with_columns(pl.col("revision") + 1, reason=pl.lit(CHECK + check))
    decisions = decisions.with_columns(subject_of_event().alias("subject"))
    done = decide(lake, source, decisions, at=decider.at, actor=decider.actor, words=decider.words)
    return Mend(kept.height, gone.height, 0, _days(decisions), elsewhere=decisions.height - done)


def release(
    lake: Lake, source: EventSource, reason: str | None, since: Instant | None, fix: Fix | None, decider: Decider
) -> Mend:
    """Hold what the gate refused against the contract as it is now, mended or as it was, and let count what passes.

    A released event counts as if the gate had let it pass when it came: with its place in the stream and the stamp that
    it had then. The others stay where they are.

    Raises:
        RequestError: nothing was refused so, or the fix returns what are not those events.
    """
    rows = _refused(lake, source, reason, since)
    tried = rows if fix is None else _refixed(source, rows, fix)
    good, still = _gated(source, tried)
    decisions = good.with_columns(kind=pl.lit(RELEASED), revision=pl.lit(0, pl.Int32))
    done = decide(lake, source, decisions, at=decider.at, actor=decider.actor, words=decider.words) if len(good) else 0
    return Mend(0, 0, good.height, _days(good), still, good.height - done)


def accept(lake: Lake, source: EventSource, check: str, day: date, decider: Decider) -> int:
    """Let a day be built although a check fails, and return how many events were held.

    Raises:
        RequestError: the check holds nothing of that day, or is the contract.
    """
    rows = _held(lake, source, check, day)
    if check == CONTRACT:
        words = "no day is built that breaks the contract: replay its events with --fix or --drop, or mend the contract"
        raise RequestError(f"source {source.name!r}: {words}")
    decision = pl.DataFrame(
        {"kind": [ACCEPTED], "subject": [f"{check}:{day}"], "reason": [CHECK + check], EVENT_DATE: [day]}
    )
    decide(lake, source, decision, at=decider.at, actor=decider.actor, words=decider.words)
    return rows.height


def _held(lake: Lake, source: EventSource, check: str, day: date | None) -> pl.DataFrame:
    rows = held(lake, source).filter(pl.col(STATE) == HELD)
    of_check = rows.filter(pl.col("reason") == CHECK + check)
    if of_check.is_empty():
        known = [reason.removeprefix(CHECK) for reason in rows["reason"].unique()]
        raise RequestError(f"source {source.name!r}: check {check!r} holds no events.{near_miss(check, known)}")
    found = of_check if day is None else of_check.filter(pl.col(EVENT_DATE) == day)
    if found.is_empty():
        days = of_check[EVENT_DATE].unique().sort().to_list()
        listed = ", ".join(str(known) for known in days[:5]) + (", …" if len(days) > 5 else "")
        raise RequestError(f"source {source.name!r}: check {check!r} holds no events of {day}, but of {listed}")
    return found


def _copies(lake: Lake, source: EventSource, gone: pl.DataFrame) -> pl.DataFrame:
    """Return all rows of the mirror that are the same events: one that is dropped must not count by a later copy."""
    rows = scan_mirrored(lake, source, gone[EVENT_DATE].unique().to_list())
    same = rows.select(pl.col(source.timestamp).alias(EVENT_TIME), ID64, INGESTED_AT, EVENT_DATE)
    found = same.join(gone.select(EVENT_TIME, ID64).lazy(), on=[EVENT_TIME, ID64], how="semi").unique().collect()
    return with_revision(lake, source, found)


def _fixed(source: EventSource, events: pl.DataFrame, fix: Fix) -> pl.DataFrame:
    """Return what a fix makes of events: their time, `id64` and `payload`.

    Raises:
        RequestError: those are not the events that it was given, or break the contract.
    """
    where = f"fix of source {source.name!r}"
    fixed = _returned(where, fix(events.clone()), {**source.frame_schema, ID64: pl.UInt64()})
    identity = [source.timestamp, ID64]
    if (twice := fixed.height - fixed.select(identity).n_unique()) > 0:
        raise RequestError(f"{where}: each event may be returned once; got {twice:,} twice")
    if (foreign := fixed.join(events, on=identity, how="anti")).height:
        raise RequestError(
            f"{where}: {source.timestamp!r} and {ID64!r} must stay as they are; got {foreign.height:,} others, such as "
            f"{foreign.row(0, named=True)}. An event of another time is a new one: drop this one, and land that"
        )
    if source.event_id is not None:
        ids = [id64(str(value)) for value in fixed[source.event_id]]
        if (renamed := fixed.filter(pl.Series(ids, dtype=pl.UInt64) != pl.col(ID64))).height:
            got = f"{renamed.height:,} others, such as {renamed[source.event_id][0]!r}"
            raise RequestError(f"{where}: {source.event_id!r} must stay as it is; got {got}")
    verdict = check_contract(source, fixed)
    if not verdict.passed:
        raise RequestError(f"{where}: rows break the contract\n{verdict}")
    return fixed.select(*identity, payloads(source, fixed))


def _returned(where: str, got: object, expected: dict[str, pl.DataType]) -> pl.DataFrame:
    if not isinstance(got, pl.DataFrame):
        raise RequestError(f"{where}: it must return a polars.DataFrame; got {type(got).__name__}")
    for name, dtype in expected.items():
        if name not in got.columns:
            raise RequestError(f"{where}: it returns no column {name!r}.{near_miss(name, got.columns)}")
        if got.schema[name] != dtype:
            raise RequestError(f"{where}: column {name!r} must be {dtype}; got {got.schema[name]}")
    return got


def _refused(lake: Lake, source: EventSource, reason: str | None, since: Instant | None) -> pl.DataFrame:
    rows = refused(lake, source).filter(pl.col(STATE) == HELD)
    known = rows["reason"].unique().to_list()
    if reason is not None:
        rows = rows.filter(pl.col("reason") == reason)
    if rows.is_empty():
        what = f"refused as {reason!r}" if reason else "refused"
        raise RequestError(
            f"source {source.name!r}: no events that were {what} are left.{near_miss(reason or '', known)}"
        )
    if since is not None:
        rows = rows.filter(pl.col(INGESTED_AT).dt.epoch("us") >= since)
    if rows.is_empty():
        raise RequestError(f"source {source.name!r}: none of those events came since then")
    return rows


_PLACE = ["partition", "offset"]


def _refixed(source: EventSource, rows: pl.DataFrame, fix: Fix) -> pl.DataFrame:
    """Return those refused events that a fix returns, with its payloads."""
    where = f"fix of source {source.name!r}"
    given = rows.select(*_PLACE, INGESTED_AT, "reason", "detail", "payload")
    got = fix(given.clone())
    if isinstance(got, pl.DataFrame) and got.schema.get("payload") == pl.String:
        got = got.with_columns(pl.col("payload").cast(pl.Binary))
    fixed = _returned(where, got, {name: given.schema[name] for name in (*_PLACE, "payload")})
    if fixed.select(_PLACE).is_duplicated().any() or fixed.join(rows, on=_PLACE, how="anti").height:
        raise RequestError(f"{where}: it must return rows that it was given, each at most once")
    return rows.drop("payload").join(fixed.select(*_PLACE, "payload"), on=_PLACE, how="inner", maintain_order="left")


def _gated(source: EventSource, rows: pl.DataFrame) -> tuple[pl.DataFrame, tuple[tuple[str, int, str], ...]]:
    """Return the rows that pass the gate, with their time, id64 and day, and why the others do not."""
    gate, passed, counts, examples = Gate(source), [], Counter[str](), dict[str, str]()
    for (partition,), part in rows.partition_by("partition", as_dict=True).items():
        stamps = part[INGESTED_AT].dt.epoch("us").to_list()
        entries = Entries(int(str(partition)), part["offset"].to_list(), stamps, stamps, part["payload"].to_list())
        gated = gate(entries)
        why = {one.offset: one.failures for one in gated.refused}
        for failures in why.values():
            counts[failures[0].reason.value] += 1
            examples.setdefault(failures[0].reason.value, failures[0].detail)
        good = part.filter(~pl.col("offset").is_in(list(why)))
        times = gated.good.select(pl.col(source.timestamp).alias(EVENT_TIME), signed(ID64))
        passed.append(good.drop(EVENT_TIME, ID64, EVENT_DATE).hstack(times))
    good = pl.concat(passed) if passed else rows.clear()
    still = tuple((reason, count, examples[reason]) for reason, count in counts.most_common())
    return good.with_columns(pl.col(EVENT_TIME).dt.date().alias(EVENT_DATE)).drop(STATE, "detail", INGEST_DATE), still


def _days(decisions: pl.DataFrame) -> tuple[date, ...]:
    return tuple(decisions[EVENT_DATE].unique().sort().to_list())
