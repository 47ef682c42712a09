"""Settings for what only happens when time is short."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowd.config import Settings, ShutdownSettings


@pytest.fixture
def brief_settings(settings: Settings) -> Settings:
    """As `settings`, with a grace period that ends soon."""
    return replace(settings, shutdown=ShutdownSettings(grace_s=0.1))
