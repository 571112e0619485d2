"""What `rtml get` prints of an entity's values."""

from rich.console import Console

from rtml.instants import BEGINNING
from rtml_assets.runtime.online import _rendered
from serving.features import FeatureVectors


def test_strings_are_shown_as_they_are_and_are_no_markup() -> None:
    vectors = FeatureVectors(
        features=["v__last_3", "v__last", "v__torn", "v__none"],
        rows=[[["shoes", "books"], "[/bold]", "a\x1b[2J", []]],
        status={"v": ["fresh"]},
        at=0,
        watermark=None,
        age_ms=None,
        last_ingested={"v": [BEGINNING]},
    )
    console = Console(width=100, color_system=None, force_terminal=False)
    with console.capture() as shown:
        console.print(_rendered(vectors))
    words = shown.get()
    for expected in ("[shoes, books]", "[/bold]", r"'a\x1b[2J'", "[]"):
        assert expected in words
