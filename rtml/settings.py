"""The settings of a process: environment, then `rtml.toml`, then `.rtml/run.json`, then the defaults."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from rtml.errors import SettingsError, near_miss
from rtml.instants import Duration, parse_duration
from rtml.secrets import is_secret, mask, shown
from rtml.settings_rules import check, optional_duration

RUN_FILE = "run.json"
"""In the home folder: what whoever started an embedded Redis wrote for the others to find."""

FILE = "_file"
"""`<secret>_file` names a file that holds a secret."""

_ANY = ("", "0.0.0.0", "::")  # nosec B104
"""Hosts that mean every address of the machine."""


class Settings(msgspec.Struct, frozen=True):
    """Every setting: `RTML_<NAME>` in the environment, or `<name>` in `rtml.toml`."""

    features: str = "examples.flights.features"
    """Import path or `.py` file of the definitions."""
    home: str = ".rtml"
    """Folder for local state: the embedded Redis, recovery stores, Dagster's home, logs."""
    redis_url: str = "redis://127.0.0.1:6379/0"
    """The online store and broker."""
    lake: str = ""
    """Root of the lake, a folder or an object store's URL; default `<home>/lake`."""
    accept_stamps: bool = False
    """Whether entries may carry their own `ingested_at` (replays, demo, tests)."""
    tile_epoch: str = "1s"
    """How often the tiles flow snapshots its position."""
    mirror_epoch: str = "30s"
    """How often the mirror flow commits to the lake."""
    log_epoch: str = "10s"
    """How often the feature server appends what it served to the lake."""
    batch: int = 4096
    """The most entries that one read of a partition takes."""
    credit: int = 200_000
    """The most events of a partition in one epoch."""
    stream_processes: int = 1
    """In how many processes the tiles flow of each source runs, 1 to 64."""
    version_grace: str = "1d"
    """How long what a promotion has replaced is still written, so that it can be rolled back to."""
    host: str = "127.0.0.1"
    """Where the feature server and the Dagster UI listen."""
    port: int = 8815
    """The feature server's port."""
    dagster_port: int = 3000
    """The Dagster UI's port."""
    redis_timeout: str = "500ms"
    """How long the feature server waits for Redis; and how long requests wait for it that set no `timeout_ms`."""
    redis_read_url: str = ""
    """A replica of that Redis, which the feature server reads features from; by default `redis_url`."""
    redis_connections: int = 32
    """The most connections of a feature server to the Redis it reads: round trips beyond them wait for one."""
    queue_target: str = "50ms"
    """How long feature requests may wait in the server; while all wait longer, new ones are refused. `0s`: never."""
    max_in_flight: int = 512
    """The most feature requests in the works at once; those beyond are refused. 0: any number."""
    drain: str = "5s"
    """How long a feature server that is told to end goes on answering, while it says that it is not ready."""
    redis_username: str = ""
    """The Redis user, where its ACL names users; else that of the URL."""
    redis_password: str = ""
    """Redis' password; a secret: `RTML_REDIS_PASSWORD_FILE` may name a file that holds it."""
    redis_ca: str = ""
    """File of the authority that signed Redis' certificate, for a `rediss://` URL; by default the system's."""
    redis_cert: str = ""
    """File of the certificate that Redis is shown, where it asks for one."""
    redis_key: str = ""
    """File of that certificate's private key."""
    auth: Literal["auto", "on", "off"] = "auto"
    """Whether the feature server asks for API keys; `auto`: where `host` is not this machine alone."""
    key: str = ""
    """The API key that this project's own processes show the feature server; a secret, or a file as above."""
    run_key: str = ""
    """`<id>:<SHA-256>` of a key that this feature server takes beside the lake's, to read by; `rtml up` sets it."""
    rate_limit: float = 0.0
    """Requests per second that one key, or one address without a key, may make; 0: any number."""
    max_body_bytes: int = 4_194_304
    """The longest body of a request to the feature server."""
    max_entities: int = 10_000
    """The most entities that one request for features may name."""
    max_events: int = 10_000
    """The most events of one push to the feature server."""
    tls_cert: str = ""
    """File of the feature server's certificate (PEM, with its chain); with it, the server speaks HTTPS alone."""
    tls_key: str = ""
    """File of that certificate's private key (PEM)."""
    log_format: str = "text"
    """How processes log: `text`, or `json`, one object a line."""
    access_log: bool = False
    """Whether the feature server logs every request."""
    otel_endpoint: str = ""
    """Where traces go by OTLP over HTTP, such as `http://127.0.0.1:4318`; none are made without it."""
    otel_ratio: float = 1.0
    """The share of requests that are traced, 0 to 1, where a caller's `traceparent` does not decide."""
    watch_interval: str = "2s"
    """The time between two looks of the watch."""
    watch_port: int = 0
    """Where the watch shows Prometheus its metrics, to the same keys as the feature server; 0: nowhere."""
    dagster_url: str = ""
    """Where people find Dagster's UI, for the links in alerts; default `http://<host>:<dagster_port>`."""
    alert_webhook: str = ""
    """A URL that gets each alert as JSON; a secret."""
    alert_slack_webhook: str = ""
    """A Slack incoming webhook, or the URL of what takes the same; a secret."""
    alert_email: str = ""
    """Who gets alerts by e-mail: addresses, with commas between them."""
    alert_remind: str = "6h"
    """After how long an alert that is still open is told again."""
    smtp_host: str = "localhost"
    """The mail server."""
    smtp_port: int = 587
    """The mail server's port."""
    smtp_security: Literal["starttls", "ssl", "none"] = "starttls"
    """How the connection to the mail server is encrypted: `starttls`, `ssl` or `none`."""
    smtp_user: str = ""
    """The mail server's user; without one, nobody logs in."""
    smtp_password: str = ""
    """Its password; a secret."""
    smtp_from: str = ""
    """Who alerts are from; default the user, where that is an address, else the first recipient."""

    def __post_init__(self) -> None:
        """Refuse durations that are none, and what is none of its choices."""
        check(self)

    def __repr__(self) -> str:
        """Show all but the secrets."""
        values = ", ".join(f"{name}={value!r}" for name, value in self._shown())
        return f"Settings({values})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Show the same where rich prints them."""
        return list(self._shown())

    def _shown(self) -> Iterator[tuple[str, object]]:
        for name, value in msgspec.structs.asdict(self).items():
            yield name, shown(name, value) if isinstance(value, str) else value

    @property
    def secrets(self) -> tuple[str, ...]:
        """The secrets themselves, so that they can be masked wherever they would be shown."""
        values = [str(value) for name, value in msgspec.structs.asdict(self).items() if is_secret(name) and value]
        passwords = {urlsplit(url).password for url in (self.redis_url, self.redis_read_url)} - {None}
        return (*values, *sorted({form for one in passwords if one for form in (one, unquote(one))}))

    @property
    def reading(self) -> Settings:
        """The same settings, for what reads features: with the replica, if there is one, as its Redis."""
        url = self.redis_read_url
        return msgspec.structs.replace(self, redis_url=url, redis_read_url="") if url else self

    @property
    def redis_shown(self) -> str:
        """The Redis URL as people may see it."""
        return mask(self.redis_url)

    @property
    def needs_key(self) -> bool:
        """Whether the feature server asks for API keys."""
        return self.auth == "on" or (self.auth == "auto" and not _is_loopback(self.host))

    @property
    def scheme(self) -> str:
        """How the feature server is spoken to."""
        return "https" if self.tls_cert else "http"

    @property
    def server_url(self) -> str:
        """The feature server's root as this machine reaches it, without a slash at its end."""
        host = "127.0.0.1" if self.host in _ANY else self.host
        host = f"[{host}]" if ":" in host else host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def home_path(self) -> Path:
        """The home folder, absolute."""
        return Path(self.home).absolute()

    @property
    def lake_root(self) -> str:
        """The lake's root, absolute where it is a folder."""
        if not self.lake:
            return str(self.home_path / "lake")
        return self.lake if "://" in self.lake else str(Path(self.lake).absolute())

    @property
    def tile_epoch_us(self) -> Duration:
        """The tiles flow's epoch in microseconds."""
        return parse_duration(self.tile_epoch)

    @property
    def mirror_epoch_us(self) -> Duration:
        """The mirror flow's epoch in microseconds."""
        return parse_duration(self.mirror_epoch)

    @property
    def log_epoch_us(self) -> Duration:
        """The feature log's epoch in microseconds."""
        return parse_duration(self.log_epoch)

    @property
    def version_grace_us(self) -> Duration:
        """The grace of replaced versions in microseconds."""
        return parse_duration(self.version_grace)

    @property
    def redis_timeout_seconds(self) -> float:
        """The feature server's patience with Redis."""
        return parse_duration(self.redis_timeout) / 1e6

    @property
    def queue_target_seconds(self) -> float:
        """How long feature requests may wait in the server; 0 for any time."""
        return optional_duration(self.queue_target) / 1e6

    @property
    def drain_seconds(self) -> float:
        """How long a feature server goes on answering when it is told to end."""
        return optional_duration(self.drain) / 1e6

    @property
    def watch_interval_us(self) -> Duration:
        """The time between two looks of the watch in microseconds."""
        return parse_duration(self.watch_interval)

    def environment(self) -> dict[str, str]:
        """Return these settings as environment variables, for a child process."""
        values = msgspec.structs.asdict(self)
        return {f"RTML_{name.upper()}": _as_text(value) for name, value in values.items()}


