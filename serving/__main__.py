"""`python -m serving`: the feature server of the settings."""

from __future__ import annotations

import sys

from rtml.errors import RtmlError
from rtml.settings import load_settings
from serving.run import serve

if __name__ == "__main__":
    try:
        serve(load_settings())
    except RtmlError as error:
        sys.exit(f"{error}")
