"""The documentation says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from rtml.registry import load
from rtml.settings import Settings
from rtml_assets.runtime.documented import meanings

ROOT = Path(__file__).parent.parent


def test_the_table_of_settings_is_complete() -> None:
    rows = re.findall(
        r"^\| `RTML_\w+` \| `(\w+)` \| (?:`([^`]*)`)? ?\| (.*) \|$", (ROOT / "docs/settings.md").read_text(), re.M
    )
    assert [name for name, _, _ in rows] == list(Settings.__struct_fields__)
    defaults = Settings()
    for name, default, meaning in rows:
        assert default == str(getattr(defaults, name)).replace("False", "false")
        assert meaning == meanings()[name]


def test_links_lead_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_readmes_feature_is_a_feature(tmp_path: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    file = tmp_path / "readme_features.py"
    file.write_text("import polars as pl\nimport rtml\nfrom rtml import *\n" + code)
    view = load(str(file)).view("origin_departures")
    assert [*view.resolved][:3] == ["count_30m", "count_3h", "count_24h"]
    assert [*view.resolved][3:] == ["dep_delay_mean_3h", "dep_delay_mean_7d", "late_share_3h"]
