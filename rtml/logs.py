"""How every process of the platform logs: one line an event, as text for people or as JSON for machines.

    configure("json", process="serve")
    logging.getLogger("rtml.serving").warning("Redis is away", extra={"request_id": "7f…", "source": "departures"})

A JSON line has `ts` (RFC 3339), `level`, `logger`, `message`, what `configure` was told of the process, whatever
`extra` carries (`request_id`, `trace_id`, `source`, `flow`, `event_id`, …), and `exception` where there is one. A text
line ends in `[request_id=7f… source=departures]`. Payloads and keys of access never go into a line: log ids, offsets
and the names of fields.
"""

from __future__ import annotations

import logging
import sys
import threading
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

import msgspec

FORMATS = ("text", "json")

# What Python itself puts on a record: all else came with `extra`.
_OWN = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None))) | {"message", "asctime", "taskName"}
_log = logging.getLogger("rtml")


def configure(log_format: str, *, level: int = logging.INFO, **process: str) -> None:
    """Send all that this process logs to its standard error; what was configured before is replaced.

    Args:
        log_format: `text` or `json`.
        level: the least level that is shown.
        process: what every line says of the process, such as `process="stream", source="departures"`.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(process) if log_format == "json" else TextLines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("httpx", "httpcore", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if log_format == "json":
        sys.excepthook = _uncaught
        threading.excepthook = _uncaught_in_thread


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def __init__(self, process: dict[str, str]) -> None:
        """Take what every line says of the process."""
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._process,
            **extras(record),
        }
        if record.exc_info:
            # Where secrets are masked, the text is there already, without them.
            line["exception"] = record.exc_text or self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class TextLines(logging.Formatter):
    """A record as a line for people; a traceback follows on lines of its own."""

    def __init__(self) -> None:
        """Take the house's layout."""
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line, with what `extra` carried at its end."""
        line = super().formatMessage(record)
        shown = " ".join(f"{name}={_inline(value)}" for name, value in extras(record).items())
        return f"{line} [{shown}]" if shown else line


def _inline(value: object) -> str:
    """Return a value so that it stays within its line: an event's id may be anything that a stranger sent."""
    text = str(value)
    return text if text.isprintable() else repr(text)


def extras(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a record's `extra` carried."""
    return {name: value for name, value in vars(record).items() if name not in _OWN and value is not None}


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Log the error that ends the process, as one line like any other."""
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    _log.critical("%s: %s", kind.__name__, error, exc_info=(kind, error, trace))


def _uncaught_in_thread(hook: threading.ExceptHookArgs) -> None:
    """Log the error that ends a thread."""
    if hook.exc_value is not None:
        name = hook.thread.name if hook.thread else "a thread"
        exc_info = (hook.exc_type, hook.exc_value, hook.exc_traceback)
        _log.critical("thread %s: %s: %s", name, hook.exc_type.__name__, hook.exc_value, exc_info=exc_info)
