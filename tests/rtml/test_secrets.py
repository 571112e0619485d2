"""Secrets stay out of what people read: settings, URLs, logs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from rich.pretty import pretty_repr

from rtml.access import create_key
from rtml.errors import InstantError, SettingsError
from rtml.secrets import is_secret, mask
from rtml.settings import Settings, load_settings
from rtml_assets.runtime.documented import documented
from streaming.broker import address, connect

SECRETS = Settings(redis_url="rediss://ann:in%20url@host:6380/1", redis_password="of-redis", key="own-key-text")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("at redis://:pw@h:1/0: no", "at redis://:***@h:1/0: no"),
        ("rediss://ann:p:w@x@h/0", "rediss://ann:***@h/0"),
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("got 'redis://:p/w@h:1/0'", "got 'redis://:***@h:1/0'"),
        ("http://h:80/a@b", "http://h:80/a@b"),
        ("redis://h/0?password=pw&db=1", "redis://h/0?password=***&db=1"),
        ("https://user:tok@hooks.example/x y", "https://user:***@hooks.example/x y"),
        ("a@b.c wrote to http://h/a@b", "a@b.c wrote to http://h/a@b"),
    ],
)
def test_urls_lose_their_passwords(text: str, masked: str) -> None:
    assert mask(text) == masked


def test_keys_keep_their_ids_alone() -> None:
    text, key = create_key("k", ["admin"], 0)
    assert mask(f"got {text}!") == f"got rtml_{key.id}_***!"


def test_settings_show_no_secret() -> None:
    for text in (repr(SECRETS), str(SECRETS), pretty_repr(SECRETS), f"{SECRETS}"):
        assert not [secret for secret in SECRETS.secrets if secret in text]
        assert "ann:***@host" in text
    assert set(SECRETS.secrets) == {"of-redis", "own-key-text", "in%20url", "in url"}
    hidden = ["redis_password", "key", "alert_webhook", "alert_slack_webhook", "smtp_password"]
    assert [name for name in Settings.__struct_fields__ if is_secret(name)] == hidden
    assert Settings().secrets == ()


def test_the_table_of_settings_shows_none_either(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("of-redis\n")
    given = {"RTML_REDIS_PASSWORD_FILE": str(file), "RTML_KEY": "own-key-text", "RTML_REDIS_URL": SECRETS.redis_url}
    rows = {row.name: (row.value, row.origin) for row in documented(given, tmp_path)}
    assert rows["redis_password"] == rows["key"] == ("***", "environment")
    assert rows["redis_url"][0] == "rediss://ann:***@host:6380/1"
    assert load_settings(given, tmp_path).redis_password == "of-redis"


def test_a_file_of_a_secret_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"RTML_KEY_FILE: '.*/none' cannot be read: No such file"):
        load_settings({"RTML_KEY_FILE": str(tmp_path / "none")}, tmp_path)
    with pytest.raises(SettingsError, match="unknown setting 'RTML_PORT_FILE'"):
        load_settings({"RTML_PORT_FILE": "/nowhere"}, tmp_path)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"redis_url": "redis://h/0", "redis_ca": __file__}, "redis_url must begin with rediss://; got 'redis://h/0'"),
        ({"redis_url": "rediss://h/0", "redis_ca": "/nowhere"}, r"redis_ca \(RTML_REDIS_CA\) must be a file"),
    ],
)
def test_certificates_are_checked_where_redis_is_reached(given: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        connect(Settings(**given))  # type: ignore[arg-type]


def test_what_a_url_leaves_out_is_given() -> None:
    url, options = address(SECRETS)
    assert (url, options) == (SECRETS.redis_url, {"password": "of-redis"})
    with pytest.raises(SettingsError) as refused:
        connect("nonsense://ann:hidden@h")
    assert "hidden" not in str(refused.value)


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(SettingsError, match="tls_cert and tls_key belong together"):
        Settings(tls_cert="c.pem")
    with pytest.raises(SettingsError, match=r"rate_limit \(RTML_RATE_LIMIT\) must be 0 or more; got -1"):
        Settings(rate_limit=-1)


def test_a_replica_is_read_with_the_same_credentials() -> None:
    url = "rediss://:of-replica@replica:6380/0"
    settings = msgspec.structs.replace(SECRETS, redis_read_url=url)
    assert address(settings.reading) == (url, {"password": "of-redis"})
    assert SECRETS.reading is SECRETS
    assert "of-replica" in settings.secrets
    assert "of-replica" not in repr(settings)
    with pytest.raises(SettingsError, match=r"redis_read_url .* must be a URL like 'redis://…'; got 'replica:6379'"):
        Settings(redis_read_url="replica:6379")


@pytest.mark.parametrize(("name", "value"), [("drain", "0s"), ("queue_target", "0s"), ("max_in_flight", 0)])
def test_what_may_be_none_may_be_nothing(name: str, value: object) -> None:
    assert getattr(Settings(**{name: value}), name) == value  # type: ignore[arg-type]
    with pytest.raises((SettingsError, InstantError)):
        Settings(**{name: -1 if value == 0 else "-1s"})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("host", "auth", "needed"),
    [("127.0.0.1", "auto", False), ("localhost", "auto", False), ("::1", "auto", False), ("0.0.0.0", "auto", True),
     ("10.1.2.3", "auto", True), ("feature.host", "auto", True), ("127.0.0.1", "on", True), ("0.0.0.0", "off", False)],
)  # fmt: skip
def test_keys_are_asked_for_beyond_this_machine(host: str, auth: str, needed: bool) -> None:
    assert Settings(host=host, auth=auth).needs_key is needed  # type: ignore[arg-type]


_PROGRAM = """
import logging, sys
from rtml.secrets import mask_logs
logging.basicConfig(stream=sys.stdout, format="%(message)s")
logging.getLogger("quiet").addHandler(logging.StreamHandler(sys.stdout))
mask_logs(["of-redis"]); mask_logs(["later-secret"])
log = logging.getLogger("x")
log.error("%s is %s, %d", "password", "of-redis", 5)
log.error("plain %s", {"a": 1})
try:
    raise ValueError("of-redis in an error")
except ValueError:
    log.exception("at redis://a:of-redis@h")
log.error("later-secret")
raise RuntimeError("ends with of-redis and redis://u:other@h/0")
"""


def test_what_a_process_logs_is_masked() -> None:
    run = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    said = run.stdout + run.stderr
    assert not [secret for secret in ("of-redis", "later-secret", "other@") if secret in said.replace(_PROGRAM, "")]
    assert "password is ***, 5\n" in run.stdout
    assert "plain {'a': 1}" in run.stdout
    assert "ValueError: *** in an error" in run.stdout
    assert "RuntimeError: ends with *** and redis://u:***@h/0" in run.stderr
