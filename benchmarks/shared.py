"""What several benchmarks share: cards with a week of payments behind a real Redis, and Feast with the same values."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np
import polars as pl

from benchmarks import feast_online
from benchmarks.feast_env import environment, ran
from benchmarks.harness import append, online_store, tiles_flow, wait_for_position
from rtml import instants
from rtml.instants import DAY
from rtml.settings import Settings
from serving.client import FeatureClient

if TYPE_CHECKING:
    from redis import Redis

CARDS, PAYMENTS, DAYS = 2_000, 100, 7
SERVICE = "fraud"
STORING_SECONDS = 300


class Cards(NamedTuple):
    """`CARDS` cards with `PAYMENTS` each over the last `DAYS` days, in three views of five features."""

    client: Redis
    settings: Settings
    names: list[str]


class Feast(NamedTuple):
    """Feast's Python, and the folder of a repository of which all is in the same Redis."""

    python: Path
    folder: Path


class Shared:
    """Made when first asked for, and gone at the end.

    Args:
        full: whether peers that take many minutes are measured at full size.
        profile: whether to sample where the time goes.
        features: the module of the three views.
    """

    def __init__(self, *, full: bool = False, profile: bool = False, features: str = "benchmarks.three_views") -> None:
        """Make nothing yet."""
        self._features = features
        self.full = full
        self.profile = profile
        self.profiles: list[tuple[str, str]] = []
        """What was sampled: a title, and a table as text."""
        self._stack = ExitStack()

    def __enter__(self) -> Shared:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop and remove all."""
        self._stack.close()

    @cached_property
    def folder(self) -> Path:
        """A folder for files that pass between processes."""
        return Path(self._stack.enter_context(tempfile.TemporaryDirectory()))

    def samples(self, name: str) -> Path | None:
        """Return the file that a process is to be sampled into, if any."""
        return self.folder / f"{name}.json" if self.profile else None

    @cached_property
    def cards(self) -> Cards:
        """Send the payments through the stream, under stamps of their own time, and wait until they are servable."""
        client, settings = self._stack.enter_context(online_store(self._features, accept_stamps=True))
        rng = np.random.default_rng(3)
        now = instants.now()
        times = np.sort(rng.integers(now - DAYS * DAY, now, CARDS * PAYMENTS))
        cards = rng.permutation(np.arange(len(times)) % CARDS)
        with tiles_flow(settings):
            wait_for_position(client, int(append(client, cards, times)[-1]), 300)
        return Cards(client, settings, [f"c{card}" for card in range(CARDS)])

    @cached_property
    def feast(self) -> Feast:
        """Have Feast hold, in the same Redis, what our server would answer now for all cards.

        Raises:
            PeerError: it cannot be installed, or failed.
        """
        python, folder = environment().absolute(), self.folder / "feast"
        folder.mkdir(exist_ok=True)
        client, settings, names = self.cards
        with FeatureClient(settings) as features:
            answer = features.get(SERVICE, [{"card": name} for name in names])
        columns = dict(zip(answer.features, zip(*answer.rows, strict=True), strict=True))
        frame = pl.DataFrame({name: list(values) for name, values in columns.items()})
        key, at = pl.Series(feast_online.KEY, names), pl.lit(instants.to_datetime(answer.at)).alias(feast_online.TIME)
        frame.with_columns(key, at).write_parquet(folder / feast_online.VALUES)
        redis = f"127.0.0.1:{client.get_connection_kwargs()['port']},db=1"
        views = list(dict.fromkeys(name.split("__")[0] for name in answer.features))
        plan = {"redis": redis, "views": views, "cards": names}
        (folder / feast_online.PLAN).write_bytes(msgspec.json.encode(plan))
        ran(
            [str(python), "-I", str(Path(feast_online.__file__)), "store", str(folder)], STORING_SECONDS, "Feast failed"
        )
        return Feast(python, folder)
