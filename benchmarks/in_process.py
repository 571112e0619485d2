"""One and a hundred entities in this process: our client, which aggregates, beside Feast's SDK, which looks up.

`python -m benchmarks.in_process ENTITIES CALLS` runs as a child, as Feast does: it prints the seconds of each call.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks import feast_online
from benchmarks.feast_env import PeerError, ran
from benchmarks.harness import module
from benchmarks.rows import Row, alone, milliseconds, sooner
from benchmarks.sampled import Sampler, read, table
from benchmarks.shared import CARDS, SERVICE, Shared
from rtml.settings import load_settings
from serving.client import FeatureClient

CALLS = {1: 3_000, 100: 400}
AIMS = {1: 1.5, 100: 8.0}
WARM_UP = 50
PATIENCE = 300.0


def run(shared: Shared) -> list[Row]:
    """Measure both, for each number of entities; without Feast, ours and the reason."""
    rows = []
    for entities, count in CALLS.items():
        what = f"in process, {entities} {'entity' if entities == 1 else 'entities'}, p50"
        found = ours(shared, entities, count)
        p50, p99 = np.percentile(found, (50, 99))
        try:
            peer = feast(shared, entities, count)
        except PeerError as error:
            rows.append(alone(what, milliseconds(p50), f"≥ {AIMS[entities]:g}×", error))
            continue
        peer_p50, peer_p99 = np.percentile(peer, (50, 99))
        rows.append(sooner(what, p50, peer_p50, AIMS[entities]))
        rows.append(Row("  p99", milliseconds(p99), milliseconds(peer_p99), f"{peer_p99 / p99:.2f}×"))
    return rows


def ours(shared: Shared, entities: int, count: int) -> list[float]:
    """Return the seconds of each call in a process of its own."""
    arguments = [str(entities), str(count)]
    environment = {**shared.cards.settings.environment(), "PYTHONPATH": ":".join(filter(None, sys.path))}
    argv = module("benchmarks.in_process", *arguments)
    took: list[float] = json.loads(subprocess.run(argv, check=True, capture_output=True, env=environment).stdout)
    samples = shared.samples(f"in_process_{entities}")
    if samples is not None:
        subprocess.run([*argv, str(samples)], check=True, capture_output=True, env=environment)
        shared.profiles.append((f"in_process: {entities}", table(read(samples), WARM_UP + count, "call")))
    return took


def feast(shared: Shared, entities: int, count: int) -> list[float]:
    """Return the seconds of each call of the SDK.

    Raises:
        PeerError: there is no Feast, or it failed.
    """
    python, folder = shared.feast
    script = str(Path(feast_online.__file__))
    argv = [str(python), "-I", script, "calls", str(folder), str(entities), str(count)]
    took: list[float] = json.loads(ran(argv, PATIENCE, "Feast failed").splitlines()[-1])
    return took


def child(entities: int, count: int) -> list[float]:
    """Read random cards, and return the seconds of each call."""
    cards = [f"c{card}" for card in range(CARDS)]
    chosen = random.Random(1)  # nosec B311
    took = []
    with FeatureClient(load_settings()) as features:
        for _ in range(WARM_UP + count):
            asked = [{"card": card} for card in chosen.sample(cards, entities)]
            started = perf_counter()
            answer = features.get(SERVICE, asked)
            took.append(perf_counter() - started)
            if answer.rows[-1][answer.features.index("card_volume__count_7d")] is None:
                raise SystemExit(f"a null was served: {answer}")
    return took[WARM_UP:]


def main() -> None:
    """Print, or sample into a file."""
    entities, count, *samples = sys.argv[1:]
    if not samples:
        print(json.dumps(child(int(entities), int(count))))
        return
    import msgspec  # noqa: PLC0415

    sampler = Sampler()
    sampler.start()
    child(int(entities), int(count))
    Path(samples[0]).write_bytes(msgspec.json.encode(sampler.stop()))


if __name__ == "__main__":
    main()
