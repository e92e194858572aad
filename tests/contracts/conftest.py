"""Tiny worlds, and runs that tests of the contracts share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from contracts.table import block
from host.conftest import data, llm, run_host, tied_llm  # noqa: F401  # fixtures
from host.world import export_config, train_config

BIN = Path(sys.executable).parent
STEPS = 4


@pytest.fixture(scope="session")
def bases(llm: Path, tied_llm: Path, run_host: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Units bases, by whether input and output embeddings are one matrix."""
    folders = {}
    for tied, model in ((False, llm), (True, tied_llm)):
        folders[tied] = tmp_path_factory.mktemp("bases") / ("tied" if tied else "untied")
        run_host(export_config(model, folders[tied]))
    return folders


@pytest.fixture(scope="session")
def configuration(
    bases: dict[bool, Path],
    data: Path,
    run_host: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., dict[str, Any]]:
    """Make a host configuration of four steps from the choices of a row of :mod:`contracts.covering`.

    With a ``lora_scale`` the stage goes on from an adapter of the same world, discounted by that factor.
    """
    earlier: dict[tuple[bool, str], Path] = {}

    def make(
        output: Path,
        tied: bool,
        train_units: str,
        choices: dict[str, Any],
        lora_scale: float | None = None,
        **changes: Any,
    ) -> dict[str, Any]:
        changes = {"max_steps": STEPS, "lr_scheduler_type": "linear", **changes}
        slm = block(choices, train_units)
        if lora_scale is not None:
            if (tied, train_units) not in earlier:
                earlier[tied, train_units] = tmp_path_factory.mktemp("earlier")
                run_host(make(earlier[tied, train_units], tied, train_units, {}))
            changes["adapter_name_or_path"] = str(earlier[tied, train_units])
            slm |= {"lora_scale": lora_scale, "scaled_modules": "interpolate"}
        found = train_config(bases[tied], data, output, stage="tts", slm=slm, **changes)
        return found | {"stage": "sft", "lora_target": "q_proj,v_proj,down_proj"}

    return make


@pytest.fixture(scope="session")
def on_two_processes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[dict[str, Any]]], None]:
    """Run configurations on two processes, all in one start of them."""

    def run(configurations: list[dict[str, Any]], timeout: int = 300) -> None:
        path = tmp_path_factory.mktemp("two") / "configurations.json"
        path.write_text(json.dumps(configurations), encoding="utf-8")
        script = Path(__file__).with_name("drive.py")
        done = subprocess.run(
            [BIN / "torchrun", "--standalone", "--nproc_per_node", "2", script, path],
            env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    return run


def trained(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of an adapter."""
    return load_file(folder / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Say whether two adapters are equal bit by bit."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Return the largest difference between two adapters' weights."""
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)
