"""Small random models on disk for merges without the host."""

from __future__ import annotations

import pytest

from slm_plugin.merge.plan import parse_merge
from slm_plugin.merge.run import merge
from tiny_models import make_model


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A base and three models of the same kind."""
    folder = tmp_path_factory.mktemp("models")
    return [make_model(folder / name, seed=seed) for seed, name in enumerate(("base", "a", "b", "c"))]


@pytest.fixture
def run_merge(registry, tmp_path):
    """Merge by a block into a folder of its own; return that folder."""

    def run(block, name="merged", max_shard_bytes=None):
        return merge(parse_merge(block, registry, "slm.merge"), tmp_path / name, max_shard_bytes).folder

    return run


def members(folders, weights=(0.5, 0.3, 0.2), **options):
    """Return the ``models`` key for folders and weights."""
    return [
        {"model": str(folder), "weight": weight, **options} for folder, weight in zip(folders, weights, strict=False)
    ]
