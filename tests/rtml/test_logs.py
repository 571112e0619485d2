"""What processes log: one line an event, for people or machines."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from rtml.errors import SettingsError
from rtml.logs import TextLines
from rtml.settings import Settings

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import logging, threading
from rtml import logs
logs.configure({format!r}, process="stream", source="departures")
log = logging.getLogger("rtml.test")
log.info("said %s", "to\\nall", extra={{"request_id": "7f", "trace_id": None, "offsets": ["1-0"], "path": object}})
log.debug("not shown")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
thread = threading.Thread(target=lambda: [][0], name="worker")
thread.start(); thread.join()
raise ValueError("the end")
"""


def said(log_format: str) -> str:
    program = PROGRAM.format(format=log_format)
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (1, "")
    return run.stderr


def test_as_json_every_line_is_an_object_also_of_what_nobody_caught():
    lines = [json.loads(line) for line in said("json").splitlines()]
    common = {"process": "stream", "source": "departures"}
    first, failed, thread, end = lines
    assert first.pop("ts").endswith("+00:00")
    told = {"request_id": "7f", "offsets": ["1-0"], "path": "<class 'object'>"}
    assert first == {"level": "info", "logger": "rtml.test", "message": "said to\nall", **common, **told}
    assert (failed["level"], failed["message"]) == ("error", "failed")
    assert failed["exception"].startswith("Traceback (most recent call last):\n")
    assert "ZeroDivisionError" in failed["exception"]
    assert (thread["level"], thread["message"]) == ("critical", "thread worker: IndexError: list index out of range")
    assert (end["level"], end["message"]) == ("critical", "ValueError: the end")
    assert all(line["process"] == "stream" for line in lines)


def test_as_text_what_a_line_carries_is_at_its_end():
    lines = said("text").splitlines()
    assert lines[0].endswith("INFO rtml.test: said to")
    assert lines[1] == "all [request_id=7f offsets=['1-0'] path=<class 'object'>]"
    assert any(line.endswith("ERROR rtml.test: failed") for line in lines)
    assert lines[-1] == "ValueError: the end"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"log_format": "jsn"},
            r"log_format \(RTML_LOG_FORMAT\) must be 'text' or 'json'; got 'jsn'\. Did you mean 'json'",
        ),
        ({"otel_ratio": 1.5}, r"otel_ratio \(RTML_OTEL_RATIO\) must lie between 0 and 1; got 1\.5"),
    ],
)
def test_settings_of_logs_and_traces_are_checked(given, words):
    with pytest.raises(SettingsError, match=words):
        Settings(**given)


def test_a_stranger_cannot_forge_a_line():
    """An event's id is whatever was sent; in a text log it stays within its line."""
    record = logging.LogRecord("rtml.stream", logging.WARNING, "", 0, "refused", (), None)
    record.event_id = "e1\n2026-01-01 INFO all is well"
    assert TextLines().format(record).endswith("refused [event_id='e1\\n2026-01-01 INFO all is well']")


def test_configuring_again_replaces_what_was(capsys):
    from rtml import logs

    before = logging.root.handlers[:], logging.root.level
    try:
        logs.configure("text")
        logs.configure("text", level=logging.WARNING)
        logging.getLogger("rtml.test").info("not shown")
        logging.getLogger("rtml.test").warning("once")
        assert capsys.readouterr().err.count("once") == 1
    finally:
        logging.root.handlers[:], level = before
        logging.root.setLevel(level)
