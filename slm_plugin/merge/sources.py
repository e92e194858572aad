"""The models of a merge, opened and compared before any work starts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slm_plugin import card
from slm_plugin.adapters.check import require_same_fingerprint
from slm_plugin.adapters.folded import FoldedCheckpoint
from slm_plugin.adapters.lora import CONFIG_FILE, LoraAdapter
from slm_plugin.errors import SlmError, WeightsError
from slm_plugin.generation import chat_form
from slm_plugin.merge.plan import MergePlan
from slm_plugin.weights.checkpoint import Checkpoint, WeightSource, count_not_finite

ARCHITECTURE_KEYS = (
    "model_type",
    "architectures",
    "tie_word_embeddings",
    "hidden_size",
    "d_model",
    "intermediate_size",
    "num_hidden_layers",
    "encoder_layers",
    "decoder_layers",
    "num_attention_heads",
    "encoder_attention_heads",
    "decoder_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
)
"""Keys of ``config.json`` that must agree where both models have them."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")


@dataclass(frozen=True)
class Source:
    """A model that is read in a merge.

    Attributes:
        path: As named in the configuration.
        weights: Its weights, an adapter folded in.
        model: Folder with its ``config.json``; for an adapter that of its base.
        config: The content of ``config.json``.
        tokenizer: Folder with its tokenizer; None where it has none.
        full: Weights without the adapter: the base's, or its own.
        adapter: The adapter; None for a full model.
    """

    path: Path
    weights: WeightSource
    model: Path
    config: Mapping[str, Any]
    tokenizer: Path | None
    full: Checkpoint
    adapter: LoraAdapter | None = None

    def tensor(self, name: str) -> torch.Tensor:
        """Read a tensor, of the shape and type that ``weights`` gives it.

        Raises:
            WeightsError: It cannot be read, or holds values that are not finite.
        """
        found = self.weights.tensor(name)
        require_finite(found, name, self.full.file(name) if self.adapter is None else self.path)
        return found


def require_finite(tensor: torch.Tensor, name: str, where: Path) -> None:
    """Refuse infinite values and NaN in a tensor of any shape.

    Raises:
        WeightsError: Names the file and the tensor.
    """
    n_bad = count_not_finite(tensor)
    if n_bad:
        raise WeightsError(f"{where}: the tensor {name!r} holds {n_bad} value(s) that are not finite.")


@dataclass(frozen=True)
class Sources:
    """The opened models of a merge.

    Attributes:
        members: One for each member, in order.
        base: The base where the method works on differences from it; None otherwise.
    """

    members: tuple[Source, ...]
    base: Source | None

    @property
    def all(self) -> tuple[Source, ...]:
        """The base where there is one, then the members."""
        return (*((self.base,) if self.base else ()), *self.members)


def open_sources(plan: MergePlan) -> Sources:
    """Open every model of a plan, and compare architectures.

    Raises:
        WeightsError: One or more models are missing, damaged, of another architecture or, for adapters, of
            another base; all of them are listed.
    """
    problems: list[str] = []
    opened: dict[Path, Checkpoint] = {}
    base: Source | None = None
    if plan.base_model is not None:
        base = _try_open(plan.base_model, None, opened, problems)
        if base is not None and base.adapter is not None:
            problems.append(f"{plan.base_model} is an adapter; base_model must be a full model.")
    members = [_try_open(member.model, plan.base_model, opened, problems) for member in plan.members]
    found = [source for source in members if source is not None]
    uses_base = base is not None and getattr(plan.method, "uses_base", plan.method.needs_base)
    compared = [*([base] if base is not None and uses_base else []), *found]
    for source in compared[1:]:
        problems += _differences(compared[0], source)
    other_form = chat_form.differing({str(source.path): source.path for source in found})
    problems += [other_form] if other_form else []
    fail(problems)
    return Sources(tuple(found), base if uses_base else None)


