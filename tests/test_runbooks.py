"""Whoever is woken finds a page for each alert, and commands in it that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from rtml.settings import Settings
from rtml_assets.cli import app
from rtml_assets.doctor.finding import ADVICE
from rtml_assets.watch.catalog import CATALOG, Entry

ROOT = Path(__file__).parent.parent
RUNBOOKS = ROOT / "docs/runbooks"
HEADINGS = ["Symptom", "What it means", "How to look", "How to mend", "How to prevent"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ops/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RTML = typer.main.get_command(app)


def test_every_alert_has_its_page_and_every_page_its_alert() -> None:
    pages = {f"docs/runbooks/{page.name}" for page in RUNBOOKS.glob("*.md")} - {"docs/runbooks/README.md"}
    assert pages == {entry.runbook for entry in CATALOG.values()}


@pytest.mark.parametrize("entry", CATALOG.values(), ids=CATALOG)
def test_a_page_is_named_after_its_alert_and_has_all_parts(entry: Entry) -> None:
    text = (ROOT / entry.runbook).read_text()
    assert re.findall(r"^# (.*)$", text, re.M)[0] == entry.name
    assert re.findall(r"^## (.*)$", text, re.M) == HEADINGS
    parts = re.split(r"^## .*$", text, flags=re.M)[1:]
    assert all(len(part.split()) > 8 for part in parts)


def test_the_index_says_of_every_alert_what_the_catalog_says() -> None:
    rows = re.findall(r"^\| \[(\w+)\]\(([\w-]+\.md)\) \| (\w+) \| (.*) \|$", (RUNBOOKS / "README.md").read_text(), re.M)
    expected = [(one.name, Path(one.runbook).name, one.severity, one.summary) for one in CATALOG.values()]
    assert sorted(rows) == sorted(expected)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_commands(page: Path) -> None:
    for line in command_lines(page.read_text()):
        parsed(line)


def test_what_is_no_command_is_found() -> None:
    for wrong in ("rtml alert", "rtml alerts --hours 1", "rtml get", "rtml quarantine list", "rtml keys remove model"):
        with pytest.raises(click.ClickException):
            parsed(wrong)
    assert [*command_lines("`rtml up` and\n\n    $ RTML_PORT=1 rtml serve  # here\n")] == ["rtml serve", "rtml up"]


def test_the_doctors_advice_is_of_commands_that_there_are() -> None:
    assert isinstance(RTML, click.Group)
    for name, advice in ADVICE.items():
        for command in re.findall(r"(?<![\w.])rtml ([a-z]+)", advice.todo):
            assert command in RTML.commands, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_that_are_named_are_settings(page: Path) -> None:
    known = {f"RTML_{name.upper()}" for name in Settings.__struct_fields__}
    for name in re.findall(r"RTML_[A-Z_]+\*?", page.read_text()):
        if name.endswith("*"):
            assert any(each.startswith(name[:-1]) for each in known), name
        else:
            assert name.removesuffix("_FILE") in known, name


@pytest.mark.parametrize("page", [*RUNBOOKS.glob("*.md")], ids=lambda page: page.name)
def test_links_of_runbooks_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([\w-]+))?\)", page.read_text()):
        there = page.parent / target if target else page
        assert there.exists(), target
        headings = re.findall(r"^#+ (.*)$", there.read_text(), re.M) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}


def command_lines(text: str) -> Iterator[str]:
    """Yield what is typed: lines of blocks that begin with `rtml`, then inline code that does."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    blocks += re.findall(r"^ {4,}\S.*$", prose, re.M)
    for line in "\n".join(blocks).splitlines():
        if found := re.match(r"\s*(?:\$ )?(?:\w+=\S+ )*(rtml .*)$", line):
            yield _without_the_shell(found[1])
    for code in re.findall(r"(?<!`)`(?:\w+=\S+ )*(rtml [^`]+)`", re.sub(r"^ {4,}\S.*$", "", prose, flags=re.M)):
        yield _without_the_shell(code)


def _without_the_shell(line: str) -> str:
    return re.split(r"\s+(?:#|\||>|&&|;)|;", line)[0].strip()


def parsed(line: str) -> None:
    """Take a line apart as the command would, without doing anything; the bare name of a group is none too little."""
    command, words = RTML, shlex.split(line)[1:]
    context = click.Context(RTML, info_name="rtml")
    while isinstance(command, click.Group) and words:
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, click.Context(found, context, info_name=name)
    if not isinstance(command, click.Group):
        command.make_context(context.info_name, words, parent=context.parent)
