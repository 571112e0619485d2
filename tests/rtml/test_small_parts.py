"""Instants, settings, keys and codec."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtml import instants
from rtml.errors import CodecError, InstantError, SettingsError
from rtml.online import codec, keys
from rtml.settings import Settings, load_settings
from rtml.tiles import Tile


class TestInstants:
    @pytest.mark.parametrize(("text", "micros"), [("5m", 300_000_000), ("1h30m", 5_400_000_000), ("250ms", 250_000)])
    def test_durations(self, text: str, micros: int) -> None:
        assert instants.parse_duration(text) == micros

    @given(st.integers(1, 10**15))
    def test_a_duration_reads_back(self, micros: int) -> None:
        assert instants.parse_duration(instants.format_duration(micros)) == micros

    @pytest.mark.parametrize("text", ["", "5", "m", "-5m", "5 m", "1y", None, 5])
    def test_what_is_no_duration(self, text: str) -> None:
        with pytest.raises(InstantError):
            instants.parse_duration(text)

    @pytest.mark.parametrize(
        "value",
        [
            "2013-01-01T00:00:00Z",
            "2013-01-01",
            "2012-12-31T19:00:00-05:00",
            date(2013, 1, 1),
            datetime(2013, 1, 1, tzinfo=UTC),
        ],
    )
    def test_the_same_instant_in_many_forms(self, value: object) -> None:
        assert instants.to_instant(value) == 1_356_998_400_000_000

    @pytest.mark.parametrize("value", ["2013-01-01T00:00:00", datetime(2013, 1, 1), "noon", None, 1.5, True])
    def test_a_naive_timestamp_is_an_error(self, value: object) -> None:
        with pytest.raises(InstantError):
            instants.to_instant(value)

    @given(st.datetimes(min_value=datetime(1, 1, 1), max_value=datetime(9999, 1, 1), timezones=st.just(UTC)))
    def test_datetimes_read_back_to_the_microsecond(self, moment: datetime) -> None:
        assert instants.to_datetime(instants.to_instant(moment)) == moment

    def test_the_beginning_is_never(self) -> None:
        assert instants.to_text(instants.BEGINNING) == "never"


class TestSettings:
    def test_environment_beats_file_beats_run(self, tmp_path: Path) -> None:
        (tmp_path / "rtml.toml").write_text('port = 1\nfeatures = "f.py"\n')
        (tmp_path / ".rtml").mkdir()
        (tmp_path / ".rtml" / "run.json").write_text('{"redis_url": "redis://x", "port": 3}')
        settings = load_settings({"RTML_PORT": "2", "RTML_ACCEPT_STAMPS": "true", "HOME": "x"}, tmp_path)
        assert (settings.port, settings.features, settings.redis_url) == (2, "f.py", "redis://x")
        assert settings.accept_stamps

    def test_settings_travel_to_a_child_process(self, tmp_path: Path) -> None:
        settings = Settings(accept_stamps=True, batch=7, home=str(tmp_path))
        assert load_settings(settings.environment(), tmp_path) == settings

    def test_an_unknown_name_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(
            SettingsError, match=r"unknown setting 'RTML_PROT' in the environment\. Did you mean 'port'\?"
        ):
            load_settings({"RTML_PROT": "1"}, tmp_path)

    @pytest.mark.parametrize(
        "environment", [{"RTML_PORT": "many"}, {"RTML_TILE_EPOCH": "often"}, {"RTML_FEATURES": ""}]
    )
    def test_a_wrong_value_is_an_error(self, environment: dict[str, str], tmp_path: Path) -> None:
        with pytest.raises((SettingsError, InstantError)):
            load_settings(environment, tmp_path)


class TestKeys:
    @given(st.lists(st.text(), min_size=2, max_size=2, unique=True))
    def test_different_values_have_different_keys(self, values: list[str]) -> None:
        one, other = (keys.entity_tag("e", [value]) for value in values)
        assert one != other

    @given(st.text(), st.text())
    def test_an_entity_is_one_hash_tag(self, one: str, other: str) -> None:
        tag = keys.entity_tag("e", [one, other])
        inside = tag.removeprefix("rtml:{").removesuffix("}")
        assert tag == f"rtml:{{{inside}}}"
        assert "{" not in inside
        assert "}" not in inside
        assert inside.count("|") == 2
        assert len(inside) <= 2 * (keys.LONGEST_PART + 1) + 1

    @given(st.lists(st.text(), min_size=2, max_size=4), st.integers(0, 63))
    def test_a_partial_state_is_no_entity_and_knows_whose_it_is(self, values: list[str], salt: int) -> None:
        tag = keys.entity_tag("e", values)
        partial = keys.salted(tag, salt)
        assert (keys.parted(partial), keys.parted(tag)) == ((tag, salt), (tag, 0))
        assert re.fullmatch(r"rtml:\{[^{}]*\|\+[0-9]+\}", partial)
        assert "+" not in keys.entity_tag("e", [*values[:-1], f"+{salt}"])
        assert keys.is_probe(keys.salted(keys.entity_tag("e", [keys.PROBES["str"]]), salt))

    def test_types_of_keys(self) -> None:
        assert keys.entity_tag("e", [5, True, "a b"]) == "rtml:{e|5|true|a%20b}"


class TestCodec:
    def test_a_header_reads_back(self) -> None:
        header = codec.Header(7, -5, 2**60, 3)
        assert codec.Header.decode(header.encode()) == header

    def test_another_codec_is_an_error(self) -> None:
        with pytest.raises(CodecError):
            codec.Header.decode(b"\x09" + codec.Header().encode()[1:])

    @given(st.integers(0, 255), st.integers(0, 2**32 - 1))
    def test_field_names_read_back(self, level: int, index: int) -> None:
        assert codec.unfield(codec.field(Tile(level, index))) == (level, index)

    def test_a_state_says_how_many_raw_records_it_stands_for(self) -> None:
        value = codec.state_value(70_000, b"packed")
        assert codec.raw_count(value) == 70_000
        assert value[codec.PREFIX :] == b"packed"
        assert value[0] == codec.STATE
        assert np.frombuffer(value, dtype="u1")[0] == ord("S")
