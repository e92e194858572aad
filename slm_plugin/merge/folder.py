"""Everything of a merged model but its weights: configuration, tokenizer, processor, generation settings, card."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from slm_plugin import card
from slm_plugin.generation import chat_form
from slm_plugin.merge.plan import MergePlan
from slm_plugin.merge.sources import Source, Sources
from slm_plugin.merge.vocabulary import Vocabulary

_TOKENIZER = ("*token*.json", "*.model", "*.tiktoken", "vocab*", "merges.txt", "normalizer.json", "chat_template*")
_MODEL = ("generation_config.json", "*processor*.json", "*.py")


def write_files(folder: Path, plan: MergePlan, sources: Sources, vocabulary: Vocabulary, dtype: torch.dtype) -> None:
    """Write all that ``from_pretrained`` needs beside the weights, and ``slm.json``."""
    donor = vocabulary.donor
    config = dict(donor.config)
    if vocabulary.height is not None:
        inner = config.get("text_config")
        if isinstance(inner, Mapping):
            config["text_config"] = {**inner, "vocab_size": vocabulary.height}
        if "vocab_size" in config or not isinstance(inner, Mapping):
            config["vocab_size"] = vocabulary.height
    config["torch_dtype" if "torch_dtype" in config else "dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    _copy(donor.model, folder, _MODEL)
    if donor.tokenizer is not None:
        _copy(donor.tokenizer, folder, _TOKENIZER)
    card.write(folder, card_content(plan, sources, donor))


def card_content(plan: MergePlan, sources: Sources, donor: Source) -> dict[str, Any]:
    """Return what ``slm.json`` says of a merged model."""
    base = plan.base_model or sources.members[0].model
    forms = [found for source in sources.members if (found := chat_form.recorded(source.path))]
    return {
        **({chat_form.KEY: forms[0]} if forms else {}),
        "units": None if donor.tokenizer is None else card.units_of(donor.tokenizer),
        "base": {"path": str(base), "fingerprint": card.fingerprint(base)},
        "merge": {
            "method": plan.method_name,
            "engine": plan.engine,
            "options": _dump(plan.method.options),
            "seed": plan.seed,
            "dtype": plan.dtype,
            "members": [
                {
                    "model": str(member.model),
                    "fingerprint": card.fingerprint(member.model),
                    "options": _dump(member.options),
                }
                for member in plan.members
            ],
        },
    }


def _dump(options: Any) -> dict[str, Any]:
    found: dict[str, Any] = options.model_dump(mode="json", by_alias=True)
    return found


def _copy(source: Path, folder: Path, patterns: tuple[str, ...]) -> None:
    for path in sorted({path for pattern in patterns for path in source.glob(pattern) if path.is_file()}):
        shutil.copyfile(path, folder / path.name)
