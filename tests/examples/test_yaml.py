"""Every YAML under ``examples/`` is parsed by the entry point that would run it."""

from __future__ import annotations

import contextlib
import socket
import sys
from pathlib import Path

import pytest
import yaml

from slm_plugin.experts import plan as experts_plan
from slm_plugin.pipeline import plan
from slm_plugin.plugins import Registry
from slm_plugin.prepare import options as prepare_options
from slm_plugin.strict import parse

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "examples").rglob("*.yaml"))
N_FILES = 93
"""Count them: a glob that finds nothing would pass every test."""


def kind_of(path):
    content = yaml.safe_load(path.read_text())
    if "steps" in content:
        return "pipeline"
    if "experts" in content:
        return "experts"
    if "corpus" in content:
        return "prepare"
    return "export" if "export_dir" in content else "train"


def check_prepare(options, registry):
    """Parse what the file names, as loading the parts would; the parts' own files are not here."""
    for chosen, catalogue in (
        (options.corpus, registry.corpora),
        (options.align, registry.aligners),
        (options.voice, registry.voices),
    ):
        for name, given in (chosen or {}).items():
            parse(catalogue.get(name).Options, given, name)


def test_all_of_them_are_found():
    assert len(FILES) == N_FILES
    assert {kind_of(path) for path in FILES} == {"pipeline", "experts", "export", "train", "prepare"}


@pytest.mark.host
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "examples")))
def test_its_entry_point_accepts_it(path, monkeypatch, tmp_path):
    from llamafactory.hparams import get_infer_args, get_train_args

    from slm_plugin.host import runtime

    # paths in the files are relative to the top of the repository, and earlier runs left adapters there
    for folder in ("examples", "dataset_info"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    # models and data sets of the hub are fetched by a run, never by reading its file
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("a name was looked up"))
    kind = kind_of(path)
    if kind == "pipeline":
        assert plan.load(path, Registry.load()).steps
        return
    if kind == "experts":
        assert experts_plan.load(path).experts
        return
    if kind == "prepare":
        check_prepare(prepare_options.load([str(path)]), Registry.load())
        return
    adapter = yaml.safe_load(path.read_text()).get("adapter_name_or_path")
    if adapter is not None:
        Path(adapter).mkdir(parents=True)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            (Path(adapter) / name).touch()
    # recipes for GPUs are read here by a CPU
    elsewhere = ["bf16=false", "use_cpu=true", "deepspeed=null"] if kind == "train" else []
    monkeypatch.setattr(sys, "argv", ["llamafactory-cli", str(path), *elsewhere])
    block = yaml.safe_load(path.read_text()).get("slm")
    factors = (block or {}).get("lora_scale")
    with contextlib.ExitStack() as last_of_sweep:
        if isinstance(factors, list):
            # the export command reads such a file once for each factor
            last_of_sweep.enter_context(runtime.at_sweep_position(len(factors) - 1))
        (get_train_args if kind == "train" else get_infer_args)()
    active = runtime.active()
    assert (active is None) == (block is None)
    if active is not None and "stage" in block:
        assert active.config.block.stage == block["stage"]
