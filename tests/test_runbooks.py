"""Whoever is woken finds a page for each alert, and commands in it that exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from rtml.settings import Settings
from rtml_assets.cli import app
from rtml_assets.doctor.finding import ADVICE
from rtml_assets.watch.catalog import CATALOG, Entry

ROOT = Path(__file__).parent.parent
RUNBOOKS = ROOT / "docs/runbooks"
HEADINGS = ["Symptom", "What it means", "How to look", "How to mend", "How to prevent"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ops/README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RTML = typer.main.get_command(app)
UsageError: type[Exception] = next(cls for cls in typer.BadParameter.__mro__ if cls.__name__ == "UsageError")


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
    for line in lines_of_blocks(page.read_text()):
        parse(line)
    for line in commands_in_prose(page.read_text()):
        parse(line, named=True)


def test_what_is_no_command_is_found() -> None:
    for wrong in ("rtml alert", "rtml alerts --hours 1", "rtml get", "rtml quarantine list", "rtml keys remove model"):
        with pytest.raises(UsageError):
            parse(wrong)
    with pytest.raises(UsageError):
        parse("rtml land --until now", named=True)
    text = "`rtml up` and\n\n    $ RTML_PORT=1 rtml serve  # here\n\n```console\n$ rtml get eta | head\n```\n"
    assert sorted(lines_of_blocks(text)) == ["rtml get eta", "rtml serve"]
    assert [*commands_in_prose(text)] == ["rtml up"]


def test_the_doctors_advice_is_of_commands_that_there_are() -> None:
    assert isinstance(RTML, TyperGroup)
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


_FENCED = re.compile(r"^ *```\w*\n(.*?)^ *```", re.M | re.S)
_INDENTED = re.compile(r"^ {4,}\S.*$", re.M)


def lines_of_blocks(text: str) -> Iterator[str]:
    """Yield the lines of blocks that begin with `rtml`, or with settings for it."""
    for line in "\n".join([*_FENCED.findall(text), *_INDENTED.findall(_FENCED.sub("", text))]).splitlines():
        if found := re.match(r"\s*(?:\$ )?(?:\w+=\S+ )*(rtml .*)$", line):
            yield _without_the_shell(found[1])


def commands_in_prose(text: str) -> Iterator[str]:
    """Yield the inline code that begins with `rtml`."""
    for code in re.findall(r"(?<!`)`(?:\w+=\S+ )*(rtml [^`]+)`", _INDENTED.sub("", _FENCED.sub("", text))):
        yield _without_the_shell(code)


def _without_the_shell(line: str) -> str:
    return re.split(r"\s+(?:#|\||>|&&)\s|;", line)[0].strip()


def parse(line: str, *, named: bool = False) -> None:
    """Take a line apart as the command would, without doing anything; one that is just named may lack arguments.

    Raises:
        UsageError: there is no such command or option, or an argument is missing.
    """
    command, words = RTML, shlex.split(line)[1:]
    context = typer.Context(RTML, info_name="rtml")
    while isinstance(command, TyperGroup) and words:
        name, found, words = command.resolve_command(context, words)
        assert found is not None
        command, context = found, typer.Context(found, context, info_name=name)
    if isinstance(command, TyperGroup):
        return
    try:
        command.make_context(context.info_name, words, parent=context.parent)
    except typer.BadParameter as error:
        if not (named and type(error).__name__ == "MissingParameter"):
            raise
