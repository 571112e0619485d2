"""The house itself: its floors, its lock, its declared packages, and what an import may load."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from importlinter.cli import lint_imports
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "requirements.lock").read_text()
LOCKED = {
    canonicalize_name(name): Version(version)
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", LOCK, re.MULTILINE)
}
DECLARED = [
    PROJECT["project"]["dependencies"],
    *PROJECT["project"]["optional-dependencies"].values(),
    PROJECT["build-system"]["requires"],
]
REQUIREMENTS = sorted({line for lines in DECLARED for line in lines})
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `statement`."""
    code = f"{statement}; import json, sys; print(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout.splitlines()[-1]))


def test_the_floors_hold(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT))
    # It would silence every logger of this process, and with them the tests that read the log.
    monkeypatch.setattr("logging.config.dictConfig", lambda _: None)
    exit_code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True, no_logo=True)
    assert exit_code == 0, capsys.readouterr().out


def test_every_room_stands_on_a_floor():
    lint = PROJECT["tool"]["importlinter"]
    floors = next(contract for contract in lint["contracts"] if contract["id"] == "floors")
    assert set(PACKAGES) == set(lint["root_packages"]) == {*floors["layers"], "examples"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_declared_package_exists(package):
    assert (ROOT / package / "__init__.py").is_file()


@pytest.mark.parametrize(
    "trace",
    [
        r"://",
        r"\bfile:",
        r"(?:^|\s)~?/\w",
        r"^\s*--?(?:i|f|index|extra|find|trusted)",
        r" @ ",
        r"\blocalhost\b",
    ],
)
def test_the_lock_names_no_host_and_no_path(trace):
    assert re.findall(rf".*{trace}.*", LOCK, re.MULTILINE) == []


def test_every_locked_package_has_a_hash():
    entries = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    assert len(entries) == len(LOCKED)
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize("line", REQUIREMENTS)
def test_every_requirement_is_locked(line):
    requirement = Requirement(line)
    name = canonicalize_name(requirement.name)
    assert name in LOCKED, f"{line!r} is not in requirements.lock: run `make lock`"
    assert requirement.specifier.contains(LOCKED[name]), f"{line!r}, but {LOCKED[name]} is locked"


def test_the_workspace_names_the_definitions():
    workspace = (ROOT / "workspace.yaml").read_text()
    assert re.search(r"^\s*module_name: rtml_assets\.definitions$", workspace, re.MULTILINE)
    assert re.search(r"^\s*location_name: rtml$", workspace, re.MULTILINE)


def test_the_command_is_installed():
    (command,) = entry_points(group="console_scripts", name="rtml")
    assert command.value == PROJECT["project"]["scripts"]["rtml"]
    assert callable(command.load())


def test_rtml_assets_imports_nothing():
    extra = loaded_by("import rtml_assets") - loaded_by("pass")
    assert extra == {"rtml_assets"}


def test_serving_loads_only_what_it_needs():
    foreign = {"dagster", "great_expectations", "bytewax"}
    assert loaded_by("import serving.app") & foreign == set()


@pytest.mark.parametrize("statement", ["import rtml", "import rtml.plan, rtml.answer, rtml.registry"])
def test_the_language_loads_no_engine(statement):
    engines = {"dagster", "great_expectations", "bytewax", "deltalake", "redis"}
    assert loaded_by(statement) & engines == set()


CODE = sorted(file for package in [*PACKAGES, "benchmarks"] for file in (ROOT / package).rglob("*.py"))


def test_nothing_of_ours_reads_pickles():
    """They run what they are given: nothing that crosses a process boundary may be one."""
    pattern = re.compile(r"^\s*(?:import|from)\s+(?:pickle|cloudpickle|dill|marshal|shelve|joblib)\b", re.MULTILINE)
    assert [str(file.relative_to(ROOT)) for file in CODE if pattern.search(file.read_text())] == []
    for call in ("read_pickle", "allow_pickle=True", "FilesystemIOManager", "torch.load"):
        assert [str(file.relative_to(ROOT)) for file in CODE if call in file.read_text()] == []


def test_redis_is_reached_by_the_settings_and_by_one_function():
    """Who connects by the URL alone forgets the user, the password and the certificates."""
    makers = "connect|connect_reader|RedisReader|FeatureClient|Arrivals|DeploymentWatch|redis_answers"
    by_url = re.compile(rf"\b(?:{makers})\([^)]*\.redis_url\b")
    own = re.compile(r"\bredis\.Redis\(|Redis\.from_url\(|StrictRedis\(|\bfrom_url\(")
    allowed = {"streaming/broker.py", "serving/redis_io.py", "rtml_assets/runtime/redis_server.py"}
    found = {str(file.relative_to(ROOT)): file.read_text() for file in CODE}
    assert [name for name, text in found.items() if by_url.search(text)] == []
    assert {name for name, text in found.items() if own.search(text)} <= allowed


def test_a_url_of_redis_is_shown_without_its_password():
    shown = re.compile(r"\{[^{}]*settings\.redis_url[^{}]*\}")
    assert [str(file.relative_to(ROOT)) for file in CODE if shown.search(file.read_text())] == []
