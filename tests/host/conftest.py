"""Tiny models, data and units bases that the host tests share."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from host.world import export_config, write_data
from tiny_models import make_model


@pytest.fixture(scope="session")
def run_host() -> Callable[[dict[str, Any]], None]:
    """Run a host configuration in this process, as ``llamafactory-cli train|export`` would."""
    import torch
    from llamafactory.train.tuner import export_model, run_exp

    torch.set_num_threads(1)
    # as at every module's start: the imports above are most of what lives
    gc.collect()
    gc.freeze()

    def run(config: dict[str, Any]) -> None:
        (export_model if "export_dir" in config else run_exp)(copy.deepcopy(config))

    return run


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text LLM without units, input and output embeddings apart."""
    return make_model(tmp_path_factory.mktemp("models") / "untied")


@pytest.fixture(scope="session")
def tied_llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text LLM without units whose output embeddings are its input embeddings."""
    return make_model(tmp_path_factory.mktemp("models") / "tied", tie=True)


@pytest.fixture(scope="session")
def units_base(
    llm: Path, run_host: Callable[[dict[str, Any]], None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("bases") / "untied"
    run_host(export_config(llm, folder))
    return folder


@pytest.fixture
def slm_log(monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """Collect what the plugin tells the person who runs the host."""
    from slm_plugin.host import replay, runtime, tokenised

    lines: list[str] = []
    for module in (runtime, replay.runtime, tokenised.runtime):
        monkeypatch.setattr(module, "say", lines.append)
    return lambda: "\n".join(lines)


@pytest.fixture
def seen_rows(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Record the ids of every row that training looks at, in order."""
    from llamafactory.train.sft import workflow

    from slm_plugin.host import trainer

    rows: list[tuple[int, ...]] = []
    hooked = trainer.with_hooks(workflow.CustomSeq2SeqTrainer.__mro__[1])
    plain = hooked.compute_loss

    def compute_loss(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        rows.extend(tuple(ids[ids != self.processing_class.pad_token_id].tolist()) for ids in inputs["input_ids"])
        return plain(self, model, inputs, *args, **kwargs)

    hooked.compute_loss = compute_loss
    monkeypatch.setattr(workflow, "CustomSeq2SeqTrainer", hooked)
    return rows
