"""`rtml demo`: March comes in, and the terminal shows what arrives and what a model would read."""

from __future__ import annotations

import os
import threading
import time
from collections import deque

from rich.console import Console
from rich.live import Live

from rtml.errors import RtmlError
from rtml_assets.demo.stage import Stage
from rtml_assets.demo.view import FLIGHTS, Frame, render
from rtml_assets.runtime.replay import Sent, replay
from serving.client import FeatureClient
from serving.features import FeatureVectors

SERVICE = "eta"
SPEED = 3_600.0
"""Much faster, and an epoch spans more of 2013 than the lateness: the sources' watermarks part too far for one `at`."""
FRAMES_PER_SECOND = 4
RATE_SECONDS = 3.0
PATIENCE_SECONDS = 2.0


def show(console: Console, stage: Stage, speed: float | None) -> int:
    """Replay all that is still to come, and show it until told to stop; return the exit code.

    Raises:
        RtmlError: the replay failed.
    """
    pace = speed or SPEED
    settings = stage.project.settings
    with (
        Replay(stage, pace) as coming,
        FeatureClient(settings, epoch=settings.tile_epoch_us) as features,
        Live(console=console, auto_refresh=False) as live,
    ):
        latest = Latest(features)
        while True:
            live.update(render(_frame(stage, coming, latest, pace)), refresh=True)
            coming.check()
            time.sleep(1 / FRAMES_PER_SECOND)


class Replay:
    """The flights that are still to come, sent by a thread of its own."""

    def __init__(self, stage: Stage, speed: float) -> None:
        """Take what to send, and how fast; `with` sends."""
        self._stage, self._speed = stage, speed
        self._frames = {name: flights.coming for name, flights in stage.flights.items()}
        self._stopped = threading.Event()
        self._failure: Exception | None = None
        self._history: deque[tuple[float, Sent]] = deque()
        self._thread = threading.Thread(target=self._run, name="rtml-replay", daemon=True)

    def __enter__(self) -> Replay:
        """Start sending."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the rest unsent."""
        self._stopped.set()
        self._thread.join()

    def check(self) -> None:
        """Raise what made the sending fail."""
        if self._failure is not None:
            raise self._failure

    @property
    def total(self) -> int:
        """How many events there are to send."""
        return sum(frame.height for frame in self._frames.values())

    @property
    def counts(self) -> dict[str, int]:
        """How many events have been sent, by source."""
        return self._history[-1][1].counts if self._history else dict.fromkeys(self._frames, 0)

    def rates(self) -> dict[str, float]:
        """Return how many events a second have been sent of late, by source."""
        history = list(self._history)
        if not self._thread.is_alive() or len(history) < 2:
            return dict.fromkeys(self._frames, 0.0)
        (first, then), (last, now) = history[0], history[-1]
        return {name: (now.counts[name] - then.counts[name]) / (last - first) for name in self._frames}

    def _run(self) -> None:
        try:
            for sent in replay(self._frames, self._stage.producers, self._speed, stopped=self._stopped.is_set):
                now = time.monotonic()
                self._history.append((now, sent))
                while self._history[0][0] < now - RATE_SECONDS:
                    self._history.popleft()
        # Told to the thread that shows, which ends the demo.
        except Exception as error:  # noqa: BLE001
            self._failure = error


class Latest:
    """What a model reads, as it was the last time that it could."""

    def __init__(self, features: FeatureClient) -> None:
        """Take the client."""
        self._features = features
        self._vectors: FeatureVectors | None = None
        self._at = time.monotonic()

    def read(self) -> tuple[FeatureVectors | None, str]:
        """Return it; where it is not of the last two seconds, with what is wrong."""
        try:
            self._vectors = self._features.get(SERVICE, FLIGHTS, leading_edge="watermark")
        except RtmlError as error:
            return self._vectors, str(error) if time.monotonic() - self._at > PATIENCE_SECONDS else ""
        self._at = time.monotonic()
        return self._vectors, ""


def _frame(stage: Stage, coming: Replay, latest: Latest, speed: float) -> Frame:
    served, trouble = latest.read()
    project = stage.project
    return Frame(
        speed=speed,
        sent=coming.counts,
        total=coming.total,
        rates=coming.rates(),
        figures=stage.figures.read(),
        served=served,
        trouble=trouble,
        restarts=sum(status.restarts for status in project.status().values()),
        home=os.path.relpath(project.settings.home_path),
        server_url=project.server_url,
        dagster_url=project.dagster_url,
    )
