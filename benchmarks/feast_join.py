"""The peer of `latest_value`: Feast's point-in-time join of Parquet files. It runs in an environment of its own.

`python benchmarks/feast_join.py FOLDER` reads the files of `events/` and `spine.parquet` there, writes
`answers.parquet` (the spine's rows as Feast returns them), and prints JSON: the least seconds that a run took by the
clock, and the least of all processors.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

VIEW, KEY, TIME, NUMBER = "latest", "card", "at", "number"
FEATURES = ["amount", "merchant"]
TTL_DAYS, RUNS = 30, 3
EVENTS, SPINE, ANSWERS = "events", "spine.parquet", "answers.parquet"


def main(folder: Path) -> dict[str, float]:
    """Answer the spine some times; return what is printed."""
    # Only here and below: whoever takes the names above has no Feast.
    import pandas as pd  # type: ignore[import-untyped]  # noqa: PLC0415

    store = _project(folder)
    spine = pd.read_parquet(folder / SPINE)
    wanted = [f"{VIEW}:{name}" for name in FEATURES]
    runs = []
    for _ in range(RUNS):
        started, worked = time.perf_counter(), time.process_time()
        answers = store.get_historical_features(entity_df=spine, features=wanted).to_df()
        runs.append((time.perf_counter() - started, time.process_time() - worked))
        answers[[NUMBER, *FEATURES]].to_parquet(folder / ANSWERS)
    return {"seconds": min(seconds for seconds, _ in runs), "work": min(work for _, work in runs)}


def _project(folder: Path) -> Any:
    """Register one view of the files with the local provider and its default offline store, which is Dask's."""
    from feast import (  # type: ignore[import-not-found]  # noqa: PLC0415
        Entity,
        FeatureStore,
        FeatureView,
        Field,
        FileSource,
        RepoConfig,
    )
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
