"""The audit: it only grows, many may write at once, and no secret gets into it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import DeltaError

from rtml import instants
from rtml.access import create_key
from rtml.errors import RequestError, UnknownNameError
from rtml.lake import Lake
from rtml.settings import Settings
from rtml_assets.runtime.audit_table import audit_table
from serving import denied
from serving.denied import Denial, DeniedLog
from streaming import audit


def test_many_writers_lose_nothing_and_nothing_is_taken_back(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))

    def write(number: int) -> None:
        audit.record(lake, action="promote", target=f"s{number}", actor=audit.actor())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(12)))
    rows = audit.read(lake)
    assert sorted(rows["target"]) == sorted(f"s{number}" for number in range(12))
    assert rows["at"].is_sorted()
    assert dict(rows.schema) == audit.AUDIT
    table = DeltaTable(lake.audit)
    assert table.metadata().partition_columns == ["day"]
    with pytest.raises(DeltaError, match="append"):
        table.delete()
    with pytest.raises(DeltaError, match="append"):
        write_deltalake(table, rows, mode="overwrite")
    assert audit.read(lake).height == 12


def test_what_is_refused_is_recorded_too(tmp_path: Path) -> None:
    lake, (key, _) = Lake(str(tmp_path)), create_key("k", ["admin"], 0)
    with audit.audited(lake, "promote", "eta") as words:
        words.append(f"said {key}")
    with pytest.raises(RequestError), audit.audited(lake, "rollback", "eta", "somebody"):
        raise RequestError("never promoted, at redis://u:hidden@h/0")
    with pytest.raises(ZeroDivisionError), audit.audited(lake, "promote", "eta"):
        raise ZeroDivisionError("half way")
    done, refused, failed = audit.read(lake).iter_rows(named=True)
    assert (failed["outcome"], failed["detail"]) == ("failed", "ZeroDivisionError: half way")
    assert (done["outcome"], done["actor"]) == ("done", audit.actor())
    assert (refused["outcome"], refused["actor"]) == ("refused", "somebody")
    assert refused["detail"] == "never promoted, at redis://u:***@h/0"
    assert key not in done["detail"]


def test_it_is_shown_from_an_instant_on_and_by_action(tmp_path: Path) -> None:
    settings = Settings(home=str(tmp_path))
    assert audit_table(settings).row_count == 0
    lake, present = Lake(settings.lake_root), instants.now()
    entries = [("promote", 5 * instants.DAY), ("promote", 2 * instants.HOUR), ("rollback", 0)]
    audit.append(lake, [audit.Entry(present - age, action, "eta", "ann") for action, age in entries])
    for asked, count in [((), 3), (("1d",), 2), ((None, "promote"), 2), (("1d", "promote"), 1)]:
        assert audit_table(settings, *asked).row_count == count
    assert audit_table(settings, instants.to_text(present)).row_count == 1
    with pytest.raises(UnknownNameError, match="Did you mean 'promote'"):
        audit_table(settings, None, "promot")


def test_denials_are_gathered_bounded_and_kept_while_the_lake_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(denied, "MOST_COUNTS", 3)
    home = tmp_path / "lake"
    home.write_text("not a folder")
    log = DeniedLog(Lake(str(home)), now=lambda: 1_700_000_000_000_000)
    for number in range(5):
        for _ in range(number + 1):
            log.count(Denial(f"address {number}", "GET /metrics", 401, "no key"))
    log.flush()
    assert "cannot be written, 4 denials wait" in caplog.text
    log.count(Denial("address 0", "GET /metrics", 401, "no key"))
    home.unlink()
    log.stop()
    rows = {row["actor"]: row["detail"] for row in audit.read(Lake(str(home))).iter_rows(named=True)}
    assert rows == {
        "address 0": "2 requests: no key",
        "address 1": "2 requests: no key",
        "address 2": "3 requests: no key",
        "others": "9 requests: more than can be told apart",
    }
