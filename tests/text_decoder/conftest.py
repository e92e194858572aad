"""One tiny Mllama, and its text decoder, for all tests of a session."""

from __future__ import annotations

from pathlib import Path

import pytest

from host.conftest import data, run_host  # noqa: F401  # fixtures
from slm_plugin.text_decoder.extract import extract_text_decoder
from text_decoder.mllama import make_mllama


@pytest.fixture(scope="session")
def mllama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An Mllama in one file."""
    return make_mllama(tmp_path_factory.mktemp("mllama") / "whole")


@pytest.fixture(scope="session")
def decoder(mllama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its text decoder."""
    return extract_text_decoder(mllama, tmp_path_factory.mktemp("mllama") / "decoder").folder
