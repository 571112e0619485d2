"""Custom aggregates in a server: the definitions are loaded only when a plan needs functions that are not known."""

from __future__ import annotations

import logging
import time

from rtml.errors import RtmlError
from rtml.plan import Plan

RETRY_SECONDS = 10.0

_log = logging.getLogger("rtml.serving")


class CustomAggregates:
    """Finds the functions of plans, and loads the definitions for those that need it."""

    def __init__(self, features: str) -> None:
        """Take where the definitions are, `RTML_FEATURES`; nothing is loaded yet, and never where that is empty."""
        self._features = features
        self._tried = -RETRY_SECONDS
        self._failed = ""

    def hindrance(self, plan: Plan) -> str | None:
        """Return why a plan cannot be computed here; None when it can."""
        reason = _unknown(plan)
        if reason is not None and self._features and time.monotonic() - self._tried >= RETRY_SECONDS:
            self._load()
            reason = _unknown(plan)
        return None if reason is None else f"{reason}{self._failed}"

    def _load(self) -> None:
        """Load the definitions; whatever a user's module raises must not stop what needs nothing of it."""
        from rtml.registry import load  # noqa: PLC0415 (a quarter of a second, for servers that need it)

        self._tried, self._failed = time.monotonic(), ""
        try:
            load(self._features)
        except Exception as error:  # noqa: BLE001
            self._failed = f" {self._features!r} (RTML_FEATURES) cannot be loaded: {type(error).__name__}: {error}"
            _log.warning("custom aggregates:%s", self._failed)


def _unknown(plan: Plan) -> str | None:
    try:
        plan.require_functions()
    except RtmlError as error:
        return str(error)
    return None
