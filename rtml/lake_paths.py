"""The lake: where its tables are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lake:
    """The tables under one root, a folder or an object store's URL."""

    root: str

    @property
    def audit(self) -> str:
        """Who did what: keys, promotions, replays, denied requests."""
        return f"{self.root}/audit"

    @property
    def access_keys(self) -> str:
        """Every change of an API key."""
        return f"{self.root}/access/keys"

    def raw(self, source: str) -> str:
        """Every accepted event, at least once."""
        return f"{self.root}/raw/{source}"

    def quarantine(self, source: str) -> str:
        """Every event that the gate refused, or a check holds."""
        return f"{self.root}/quarantine/{source}"

    def decisions(self, source: str) -> str:
        """What was decided of quarantined events."""
        return f"{self.root}/decisions/{source}"

    def events(self, source: str) -> str:
        """Every accepted event once, sorted by time and id64."""
        return f"{self.root}/events/{source}"

    def contracts(self, source: str) -> str:
        """The contracts that a source has had."""
        return f"{self.root}/contracts/{source}"

    def late(self, source: str) -> str:
        """When late events became servable."""
        return f"{self.root}/late/{source}"

    def tiles(self, view: str) -> str:
        """States of every entity, level and tile."""
        return f"{self.root}/tiles/{view}"

    def features(self, view: str) -> str:
        """Values of every entity at chosen instants, for people."""
        return f"{self.root}/features/{view}"

    def served(self, service: str) -> str:
        """What was served, sampled by key."""
        return f"{self.root}/served/{service}"

    @property
    def quality(self) -> str:
        """What checks have to show: pages, for people."""
        return f"{self.root}/quality"

    def training(self, service: str) -> str:
        """Training rows: spine, features, labels."""
        return f"{self.root}/training/{service}"

    def drift(self, service: str) -> str:
        """How far what was served lay from what it was held against, day by day."""
        return f"{self.root}/drift/{service}"
