"""What happens on a host that differs from the one this release was written for."""

from __future__ import annotations

import sys
import types

import pytest

from slm_plugin.errors import HostError
from slm_plugin.host import surface
from slm_plugin.host.activation import patch_for

TUNER = "llamafactory.train.tuner"
PARSER = "llamafactory.hparams.parser"


@pytest.fixture
def other_host(monkeypatch: pytest.MonkeyPatch):
    """A host whose ``export_model`` takes something else and whose ``load_model`` is gone."""
    module = types.ModuleType(TUNER)
    module.export_model = lambda config, device: None
    monkeypatch.setitem(sys.modules, TUNER, module)
    monkeypatch.setattr(surface, "SURFACE", {TUNER: {"export_model": ("args",), "load_model": None}})
    monkeypatch.setattr(surface, "installed_version", lambda: "0.9.9")
    return module


def test_another_signature_is_one_line_that_names_expected_and_found(other_host: types.ModuleType):
    with pytest.raises(HostError) as caught:
        surface.require()
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("this slm_plugin is written for LLaMA-Factory 0.9.5 and 0.9.6.dev0, installed is 0.9.9: ")
    assert f"{TUNER}.export_model takes (config, device), expected (args)" in text
    assert f"{TUNER}.load_model is missing" in text


def test_a_module_that_is_not_loaded_yet_is_not_blamed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(surface, "SURFACE", {"llamafactory.no_such_module": {"f": ("x",)}})
    assert surface.require() is None


def test_a_different_host_is_left_as_it_is(other_host: types.ModuleType):
    before = dict(vars(other_host))
    patch_for(TUNER)(other_host)
    assert vars(other_host) == before


def test_a_different_argument_parser_is_reported_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module = types.ModuleType(PARSER)
    patch_for(PARSER)(module)
    assert not [name for name in vars(module) if not name.startswith("__")]
    said = capsys.readouterr().err
    assert said.startswith("slm_plugin is off: this slm_plugin is written for LLaMA-Factory 0.9.5 and 0.9.6.dev0")
    assert said.count("\n") == 1


def test_modules_of_the_host_that_are_not_patched_are_left_alone():
    assert patch_for("llamafactory.chat.hf_engine") is None


def test_a_host_without_metadata_has_an_unknown_version(monkeypatch: pytest.MonkeyPatch):
    def absent(name: str) -> str:
        raise surface.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(surface.metadata, "version", absent)
    assert surface.installed_version() == "unknown"
