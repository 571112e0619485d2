"""What becomes of an error in one of several processes, and who owns what."""

from __future__ import annotations

import logging
from typing import NoReturn

import pytest

from rtml.errors import SettingsError
from rtml.online import keys
from rtml.settings import Settings
from rtml.settings_rules import MOST_PROCESSES
from streaming.broker import RestartRequiredError
from streaming.group import CRASHED, RESTART, Leader, ended_by, free_addresses
from streaming.place import Place


class EndedError(Exception):
    """The group would have ended here."""


class Living(Leader):
    """A leader without members, whose end is told instead of met."""

    def end(self, code: int) -> NoReturn:
        raise EndedError(code)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (RestartRequiredError("another took over"), RESTART, "another took over"),
        (ValueError("no such thing"), CRASHED, "process 0 of 1 failed"),
    ],
)
def test_an_error_ends_all_and_is_told(
    error: Exception, code: int, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Bytewax would say no more of it than that a thread has panicked."""

    def fail() -> None:
        raise error

    with caplog.at_level(logging.WARNING), pytest.raises(EndedError, match=str(code)):
        ended_by(Living(1, ()), fail)()
    assert words in caplog.text
    assert str(error) in caplog.text


def test_the_end_of_a_source_is_no_error() -> None:
    with pytest.raises(StopIteration):
        ended_by(Living(1, ()), lambda: next(iter(())))()
    assert ended_by(Living(1, ()), divmod)(7, 2) == (3, 1)


@pytest.mark.parametrize("count", [1, 2, 3, 5, MOST_PROCESSES])
def test_everything_is_somebodys(count: int) -> None:
    places = [Place(process, count) for process in range(count)]
    owned = [shard for place in places for shard in place.shards]
    assert sorted(owned) == list(range(keys.SHARDS))
    assert all(place.process in place.shards for place in places)  # what is sent to a process goes by this name
    assert [sum(place.reads(partition) for place in places) for partition in range(7)] == [1] * 7
    assert places[0].reads(0)  # who leads looks after what only a reader looks after


def test_addresses_are_all_different() -> None:
    assert len(set(free_addresses(8))) == 8


@pytest.mark.parametrize("count", [0, MOST_PROCESSES + 1])
def test_there_are_not_more_processes_than_shards(count: int) -> None:
    assert MOST_PROCESSES == keys.SHARDS
    with pytest.raises(SettingsError, match=f"RTML_STREAM_PROCESSES.*between 1 and 64; got {count}"):
        Settings(stream_processes=count)
