"""A model that knows the small world by heart, trained once."""

from __future__ import annotations

from pathlib import Path

import pytest

from replay_synthesis.world import train_world_model


@pytest.fixture(scope="session")
def world_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_world_model(tmp_path_factory.mktemp("worlds") / "model")
