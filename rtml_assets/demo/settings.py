"""Where the demo lives: in a folder of its own, beside whatever else this project keeps."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import msgspec

from rtml.errors import SettingsError
from rtml.settings import Settings
from rtml_assets.runtime.documented import is_given
from rtml_assets.runtime.ports import free_port, is_free
from rtml_assets.runtime.project import check_alone

if TYPE_CHECKING:
    from redis import Redis

FEATURES = "examples.flights.features"
EPOCH = "200ms"
MARK = "rtml:demo"
"""The key of a database that a demo found empty and took."""


def demo_settings(settings: Settings) -> Settings:
    """Return the demo's settings: its own home and lake, and ports that are free unless they were chosen."""
    return msgspec.structs.replace(
        settings,
        features=FEATURES,
        home=str(settings.home_path / "demo"),
        lake="",
        accept_stamps=True,
        tile_epoch=EPOCH,
        mirror_epoch=EPOCH,
        log_epoch=EPOCH,
        # What it shows is public and gone with the next start: who lets others see it wants them to see it at once.
        auth="off",
        tls_cert="",
        tls_key="",
        port=_port("port", settings),
        dagster_port=_port("dagster_port", settings),
    )


def wipe(settings: Settings) -> None:
    """Remove what the last demo left.

    Raises:
        SettingsError: it still runs.
    """
    check_alone(settings.home_path)
    shutil.rmtree(settings.home_path, ignore_errors=True)
    settings.home_path.mkdir(parents=True)


def take_database(client: Redis) -> None:
    """Empty a Redis of what the last demo left there; one that holds anything else is not touched.

    Raises:
        SettingsError: it holds anything else.
    """
    if client.dbsize() and not client.exists(MARK):
        raise SettingsError(
            "the demo needs an empty Redis database, and RTML_REDIS_URL names one with other keys: "
            "choose another number, as in redis://host:6379/5, or unset it"
        )
    client.flushdb()
    client.set(MARK, 1)


def _port(name: str, settings: Settings) -> int:
    port = int(getattr(settings, name))
    return port if is_given(name, settings) or is_free(settings.host, port) else free_port(settings.host)
