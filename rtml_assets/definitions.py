"""What Dagster loads: the assets of the project that the settings of this process name."""

from __future__ import annotations

from rtml.registry import load
from rtml.secrets import mask_logs
from rtml.settings import load_settings
from rtml_assets.defs.build import definitions_of
from rtml_assets.defs.deployment import Deployment

settings = load_settings()
mask_logs(settings.secrets)
defs = definitions_of(Deployment(settings, load(settings.features)))
