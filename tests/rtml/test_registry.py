"""Loading definitions from a file."""

import os
import sys
from pathlib import Path

import pytest

from rtml.registry import load

TEXT = """
import rtml
from rtml import EventSource, RedisStream

class Ride(rtml.Event):
    at: rtml.Timestamp

rides = EventSource(name="rides", schema=Ride, timestamp="at", stream=RedisStream("rides"))
"""


def test_an_edit_of_the_same_second_and_size_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    file = tmp_path / "features.py"
    for name in ("rides", "trips"):
        file.write_text(TEXT.replace('name="rides"', f'name="{name}"'))
        os.utime(file, (1_700_000_000, 1_700_000_000))
        assert set(load(str(file)).sources) == {name}
