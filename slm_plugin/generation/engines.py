"""Which engine writes: transformers in this process, or vLLM in a child process."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Literal

from slm_plugin.generation.model import load_model
from slm_plugin.generation.protocol import Engine
from slm_plugin.generation.transformers_engine import BATCH, TransformersEngine
from slm_plugin.generation.vllm_engine import VllmEngine

EngineName = Literal["auto", "vllm", "transformers"]


def make_engine(name: EngineName, model: Path, adapter: Path | None, batch: int = BATCH) -> Engine:
    """Start an engine on a model and adapter; ``auto`` is vLLM where it and a GPU are there.

    Args:
        name: Which engine.
        model: Folder of the model.
        adapter: Folder of an adapter on it; None for the model itself.
        batch: Prompts per batch of transformers; vLLM fills its batches itself.

    Raises:
        WeightsError: The model cannot be loaded.
        EngineError: vLLM is not installed or does not start.
    """
    if name == "auto":
        import torch

        has_vllm = importlib.util.find_spec("vllm") is not None
        name = "vllm" if has_vllm and torch.cuda.is_available() else "transformers"
    if name == "vllm":
        return VllmEngine(model, adapter)
    return TransformersEngine(load_model(model, adapter), batch)
