"""Which of LLaMA-Factory's stages and trainers accept an ``slm:`` block, and which are refused before any work.

| stage or switch | with a block |
|---|---|
| ``sft`` | everything |
| ``pt`` | rows as continuous text; mitigations and probes are refused |
| ``dpo``, ``rm``, ``kto`` | LLaMA-Factory's own preference sets; mitigations, probes and our formats are refused |
| ``ppo`` | refused |
| :data:`SWITCHES` | refused |
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from slm_plugin.errors import ConfigError, Problem
from slm_plugin.host import runtime

SWITCHES = {
    "use_hyper_parallel": None,
    "use_mca": "USE_MCA",
    "use_megatron_bridge": "USE_MEGATRON_BRIDGE",
}
"""Key that selects a trainer of another package -> environment variable that does the same; None if there is none."""

PREFERENCES = {
    "dpo": "with ranking: true and a chosen and a rejected answer",
    "rm": "with ranking: true and a chosen and a rejected answer",
    "kto": "with a kto_tag column",
}
"""Stage that learns from preferences -> what its data sets look like in ``dataset_info.json``."""

PREFIX = "slm_"
"""Start of the name of every format of ours."""

_TRUE = ("true", "y", "1")


def has_block(raw: Any) -> bool:
    """Tell whether arguments, a mapping or the words of a command line, have an ``slm`` key."""
    if isinstance(raw, Mapping):
        return raw.get("slm") is not None
    return any(word == "--slm" or word.startswith("--slm=") for word in raw or ())


def refuse_other_trainers(raw: Any, where: str) -> None:
    """Refuse switches that lead to a trainer of another package; call it before the host parses the arguments.

    The trainers of those packages do not call the patched functions, so that replay, anchors, the card and
    everything else of the block would be absent without a message.

    Args:
        raw: The host's arguments, a mapping or the words of a command line.
        where: Prefix of every problem.

    Raises:
        ConfigError: Lists every such switch.
    """
    problems = []
    for key, variable in SWITCHES.items():
        name = key if _is_on(raw, key) else f"{variable}=1" if variable and _enabled(variable) else None
        if name is not None:
            text = f"cannot be used with {name}, whose trainer calls none of the hooks of the block."
            problems.append(Problem(where, f"{text} Remove {name}, or remove the slm block."))
    if problems:
        raise ConfigError(problems)


def refusals(model_args: Any, data_args: Any, finetuning_args: Any, units: bool, where: str) -> list[Problem]:
    """Return why a training cannot run with a block, by its stage and the formats of its data sets.

    Args:
        model_args: The host's model arguments.
        data_args: The host's data arguments.
        finetuning_args: The host's finetuning arguments.
        units: Whether the block has a unit vocabulary.
        where: Prefix of every problem.
    """
    stage, found = finetuning_args.stage, []
    if stage == "ppo":
        text = (
            "cannot be used with stage: ppo, which LLaMA-Factory runs with trl 0.8.6 to 0.9.6 only, in an environment"
            " of its own. Train with stage: dpo or kto, or remove the slm block."
        )
        found.append(Problem(where, text))
    if model_args.use_unsloth and units:
        text = "need the LoRA options of train_units, which use_unsloth does not pass on. Set use_unsloth: false."
        found.append(Problem(f"{where}.units", text))
    if stage in PREFERENCES:
        formats = _formats([*(data_args.dataset or []), *(data_args.eval_dataset or [])], data_args.dataset_dir)
        found += [
            Problem(f"{where.removesuffix('slm')}dataset", _one_answer(name, form, stage))
            for name, form in formats.items()
            if form.startswith(PREFIX)
        ]
    return found


def _one_answer(name: str, form: str, stage: str) -> str:
    return (
        f"the data set {name!r} has formatting: {form}, whose rows have one answer each, and stage: {stage} learns"
        f" from preferences. Use a data set of LLaMA-Factory's own form {PREFERENCES[stage]}; its text may hold unit"
        " tokens such as <|17|>."
    )


def refuse_format(form: str, stage: str, name: str) -> None:
    """Refuse a format of ours in a stage that learns from preferences, while its rows are read.

    Raises:
        ConfigError: Names the data set, its format and the stage.
    """
    if stage in PREFERENCES:
        raise ConfigError([Problem("dataset", _one_answer(name, form, stage))])


def patch(arg_parser: Any) -> None:
    """Refuse the block in LLaMA-Factory's second trainer, ``USE_V1=1``, which has none of the patched functions."""
    runtime.show_errors_plainly()
    stock = arg_parser.get_args

    @functools.wraps(stock)
    def get_args(args: Any = None) -> Any:
        if has_block(_raw_arguments() if args is None else args):
            text = "cannot be used with USE_V1=1, whose trainer calls none of the hooks of the block. Unset USE_V1."
            raise ConfigError([Problem("slm", text)])
        return stock(args)

    arg_parser.get_args = get_args


def _raw_arguments() -> Any:
    """Read the arguments of this process's command line as the host does."""
    words = sys.argv[1:]
    if not words or Path(words[0]).suffix not in (".yaml", ".yml", ".json"):
        return words
    path = Path(words[0])
    if path.suffix == ".json":
        config = OmegaConf.create(json.loads(path.read_text(encoding="utf-8")))
    else:
        config = OmegaConf.load(path)
    return OmegaConf.to_container(OmegaConf.merge(config, OmegaConf.from_cli(words[1:])))


def _is_on(raw: Any, key: str) -> bool:
    if isinstance(raw, Mapping):
        return str(raw.get(key, False)).lower() in _TRUE
    words = list(raw or ())
    for position, word in enumerate(words):
        if word.startswith(f"--{key}="):
            return word.partition("=")[2].lower() in _TRUE
        if word == f"--{key}":
            following = words[position + 1] if position + 1 < len(words) else "--"
            return following.startswith("--") or following.lower() in _TRUE
    return False


def _enabled(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in _TRUE


def _formats(names: Sequence[str], folder: Any) -> dict[str, str]:
    """Return the formats of data sets by ``dataset_info.json``; those that it cannot be read for are left out."""
    if isinstance(folder, Mapping):
        info: Any = folder
    else:
        try:
            info = json.loads((Path(str(folder)) / "dataset_info.json").read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            # the host reports a missing file, and a folder named ONLINE is none
            return {}
    return {name: str(info[name].get("formatting", "")) for name in names if isinstance(info.get(name), Mapping)}
