"""What must be true of settings beyond their types."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtml.access import is_fingerprint
from rtml.errors import SettingsError, near_miss
from rtml.instants import Duration, parse_duration
from rtml.logs import FORMATS
from rtml.secrets import mask

if TYPE_CHECKING:
    from rtml.settings import Settings

DURATIONS = (
    "tile_epoch",
    "mirror_epoch",
    "log_epoch",
    "version_grace",
    "redis_timeout",
    "watch_interval",
    "alert_remind",
)
"""The settings that are durations."""
OPTIONAL_DURATIONS = ("queue_target", "drain")
"""Those that may be `0s`."""
NOTHING = "0s"
REDIS_SCHEMES = ("redis://", "rediss://", "unix://")
LEAST = {
    **dict.fromkeys(("rate_limit", "max_in_flight"), 0),
    **dict.fromkeys(("max_body_bytes", "max_entities", "max_events", "redis_connections"), 1),
}
"""The least that numbers may be."""
MOST_PROCESSES = 64
"""There are as many shards of a source's entities."""


def check(settings: Settings) -> None:
    """Refuse settings that cannot be.

    Raises:
        SettingsError, InstantError: names the first that cannot, what was expected and what was got.
    """
    for name in DURATIONS:
        parse_duration(getattr(settings, name))
    for name in OPTIONAL_DURATIONS:
        optional_duration(getattr(settings, name))
    for name, least in LEAST.items():
        if getattr(settings, name) < least:
            got = getattr(settings, name)
            raise SettingsError(f"{name} (RTML_{name.upper()}) must be {least} or more; got {got:g}")
    _check_urls(settings)
    if not settings.features:
        raise SettingsError("features (RTML_FEATURES) must be an import path or a .py file; got nothing")
    _check_access(settings)
    if settings.log_format not in FORMATS:
        near = near_miss(settings.log_format, FORMATS)
        raise SettingsError(
            f"log_format (RTML_LOG_FORMAT) must be 'text' or 'json'; got {settings.log_format!r}.{near}"
        )
    if not 1 <= settings.stream_processes <= MOST_PROCESSES:
        words = f"stream_processes (RTML_STREAM_PROCESSES) must lie between 1 and {MOST_PROCESSES}"
        raise SettingsError(f"{words}; got {settings.stream_processes}")
    if not 0 <= settings.otel_ratio <= 1:
        raise SettingsError(f"otel_ratio (RTML_OTEL_RATIO) must lie between 0 and 1; got {settings.otel_ratio}")


def optional_duration(text: str) -> Duration:
    """Return the microseconds of a duration that may be `0s`."""
    return 0 if text == NOTHING else parse_duration(text)


def _check_urls(settings: Settings) -> None:
    for name in ("alert_webhook", "alert_slack_webhook"):
        # Its value is not said: it may be a secret.
        if (url := getattr(settings, name)) and not url.startswith(("http://", "https://")):
            raise SettingsError(f"{name} (RTML_{name.upper()}) must be a URL like 'https://…'; got something else")
    if settings.redis_read_url and not settings.redis_read_url.startswith(REDIS_SCHEMES):
        got = mask(settings.redis_read_url)
        raise SettingsError(f"redis_read_url (RTML_REDIS_READ_URL) must be a URL like 'redis://…'; got {got!r}")


def _check_access(settings: Settings) -> None:
    for one, other in (("tls_cert", "tls_key"), ("redis_cert", "redis_key")):
        if bool(getattr(settings, one)) != bool(getattr(settings, other)):
            raise SettingsError(f"{one} and {other} belong together: set both (RTML_{one.upper()}, …) or neither")
    if settings.run_key and not is_fingerprint(settings.run_key):
        raise SettingsError("run_key (RTML_RUN_KEY) must be a key's id and its SHA-256, with a colon between them")
