"""Secrets: which settings are, and how what people read is kept free of them."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from logging import LogRecord, getLogRecordFactory, setLogRecordFactory
from types import TracebackType

HIDDEN = "***"
LEAST_LENGTH = 4
"""A shorter secret is not looked for in texts: it would blot out words."""

_ENDS = ("_password", "_secret", "_token", "_webhook")
# A password may have slashes that nobody escaped; what follows a port is none.
_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^:/@\s]*):(?!\d{1,5}(?:[/?#\s'\"]|$))[^\s'\"<>]*@", re.IGNORECASE)
_IN_QUERY = re.compile(r"([?&]password=)[^&\s'\"]*", re.IGNORECASE)
_API_KEY = re.compile(r"\b(rtml_[0-9a-f]{8})_[0-9a-f]{64}\b")


def is_secret(name: str) -> bool:
    """Whether a setting is a secret, by its name: `key`, and all that end in `_password`, `_secret`, `_token`, …."""
    return name == "key" or name.endswith(_ENDS)


def mask(text: str, secrets: Iterable[str] = ()) -> str:
    """Return a text without these secrets, without passwords in URLs, and with API keys cut down to their ids."""
    for secret in secrets:
        if len(secret) >= LEAST_LENGTH:
            text = text.replace(secret, HIDDEN)
    if "://" in text:
        text = _IN_QUERY.sub(rf"\1{HIDDEN}", _IN_URL.sub(rf"\1:{HIDDEN}@", text))
    return _API_KEY.sub(rf"\1_{HIDDEN}", text)


def shown(name: str, value: object) -> str:
    """Return a setting's value as people may see it."""
    if is_secret(name):
        return HIDDEN if value else ""
    return mask(str(value))


def mask_logs(secrets: Iterable[str]) -> None:
    """Mask all that this process logs from now on, whoever logs it and wherever it goes: the last line of defence.

    Masked are the message, and the traceback beneath it; also that of an error that ends the process. Further calls
    add to what is hidden.
    """
    make = getLogRecordFactory()
    if isinstance(make, _Masked):
        make.hidden.update(secrets)
        return
    masked = _Masked(make, set(secrets))
    setLogRecordFactory(masked)
    sys.excepthook = masked.end


@dataclass(frozen=True)
class _Masked:
    """Makes log records without secrets, wherever they go then."""

    make: Callable[..., LogRecord]
    hidden: set[str]

    def __call__(self, *arguments: object, **named: object) -> LogRecord:
        record = self.make(*arguments, **named)
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):  # logging says so itself, when it comes to write it
            return record
        clean = mask(message, self.hidden)
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0] is not None:
            # A formatter takes the text as it stands here, and makes none of its own.
            record.exc_text = mask("".join(traceback.format_exception(*record.exc_info)).rstrip(), self.hidden)
        return record

    def end(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(mask("".join(traceback.format_exception(kind, error, trace)), self.hidden))
