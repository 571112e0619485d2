"""The table of the benchmarks: verdicts, and rows for what failed."""

from __future__ import annotations

import socket

from benchmarks.report import Section, machine, markdown
from benchmarks.rows import Row, alone, at_most, more, sooner, within


def test_an_aim_is_met_or_missed():
    assert more("load", "/s", 200, 10, 20) == Row("load", "200 /s", "10 /s", "20.00×", "≥ 20×", "met")
    assert more("load", "/s", 199, 10, 20).verdict == "missed"
    assert sooner("call", 0.001, 0.0015, 1.5) == Row("call", "1 ms", "1.5 ms", "1.50×", "≥ 1.5×", "met")
    assert within("p99", 1.2345, 1.0, "3 s") == Row("p99", "1,234 ms", "3 s", "", "≤ 1,000 ms", "missed")
    assert within("p99", 0.0051, 0.005) == Row("p99", "5.1 ms", "", "", "≤ 5 ms", "missed")
    assert at_most("bytes", "10 B", 0.5, 0.5, "20 B") == Row("bytes", "10 B", "20 B", "0.50×", "≤ 0.5×", "met")


def test_what_fails_keeps_its_row(capsys):
    def run() -> list[Row]:
        raise TimeoutError("the flow did not reach it\nand more")

    section = Section.of("http", run)
    assert [row.verdict for row in section.rows] == ["failed: TimeoutError: the flow did not reach it"]
    assert "in run" in capsys.readouterr().err
    assert "**failed: TimeoutError" in markdown({}, [section])


def test_the_page_has_all_rows_and_says_what_machine_it_was_without_its_name():
    rows = [within("p99", 0.0051, 0.005), alone("a | b", "3", "≥ 20×", "there is no uv"), Row("  p50", "1 ms")]
    about = machine()
    page = markdown(about, [Section("http", rows, 1.0, 0.5)])
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 1 + len(rows)
    assert {line.count("|") for line in table} == {7}
    assert "**missed**" in page
    assert "not compared: there is no uv" in page
    assert about["processor"]
    assert about["date"].endswith("UTC")
    assert socket.gethostname() not in page
