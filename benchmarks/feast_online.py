"""The peer of serving: Feast's SDK on Redis, with features computed beforehand. It runs in an environment of its own.

`python benchmarks/feast_online.py store FOLDER` registers the views of `values.parquet` there, and writes its rows to
Redis; it leaves what `feast serve` and the next command need. `… calls FOLDER ENTITIES CALLS` reads that many random
entities that often, and prints the seconds of each call as JSON.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any

KEY, TIME, SERVICE = "card", "event_timestamp", "fraud"
VALUES, PLAN = "values.parquet", "plan.json"
WARM_UP = 50


def store(folder: Path) -> None:
    """Register views of the columns `view__feature`, and write all rows."""
    # Only here and below: whoever takes the names above has no Feast.
    import pandas as pd  # type: ignore[import-untyped]  # noqa: PLC0415
    from feast import (  # type: ignore[import-not-found]  # noqa: PLC0415
        Entity,
        FeatureService,
        FeatureStore,
        FeatureView,
        Field,
        FileSource,
    )
    from feast.types import Float64, Int64, String  # type: ignore[import-not-found]  # noqa: PLC0415
    from feast.value_type import ValueType  # type: ignore[import-not-found]  # noqa: PLC0415

    plan = json.loads((folder / PLAN).read_text())
    (folder / "feature_store.yaml").write_text(
        f"project: payments\nprovider: local\nregistry: {folder / 'registry.db'}\n"
        f"online_store:\n  type: redis\n  connection_string: {plan['redis']}\n"
        "offline_store:\n  type: file\nentity_key_serialization_version: 3\n"
    )
    values = pd.read_parquet(folder / VALUES)
    card = Entity(name=KEY, join_keys=[KEY], value_type=ValueType.STRING)
    feast = FeatureStore(repo_path=str(folder))
    views = []
    for name in plan["views"]:
        columns = [column for column in values.columns if column.startswith(f"{name}__")]
        kinds = [Int64 if "count" in column else Float64 for column in columns]
        fields = [Field(name=column, dtype=kind) for column, kind in zip(columns, kinds)]  # noqa: B905
        source = FileSource(name=name, path=str(folder / VALUES), timestamp_field=TIME)
        views.append(
            FeatureView(name=name, entities=[card], schema=[Field(name=KEY, dtype=String), *fields], source=source)
        )
    feast.apply([card, *views, FeatureService(name=SERVICE, features=views)])
    for view in views:
        columns = [column for column in values.columns if column.startswith(f"{view.name}__")]
        feast.write_to_online_store(view.name, df=values[[KEY, TIME, *columns]])


def calls(folder: Path, entities: int, count: int) -> list[float]:
    """Return the seconds of each call, and check that the last one had values."""
    from feast import FeatureStore  # noqa: PLC0415

    cards = json.loads((folder / PLAN).read_text())["cards"]
    feast = FeatureStore(repo_path=str(folder))
    service = feast.get_feature_service(SERVICE)
    chosen = random.Random(1)  # nosec B311
    took = []
    answer: dict[str, Any] = {}
    for _ in range(WARM_UP + count):
        rows = [{KEY: card} for card in chosen.sample(cards, entities)]
        started = time.perf_counter()
        answer = feast.get_online_features(features=service, entity_rows=rows).to_dict()
        took.append(time.perf_counter() - started)
    if any(None in values for name, values in answer.items() if "7d" in name):
        raise SystemExit(f"Feast served a null: {answer}")
    return took[WARM_UP:]


if __name__ == "__main__":
    where = Path(sys.argv[2])
    if sys.argv[1] == "store":
        store(where)
    else:
        print(json.dumps(calls(where, int(sys.argv[3]), int(sys.argv[4]))))
