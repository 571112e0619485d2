"""Definitions: what they mean, and what they say when they cannot mean it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import rtml
from rtml import (
    Count,
    DecayedCount,
    DecayedSum,
    Drift,
    Entity,
    EventSource,
    Expect,
    FeatureService,
    FirstN,
    LabelSource,
    LastN,
    Mean,
    Min,
    RedisStream,
    Share,
    Spine,
    StreamFeatureView,
    Sum,
    Window,
)
from rtml.compile import compile_view
from rtml.define.expression import relaxed
from rtml.errors import DefinitionError, RtmlError, SettingsError, UnknownNameError
from rtml.registry import Registry, load


class Purchase(rtml.Event):
    event_id: str
    at: rtml.Timestamp
    user: str
    shop: int
    amount: float = rtml.Field(ge=0, le=1e6, nullable=True)
    items: int = rtml.Field(ge=0)
    gift: bool


def source(**changes: object) -> EventSource:
    given: dict[str, object] = {
        "name": "purchases",
        "schema": Purchase,
        "timestamp": "at",
        "event_id": "event_id",
        "stream": RedisStream("purchases"),
    }
    return EventSource(**{**given, **changes})  # type: ignore[arg-type]


PURCHASES = source()
USER = Entity("user", join_keys=["user"])


def view(**changes: object) -> StreamFeatureView:
    given: dict[str, object] = {"name": "user_purchases", "source": PURCHASES, "entity": USER}
    given["features"] = [Count(windows=["1h", "24h"]), Mean("amount", windows=["1h", "7d"])]
    return StreamFeatureView(**{**given, **changes})  # type: ignore[arg-type]


def test_features_are_called_column_aggregate_window() -> None:
    made = view(
        derive={"large": pl.col("amount") > 100},
        features=[
            Count(windows=["1h"]),
            Sum("items", windows=["90m"]),
            Mean("large", windows=["3h"], name="large_share"),
        ],
    )
    assert list(made.resolved) == ["count_1h", "items_sum_90m", "large_share_3h"]


def test_tails_are_exact_up_to_a_day_unless_told() -> None:
    made = view(features=[Count(windows=["24h", "7d", Window("2h", tail="tile"), Window("8d", tail="exact")])])
    assert [feature.window.exact for feature in made.resolved.values()] == [True, False, False, True]
    assert all(feature.window.exact for feature in view(tail="exact").resolved.values())


@pytest.mark.parametrize("nulls", [False, True])
@pytest.mark.parametrize("dtype", [pl.Float64(), pl.Float32(), pl.Int64()])
@pytest.mark.parametrize(
    "divisor", [49, 7, -1.5, 0.1, 0, pl.lit(3), pl.lit(7, dtype=pl.Int32), pl.lit(3) * 2, pl.lit(49).cast(pl.Float64)]
)
def test_division_by_a_number_means_the_same_in_frames_of_any_length(divisor, dtype, nulls):
    """Of itself, Polars multiplies with the reciprocal in all frames but those of one row."""
    values = [float(number) for number in range(-60, 60)] + [None] * nulls
    frame = pl.DataFrame({"x": pl.Series(values).cast(dtype)})
    x = pl.col("x")
    for expression in (
        x / divisor,
        x // divisor,
        x % divisor,
        (x + 1) / divisor / 7,
        ((x / divisor) > 1).cast(pl.Int8),
    ):
        kept = relaxed("it", expression).alias("y")
        whole = frame.select(kept)["y"]
        rows = pl.concat([frame.slice(row, 1).select(kept)["y"] for row in range(frame.height)])
        assert whole.equals(rows, null_equal=True), expression
        streamed = frame.lazy().select(kept).collect(engine="streaming")["y"]
        assert whole.equals(streamed, null_equal=True), expression


def test_what_is_divided_by_a_number_is_row_by_row() -> None:
    made = view(derive={"share": pl.col("amount") / 1.6}, features=[Sum("share", windows=["1h"])])
    assert pl.DataFrame({"amount": [8.0, 1.0]}).select(made.derive["share"]).to_series().to_list() == [5.0, 0.625]
    made = view(where=pl.col("amount") // 49 == 1)
    assert made.where is not None
    assert pl.DataFrame({"amount": [49.0, 5.0]}).select(made.where).to_series().to_list() == [True, False]


def test_a_selection_keeps_its_order() -> None:
    service = FeatureService("fraud", features=[view()[["count_24h", "count_1h"]]])
    assert [name for _, name in service.columns] == ["count_24h", "count_1h"]


class Unique(rtml.Event):
    at: rtml.Timestamp
    x: int = rtml.Field(unique=True)


class WholeFloats(rtml.Event):
    at: rtml.Timestamp
    x: float = rtml.Field(isin=[0, 1])


class BrokenIntegers(rtml.Event):
    at: rtml.Timestamp
    x: int = rtml.Field(notin=[1, 2.0])


class LookingAhead(rtml.Event):
    at: rtml.Timestamp
    x: str = rtml.Field(str_matches="(?=a)b")


class Unsigned(rtml.Event):
    at: rtml.Timestamp
    x: pl.UInt32


class Reserved(rtml.Event):
    at: rtml.Timestamp
    id64: int


def label(**changes: object) -> LabelSource:
    given: dict[str, object] = {"name": "bought", "source": PURCHASES, "join_keys": ["user"], "labels": ["amount"]}
    return LabelSource(**{**given, "horizon": "24h", **changes})  # type: ignore[arg-type]


class Visit(rtml.Event):
    at: rtml.Timestamp
    usr: str
    shop: str


VISITS = EventSource(name="visits", schema=Visit, timestamp="at", stream=RedisStream("visits"))


class Timed(rtml.Event):
    at: rtml.Timestamp
    timestamp: str


class Mature(Purchase):
    mature: bool


class Named(Purchase):
    count_1h: int


NAMED = source(schema=Named)


def service(**changes: object) -> FeatureService:
    return FeatureService("fraud", features=[view()], **changes)  # type: ignore[arg-type]


SOFT: Any = "soft"
WRONG: list[tuple[Callable[[], object], str]] = [
    (lambda: view(name="a__b"), "view 'a__b' (test_definitions.py:"),
    (lambda: view(name="1st"), "a name is letters, digits and single underscores"),
    (lambda: view(owners=["bob"]), "owners must be e-mail addresses or 'team:<name>'; got 'bob'"),
    (lambda: view(features=[]), "features must be at least one aggregate"),
    (lambda: view(features=[Mean("amuont", windows=["1h"])]), "unknown column 'amuont'. Did you mean 'amount'?"),
    (lambda: view(features=[Mean("shop", windows=["1h"]), Mean("user", windows=["1h"])]), "'user' is a join key"),
    (lambda: view(features=[Min("gift", windows=["1h"])]), "gift_min must be a numeric column; got 'Boolean'"),
    (lambda: view(features=[Sum("event_id", windows=["1h"])]), "must be a numeric or boolean column; got 'String'"),
    (lambda: view(features=[Count(windows="1h")]), "count: windows must be a list such as ['1h', '24h']; got '1h'"),
    (
        lambda: view(features=[Count(windows=["soon"])]),
        "a duration must look like '30s', '5m', '24h' or '7d'; got 'soon'",
    ),
    (lambda: view(features=[Count(windows=["0s"])]), "a duration must be longer than nothing"),
    (lambda: view(features=[Count(windows=["1h", "1h"])]), "two features are called 'count_1h'"),
    (
        lambda: view(features=[LastN("amount", n=101, windows=["1h"])]),
        "amount_last_101: last_n: n must be an integer from 1 to 100; got 101",
    ),
    (lambda: view(features=[FirstN("amount", n="3", windows=["1h"])]), "n must be an integer from 1 to 100; got '3'"),  # type: ignore[arg-type]
    (
        lambda: view(features=[DecayedCount(half_life="soon", windows=["1h"])]),
        "decayed_count: half_life: a duration must look like '30s', '5m', '24h' or '7d'; got 'soon'",
    ),
    (
        lambda: view(features=[DecayedSum("amount", half_life=life, windows=["1h"]) for life in ("1h", "2h")]),
        "two features are called 'amount_decayed_sum_1h'; give one of them a name=",
    ),
    (lambda: view(features=[Share("amount", windows=["1h"])]), "amount_share must be a boolean column; got 'Float64'"),
    (
        lambda: view(
            features=[LastN("amount", n=2, windows=["1h"])],
            quality=[Expect("expect_column_values_to_be_between", "amount_last_2_1h", min_value=0)],
        ),
        "column 'amount_last_2_1h' must be of single values: of lists, only nulls; got 'List(Float64)'",
    ),
    (
        lambda: FeatureService(
            "fraud",
            features=[view(name="lists", features=[LastN("amount", n=2, windows=["1h"])])],
            drift=Drift(features={"lists__amount_last_2_1h": Drift(psi=1)}),
        ),
        "'lists__amount_last_2_1h' is a list: drift is told of single values",
    ),
    (
        lambda: view(features=[Count(windows=["1h", Window("61m", tail="tile")])]),
        "a multiple of the finest tile (5m); got '61m'",
    ),
    (
        lambda: view(features=[Count(windows=[Window("1h", tail=SOFT)])]),
        "windows with tail 'exact' or 'tile'; got 'soft'",
    ),
    (lambda: view(ladder=["1m", "90s"]), "each tile size must be a multiple of the one before"),
    (lambda: view(where=pl.col("amount")), "where must be boolean; got 'Float64'"),
    (lambda: view(where=pl.col("amonut") > 1), "where: unknown column 'amonut'. Did you mean 'amount'?"),
    (lambda: view(where=pl.col("amount").shift() > 1), "where must be row by row"),
    (lambda: view(derive={"x": pl.col("amount") - pl.col("amount").mean()}), "derive['x'] must be row by row"),
    (lambda: view(derive={"x": pl.col("amount").cum_sum()}), "derive['x'] must be row by row"),
    (lambda: view(derive={"x": pl.col("user") + 1}), "derive['x']"),
    (lambda: view(derive={"x": 3}), "must be a Polars expression"),
    (lambda: view(derive={"amount": pl.col("items")}), "has the name of a column of the contract"),
    (
        lambda: view(derive={"h": pl.col("user").hash()}, features=[Sum("h", windows=["1h"])]),
        "h_sum must be of 64-bit floats or signed integers (cast it); got 'UInt64'",
    ),
    (lambda: view(freshness="quick"), "freshness: a duration must look like"),
    (lambda: view(entity="user"), "entity must be an Entity; got 'user'"),
    (
        lambda: view(entity=Entity("amount")),
        "join key 'amount' must be a non-null string, integer or boolean; got 'nullable Float64'",
    ),
    (lambda: Entity("user", join_keys="user"), "join_keys must be a list of column names"),
    (lambda: Entity("user", join_keys=["a", "a"]), "join_keys must be different column names"),
    (lambda: source(timestamp="when"), "timestamp: the contract has no column 'when'"),
    (lambda: source(timestamp="items"), "timestamp 'items' must be a non-null rtml.Timestamp"),
    (lambda: source(event_id="amount"), "event_id 'amount' must be a non-null string or integer"),
    (lambda: source(schema=dict), "schema must be a subclass of rtml.Event"),
    (lambda: source(schema=Unique), "unique=True cannot be checked on one event"),
    (lambda: source(schema=Reserved), "the platform itself adds"),
    (lambda: source(schema=LookingAhead), "pattern '(?=a)b'"),
    (lambda: source(schema=WholeFloats), "isin must be a list of Float64s, such as 0.0; got 0"),
    (lambda: source(schema=BrokenIntegers), "notin must be a list of Int64s, such as 2; got 2.0"),
    (lambda: source(compatibility="backwards"), "compatibility must be one of backward, forward, full, none"),
    (lambda: source(schema=Unsigned), "its type must be str, int, float, bool or rtml.Timestamp; got UInt32"),
    (lambda: source(lateness="a while"), "lateness: a duration must look like"),
    (lambda: source(starts="yesterday"), "starts must be a day like '2013-01-31'; got 'yesterday'"),
    (lambda: source(starts="2020-01-02", ends="2020-01-01"), "is before starts"),
    (lambda: source(stream="purchases"), "stream must be a RedisStream"),
    (lambda: RedisStream("x", partitions=0), "partitions must be between 1 and 1024; got 0"),
    (lambda: FeatureService("s", features=[]), "features must be at least one view"),
    (lambda: FeatureService("s", features=[view(), view()["count_1h"]]), "'user_purchases__count_1h' is listed twice"),
    (lambda: FeatureService("s", features=[view()], version=0), "version must be 1 or more; got 0"),
    (lambda: view(salts=0), "salts must be a whole number from 1 to 64; got 0"),
    (lambda: view(salts=65), "salts must be a whole number from 1 to 64; got 65"),
    (lambda: view(salts=True), "salts must be a whole number from 1 to 64; got True"),
    (lambda: view(snapshots="7h"), "snapshots must be a duration that divides a day; got '7h'"),
    (lambda: view(snapshots="daily"), "snapshots: a duration must look like"),
    (
        lambda: view(source=source(schema=Timed, event_id=None), entity=Entity("timestamp")),
        "a join key may not be called 'timestamp': that is a row's instant",
    ),
    (lambda: label(name="a b"), "label source 'a b' (test_definitions.py:"),
    (lambda: label(source="purchases"), "source must be an EventSource; got 'purchases'"),
    (lambda: label(owners=["bob"]), "owners must be e-mail addresses or 'team:<name>'; got 'bob'"),
    (lambda: label(join_keys="user"), "join_keys must be a list of different column names; got 'user'"),
    (lambda: label(join_keys=[]), "join_keys must be a list of different column names; got []"),
    (
        lambda: label(join_keys=["amount"]),
        "join key 'amount' must be a non-null string, integer or boolean; got 'nullable Float64'",
    ),
    (lambda: label(labels=["amount", "amount"]), "labels must be a list of different column names"),
    (lambda: label(labels=["amuont"]), "labels: unknown column 'amuont' of 'purchases'. Did you mean 'amount'?"),
    (lambda: label(source=source(schema=Mature), labels=["mature"]), "labels: 'mature' is the platform's own word"),
    (lambda: label(horizon="tomorrow"), "horizon: a duration must look like"),
    (lambda: label(horizon="0s"), "horizon: a duration must be longer than nothing"),
    (lambda: Spine("purchases"), "Spine (test_definitions.py:"),  # type: ignore[arg-type]
    (lambda: Spine(PURCHASES, where=pl.col("amonut") > 1), "where: unknown column 'amonut'. Did you mean 'amount'?"),
    (lambda: Spine(PURCHASES, where=pl.col("amount").shift() > 1), "where must be row by row"),
    (lambda: Spine(PURCHASES, where=pl.col("amount")), "where must be boolean; got 'Float64'"),
    (lambda: Spine(PURCHASES, where=True), "where must be a Polars expression"),  # type: ignore[arg-type]
    (lambda: Spine(PURCHASES, labels=label()), "labels must be a list of label sources"),  # type: ignore[arg-type]
    (lambda: Spine(PURCHASES, labels=["bought"]), "labels must be label sources; got 'bought'"),  # type: ignore[list-item]
    (lambda: Spine(PURCHASES, labels=[label(), label()]), "labels must be label sources of different names"),
    (
        lambda: Spine(VISITS, labels=[label()]),
        "labels: 'bought': the spine's source 'visits' has no join key 'user'. Did you mean 'usr'?",
    ),
    (
        lambda: Spine(VISITS, labels=[label(join_keys=["shop"])]),
        "join key 'shop' of source 'visits' must be an integer; got 'a string'",
    ),
    (lambda: service(training=PURCHASES), "training must be a Spine; got EventSource"),
    (
        lambda: service(training=Spine(VISITS)),
        "training: the spine's source 'visits' has no join key 'user'. Did you mean 'usr'?",
    ),
    (
        lambda: service(
            training=Spine(PURCHASES, labels=[label(name="user_purchases", source=NAMED, labels=["count_1h"])])
        ),
        "training: 'user_purchases__count_1h' is both a feature and a label",
    ),
    (lambda: service().spine(), "service 'fraud' has no training=Spine(...)"),
    (lambda: view(features=[Count(windows=["99999999999999999999d"])]), "a duration may be 36500d at most; got '9999"),
    (lambda: view(ttl="9" * 5_000 + "d"), "ttl: a duration may be 36500d at most; got '9999"),
    (
        lambda: view(features=[Count(windows=[Window("18000d", offset="251d")])]),
        "windows of 18250d at most, offset included ('lifetime' has no edge); got '18000d_offset_251d'",
    ),
    (lambda: view(features=[Count(windows=3)]), "count: windows must be a list such as ['1h', '24h']; got 3"),  # type: ignore[arg-type]
    (lambda: view(features=[Sum("amount", windows=["1h"], name="")]), "feature ''"),
    (lambda: view(features=[Sum("amount", windows=["1h"], name=0)]), "sum: name must be a string; got 0"),  # type: ignore[arg-type]
    (lambda: view(features=[Sum(["amount"], windows=["1h"])]), "sum: column must be a column's name; got ['amount']"),  # type: ignore[arg-type]
    (lambda: view(features=[LastN("amount", n=[3], windows=["1h"])]), "n must be an integer from 1 to 100; got [3]"),  # type: ignore[arg-type]
    (lambda: view(features=Count(windows=["1h"])), "features must be a list of aggregates; got Aggregation"),
    (lambda: view(derive=[pl.col("amount")]), "derive must be a mapping of names to Polars expressions; got ["),
    (lambda: view(ladder=60), "ladder must be a list of durations, finest first; got 60"),
    (lambda: view(owners="bob@example.com"), "owners must be a list of e-mail addresses or 'team:<name>'; got 'bob"),
    (lambda: view()[[1]], "[...] must be the name of a feature, or a list of some; got 1"),  # type: ignore[list-item]
    (lambda: FeatureService("s", features=view()), "features must be a list of views or selections of them; got "),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("define", "words"), WRONG, ids=[words for _, words in WRONG])
def test_an_error_says_what_was_expected_and_got(define: Callable[[], object], words: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        define()
    assert words in str(caught.value)


def test_selecting_what_is_not_there_names_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError, match=r"no feature 'cuont_1h' in view 'user_purchases'\. Did you mean 'count_1h'\?"
    ):
        view()["cuont_1h"]


def test_parameters_are_in_names_only_where_they_say_what_a_list_holds() -> None:
    lists = [LastN("amount", n=n, windows=["1h"]) for n in (2, 5)]
    found = view(features=[*lists, DecayedSum("amount", half_life="2h", windows=["1h"]), DecayedCount("1h", ["1d"])])
    assert list(found.resolved) == [
        "amount_last_2_1h",
        "amount_last_5_1h",
        "amount_decayed_sum_1h",
        "decayed_count_1d",
    ]


def test_a_half_life_means_the_same_however_it_is_written() -> None:
    one, other, another = (
        compile_view(view(features=[DecayedCount(half_life=life, windows=["1d"])])).fingerprint
        for life in ("60m", "1h", "2h")
    )
    assert one == other != another


class TestFingerprint:
    def test_is_of_meaning_not_of_form(self) -> None:
        one = view(description="one", freshness="1s", tags={"a": "b"})
        other = view(features=[Mean("amount", windows=["7d", "1h"]), Count(windows=["24h", "1h"])], salts=1)
        assert compile_view(one).fingerprint == compile_view(other).fingerprint

    @pytest.mark.parametrize(
        "changes",
        [
            {"features": [Count(windows=["1h"])]},
            {"where": pl.col("amount") > 1},
            {"derive": {"x": pl.col("amount") * 2}},
            {"tail": "exact"},
            {"ladder": ["1m", "1h"]},
            {"source": source(lateness="16m")},
            {"entity": Entity("shop")},
            {"name": "other"},
            {"salts": 2},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_changes_with_the_meaning(self, changes: dict[str, object]) -> None:
        assert compile_view(view(**changes)).fingerprint != compile_view(view()).fingerprint

    def test_tells_constants_apart(self) -> None:
        prints = {
            compile_view(view(where=pl.col("user").is_in(users))).fingerprint for users in (["a"], ["b"], ["a", "b"])
        }
        assert len(prints) == 3

    def test_refuses_python_in_expressions(self) -> None:
        called = pl.col("items").map_elements(lambda x: hash(x) % 2 == 0, return_dtype=pl.Boolean)
        with pytest.raises(DefinitionError, match="where may not call Python functions"):
            view(where=called)

    def test_is_the_same_in_every_process(self) -> None:
        """A Python set of strings has another order in each."""
        code = (
            "import sys; sys.path.insert(0, '.')\n"
            "import polars as pl\n"
            "from rtml.define.expression import meaning\n"
            "print(meaning('x', pl.col('user').is_in({'AA', 'UA', 'B6', 'DL'})))"
        )
        said = {
            subprocess.run(
                [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
            ).stdout
            for seed in ("1", "2", "3")
        }
        assert len(said) == 1


def test_a_cast_that_does_not_fit_gives_null_and_stops_nothing() -> None:
    made = view(derive={"small": pl.col("items").cast(pl.Int8)}, features=[Sum("small", windows=["1h"])])
    frame = pl.DataFrame({"items": [1, 1000]})
    assert frame.select(made.derive["small"])["items"].to_list() == [1, None]


class TestRegistry:
    def test_holds_what_services_and_views_refer_to(self) -> None:
        registry = Registry.of([FeatureService("fraud", features=[view()]), 3, "x"])
        assert list(registry.sources) == ["purchases"]
        assert list(registry.entities) == ["user"]
        assert registry.view("user_purchases").name == "user_purchases"

    def test_holds_what_training_sets_are_made_of(self) -> None:
        bought = label(source=source(name="sold", stream=RedisStream("sold")))
        registry = Registry.of([service(training=Spine(PURCHASES, labels=[bought]))])
        assert list(registry.sources) == ["purchases", "sold"]
        assert registry.label("bought") is bought
        assert bought.columns == {"bought__amount": pl.Float64, "bought__mature": pl.Boolean}
        with pytest.raises(UnknownNameError, match=r"no label source 'buoght'\. Did you mean 'bought'\?"):
            registry.label("buoght")
        with pytest.raises(DefinitionError, match="two different label source definitions are called 'bought'"):
            Registry.of([label(), label()])

    def test_refuses_two_meanings_of_one_name(self) -> None:
        with pytest.raises(DefinitionError, match="two different view definitions are called 'user_purchases'"):
            Registry.of([view(), view()])

    def test_refuses_an_entity_whose_keys_differ_in_type(self) -> None:
        class Visit(rtml.Event):
            at: rtml.Timestamp
            user: int

        visits = EventSource(name="visits", schema=Visit, timestamp="at", stream=RedisStream("visits"))
        other = StreamFeatureView(name="visits_view", source=visits, entity=USER, features=[Count(windows=["1h"])])
        with pytest.raises(DefinitionError, match="entity 'user' has keys"):
            Registry.of([view(), other])

    def test_offers_the_nearest_name(self) -> None:
        with pytest.raises(UnknownNameError, match=r"no source 'purchase'\. Did you mean 'purchases'\?"):
            Registry.of([view()]).source("purchase")

    def test_loads_a_file_and_a_module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = (
            "import rtml\n"
            "class E(rtml.Event):\n    at: rtml.Timestamp\n    k: str\n"
            "s = rtml.EventSource(name='s', schema=E, timestamp='at', stream=rtml.RedisStream('s'))\n"
        )
        file = tmp_path / "my_definitions.py"
        file.write_text(text)
        assert list(load(str(file)).sources) == ["s"]
        monkeypatch.chdir(tmp_path)
        assert list(load("my_definitions").sources) == ["s"]

    @pytest.mark.parametrize("features", ["no.such.module", "nowhere.py"])
    def test_says_what_it_cannot_load(self, features: str) -> None:
        with pytest.raises(SettingsError, match=r"RTML_FEATURES\): expected an import path or a .py file"):
            load(features)

    def test_refuses_a_module_without_definitions(self, tmp_path: Path) -> None:
        empty = tmp_path / "empty_definitions.py"
        empty.write_text("x = 1\n")
        with pytest.raises(SettingsError, match="defines no EventSource and no view"):
            load(str(empty))


def test_the_exported_names_are_these() -> None:
    assert all(getattr(rtml, name) is not None for name in rtml.__all__)
    assert issubclass(rtml.RtmlError, Exception)
    assert rtml.RtmlError is RtmlError
    with pytest.raises(AttributeError):
        rtml.Meen  # noqa: B018
