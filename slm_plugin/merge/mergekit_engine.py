"""Run a merge in mergekit: models are given to it as plain folders with the rows that all have."""

from __future__ import annotations

import contextlib
import json
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from slm_plugin.errors import SlmError, WeightsError
from slm_plugin.merge.mergekit_methods import require_mergekit
from slm_plugin.merge.mergekit_options import spec_of
from slm_plugin.merge.plan import MergePlan
from slm_plugin.merge.sources import Source, Sources
from slm_plugin.merge.vocabulary import Vocabulary
from slm_plugin.weights.checkpoint import Checkpoint
from slm_plugin.weights.staging import discard, make_partial
from slm_plugin.weights.writer import CheckpointWriter, PlannedTensor


@contextlib.contextmanager
def merged_by_mergekit(
    plan: MergePlan, sources: Sources, vocabulary: Vocabulary, destination: Path
) -> Iterator[Callable[[str, int | None], torch.Tensor]]:
    """Yield a reader of the tensors that mergekit merged; its files are removed behind the block.

    Adapters, and models with further rows, are first written as full models cut to the common rows. The
    arithmetic is in float32 with one rounding.

    Yields:
        What returns the tensor of a name, of the shape that the models have in common and the type of the
        result; its second argument is how many rows it must have, None for any.

    Raises:
        ConfigError: mergekit is not installed.
        WeightsError: mergekit refused the models, or a tensor is not finite.
    """
    require_mergekit("slm.merge.method")
    work = make_partial(destination)
    try:
        folders = {id(s): _plain(s, vocabulary, work / f"model-{n}") for n, s in enumerate(sources.all)}
        first = sources.members[0].weights
        _run(_configuration(plan, sources, folders, _out_dtype(plan, first)), work / "merged", plan.seed)
        result = Checkpoint(work / "merged")

        def merged(name: str, rows: int | None) -> torch.Tensor:
            dtype = getattr(torch, plan.dtype) if plan.dtype else first.dtype(name)
            found = result.tensor(name)
            assert rows is None or len(found) == rows, f"{name}: {len(found)} rows, not {rows}"
            return found.to(dtype)

        yield merged
    finally:
        discard(work)


def _plain(source: Source, vocabulary: Vocabulary, folder: Path) -> Path:
    """Return a folder with a full model of the common rows: the source's own where it is one."""
    rules, weights = vocabulary.rules, source.weights
    cut = any(rule.common != weights.shape(name)[0] for name, rule in rules.items())
    if source.adapter is None and not cut:
        for name in weights.names():
            source.tensor(name)  # refuses values that are not finite
        return source.path
    planned = []
    for name in weights.names():
        shape = (rules[name].common, *weights.shape(name)[1:]) if name in rules else weights.shape(name)
        planned.append(PlannedTensor(name, shape, weights.dtype(name)))
    with CheckpointWriter(folder, planned) as writer:
        for tensor in planned:
            found = source.tensor(tensor.name)
            writer.write(tensor.name, found[: tensor.shape[0]] if tensor.name in rules else found)
    config = dict(source.config)
    if rules:
        config["vocab_size"] = min(rule.common for rule in rules.values())
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _out_dtype(plan: MergePlan, first: Any) -> str:
    if plan.dtype is not None:
        return plan.dtype
    kinds = {first.dtype(name) for name in first.names() if first.dtype(name).is_floating_point}
    widest = max(kinds, key=lambda dtype: dtype.itemsize)
    return str(widest).removeprefix("torch.")


def _configuration(plan: MergePlan, sources: Sources, folders: dict[int, Path], out_dtype: str) -> dict[str, Any]:
    spec = spec_of(plan.method_name)

    def reference(source: Source) -> dict[str, Any]:
        # as a mapping: mergekit splits strings at a plus sign
        return {"model": {"path": str(folders[id(source)])}}

    per_model = {parameter.name for parameter in spec.input_parameters}
    shared = {parameter.name for parameter in spec.shared_parameters}
    found: dict[str, Any] = {
        "merge_method": plan.method_name,
        "models": [
            {"model": reference(source), "parameters": _known(member.options, per_model)}
            for source, member in zip(sources.members, plan.members, strict=True)
        ],
        "parameters": _known(plan.method.options, shared),
        "dtype": "float32",
        "out_dtype": out_dtype,
    }
    if sources.base is not None:
        found["base_model"] = reference(sources.base)
    return found


def _known(options: Any, names: set[str]) -> dict[str, Any]:
    values = options.model_dump(by_alias=True).items()
    return {name: value for name, value in values if name in names and value is not None}


def _run(configuration: dict[str, Any], folder: Path, seed: int) -> None:
    # mergekit seeds the process
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # of mergekit's dependencies, about their own insides
            warnings.simplefilter("ignore")
            from mergekit.config import MergeConfiguration
            from mergekit.merge import MergeOptions, run_merge

            options = MergeOptions(write_model_card=False, quiet=True, random_seed=seed, copy_tokenizer=False)
            run_merge(MergeConfiguration.model_validate(configuration), str(folder), options)
    except (SlmError, OSError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        raise WeightsError(f"mergekit's {configuration['merge_method']} failed: {text}") from error
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
