"""What the log says of refused events."""

import logging

import pytest

from rtml.instants import MINUTE
from streaming.decode import Failure, Reason
from streaming.gate import Refused
from streaming.refusals import RefusalLog, event_id
from tests.streaming.test_gate import SOURCE


def refused(number: int, reason: Reason, payload: bytes | None = None) -> Refused:
    said = payload if payload is not None else b'{"id": "e%d", "amount": "secret"}' % number
    return Refused(0, f"{number}-0", 0, said, (Failure(reason, "field 'amount' must be a number; got 'secret'"),))


@pytest.mark.parametrize("level", [logging.WARNING, logging.DEBUG])
def test_the_first_of_a_reason_in_a_minute_is_a_warning(caplog, level):
    now = 0
    log = RefusalLog(SOURCE, lambda: now)
    with caplog.at_level(level, "rtml.stream"):
        log.note([refused(number, Reason.WRONG_TYPE) for number in range(5)] + [refused(5, Reason.FUTURE)])
        now = MINUTE - 1
        log.note([refused(6, Reason.WRONG_TYPE)])
        now = MINUTE
        log.note([refused(7, Reason.WRONG_TYPE)])
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.message for record in warned] == [
        "refused an event: wrong_type",
        "refused an event: future",
        "refused an event: wrong_type; 5 more since the last such line",
    ]
    said = vars(warned[0])
    assert (said["source"], said["partition"], said["offset"]) == (SOURCE.name, 0, "0-0")
    assert (said["event_id"], said["reasons"]) == ("e0", ["wrong_type"])
    assert len(caplog.records) == (8 if level == logging.DEBUG else 3)
    assert not any("secret" in str(vars(record)) for record in caplog.records)


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b'{"event_id": 7}', "7"),
        (b'{"event_id": "' + b"x" * 100 + b'"}', "x" * 64),
        (b'{"event_id": {"a": 1}}', None),
        (b'{"id": 1}', None),
        (b"[1]", None),
        (b"{", None),
        (b"[" * 100_000, None),
        (b"", None),
    ],
)
def test_an_event_s_id_is_read_where_there_is_one(payload, found):
    assert event_id(payload, "event_id") == found
    assert event_id(payload, None) is None