def fail(problems: Sequence[str]) -> None:
    """Raise all problems as one error; nothing where there are none.

    Raises:
        WeightsError: There are problems.
    """
    unique = list(dict.fromkeys(problems))
    if len(unique) == 1:
        raise WeightsError(unique[0])
    if unique:
        raise WeightsError(f"{len(unique)} problems:\n" + "\n".join(f"  - {text}" for text in unique))


def _try_open(
    path: Path, base_model: Path | None, opened: dict[Path, Checkpoint], problems: list[str]
) -> Source | None:
    try:
        return _open(path, base_model, opened)
    except SlmError as error:
        problems.append(str(error))
        return None


def _open(path: Path, base_model: Path | None, opened: dict[Path, Checkpoint]) -> Source:
    if not (path / CONFIG_FILE).is_file():
        full = _checkpoint(path, opened)
        return Source(path, full, path, read_config(path), _tokenizer(path), full)
    adapter = LoraAdapter(path)
    parent = _parent(adapter, base_model)
    require_same_fingerprint(path, parent)
    full = _checkpoint(parent, opened)
    weights = FoldedCheckpoint(full, adapter)
    tokenizer = _tokenizer(path) or _tokenizer(parent)
    # under the names that the base's files have
    return Source(path, weights, parent, read_config(parent), tokenizer, full, weights.adapter)


def _parent(adapter: LoraAdapter, base_model: Path | None) -> Path:
    """Return the model that an adapter is folded into.

    That is ``base_model``, unless it has another vocabulary, as the text model without units has: then it is
    the base that the adapter names itself.
    """
    own = Path(adapter.base_path)
    if base_model is None:
        if not own.is_dir():
            text = (
                f"the adapter {adapter.folder} was trained on {adapter.base_path!r}, no folder here: set base_model."
            )
            raise WeightsError(text)
        return own
    if own.is_dir() and own.resolve() != base_model.resolve():
        own_vocabulary, other = (_vocabulary(folder) for folder in (own, base_model))
        return own if own_vocabulary != other else base_model
    return base_model


def _vocabulary(folder: Path) -> tuple[Any, Any]:
    """Return the rows of a model's vocabulary and where its units are; a padded matrix has rows for units anyway."""
    config = read_config(folder)
    inner = config.get("text_config")
    units = card.units_of(folder)
    rows = (inner if isinstance(inner, Mapping) else config).get("vocab_size")
    return rows, units and (units["first_id"], units["count"])


def _checkpoint(path: Path, opened: dict[Path, Checkpoint]) -> Checkpoint:
    if path not in opened:
        opened[path] = Checkpoint(path)
    return opened[path]


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of a model's ``config.json``.

    Raises:
        WeightsError: There is none, or it is damaged.
    """
    path = folder / "config.json"
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{folder} has no config.json; a folder as save_pretrained writes it is needed.") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is damaged or cannot be read: {error}.") from None
    return content


def _tokenizer(folder: Path) -> Path | None:
    return folder if any((folder / name).is_file() for name in _TOKENIZER_FILES) else None


def _differences(first: Source, other: Source) -> list[str]:
    """Return what keeps two models from being merged; heights of matrices are looked at elsewhere."""
    both = f"{first.path} and {other.path}"
    for key in ARCHITECTURE_KEYS:
        if key in first.config and key in other.config and first.config[key] != other.config[key]:
            values = f"{first.config[key]!r} and {other.config[key]!r}"
            return [f"{both} are of different architectures: {key} is {values}."]
    names, others = set(first.weights.names()), set(other.weights.names())
    if names != others:
        example = min(names ^ others)
        lacking = other.path if example in names else first.path
        return [f"{both} are of different architectures: {lacking} has no tensor {example!r}."]
    for name in sorted(names):
        shape, other_shape = first.weights.shape(name), other.weights.shape(name)
        if len(shape) != len(other_shape) or shape[1:] != other_shape[1:]:
            return [f"{both} differ in the shape of {name!r}: {shape} and {other_shape}."]
    return []