def load_settings(environment: Mapping[str, str] | None = None, folder: Path | None = None) -> Settings:
    """Return the settings of this process.

    Raises:
        SettingsError: an unknown name, or a value of another type, with where it was found.
    """
    environment = os.environ if environment is None else environment
    folder = Path.cwd() if folder is None else folder
    file = folder / "rtml.toml"
    written = _checked(tomllib.loads(file.read_text()) if file.is_file() else {}, str(file.name))
    given = {name[5:].lower(): value for name, value in environment.items() if name.startswith("RTML_")}
    given = _checked(given, "the environment", prefix="RTML_")
    home = folder / str(given.get("home", written.get("home", ".rtml")))
    run = home / RUN_FILE
    running = _checked(msgspec.json.decode(run.read_bytes()) if run.is_file() else {}, str(run.name))
    try:
        return msgspec.convert({**running, **written, **given}, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"a setting (RTML_* or rtml.toml): {error}") from None


def _checked(values: Mapping[str, Any], where: str, prefix: str = "") -> dict[str, Any]:
    known = Settings.__struct_fields__
    found: dict[str, Any] = {}
    for name, value in values.items():
        said = f"{prefix}{name.upper() if prefix else name}"
        if name in known:
            found[name] = value
        elif (secret := name.removesuffix(FILE)) != name and secret in known and is_secret(secret):
            found.setdefault(secret, _read_secret(said, str(value)))
        else:
            raise SettingsError(f"unknown setting {said!r} in {where}.{near_miss(name, known)}")
    return found


def _read_secret(name: str, file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except OSError as error:
        raise SettingsError(f"{name}: {file!r} cannot be read: {error.strerror}") from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
