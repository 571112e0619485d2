"""The peer of `latest_value`: Feast's point-in-time join of a Parquet file. It runs in an environment of its own.

`python benchmarks/feast_join.py FOLDER` reads `events.parquet` and `spine.parquet` there, writes `answers.parquet` (the
spine's rows as Feast returns them), and prints JSON: the seconds of each run, and Feast's version.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

VERSION = "0.67"
VIEW, KEY, TIME, NUMBER = "latest", "card", "at", "number"
FEATURES = ["amount", "merchant"]
TTL_DAYS, RUNS = 30, 2
EVENTS, SPINE, ANSWERS = "events.parquet", "spine.parquet", "answers.parquet"


def main(folder: Path) -> dict[str, Any]:
    """Answer the spine some times; return what is printed."""
    # Only here: whoever takes the names above has neither.
    import feast  # type: ignore[import-not-found]  # noqa: PLC0415
    import pandas as pd  # type: ignore[import-untyped]  # noqa: PLC0415

    store = _project(folder)
    spine = pd.read_parquet(folder / SPINE)
    wanted = [f"{VIEW}:{name}" for name in FEATURES]
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        answers = store.get_historical_features(entity_df=spine, features=wanted).to_df()
        seconds.append(time.perf_counter() - started)
        answers[[NUMBER, *FEATURES]].to_parquet(folder / ANSWERS)
    return {"seconds": seconds, "version": feast.__version__}


def _project(folder: Path) -> Any:
    """Register one view of the file with the local provider and its default offline store, which is Dask's."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig  # noqa: PLC0415
    from feast.types import Float64, Int64  # type: ignore[import-not-found]  # noqa: PLC0415
    from feast.value_type import ValueType  # type: ignore[import-not-found]  # noqa: PLC0415

    config = RepoConfig(
        project="latest",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    card = Entity(name=KEY, join_keys=[KEY], value_type=ValueType.INT64)
    view = FeatureView(
        name=VIEW,
        entities=[card],
        ttl=timedelta(days=TTL_DAYS),
        schema=[Field(name=KEY, dtype=Int64), Field(name="amount", dtype=Float64), Field(name="merchant", dtype=Int64)],
        source=FileSource(name="payments", path=str(folder / EVENTS), timestamp_field=TIME),
    )
    store = FeatureStore(config=config)
    store.apply([card, view])
    return store


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
