"""Which rows of embeddings and head come from which models, when vocabularies differ in size.

A model *has* the rows of its tokenizer, not of its padded matrix. Rows that all have are merged like any
other tensor. Later rows, such as units, are the average of the members that have them, by their weights;
the padding behind the last token, and the tokenizer, are those of the model with the largest vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slm_plugin.errors import WeightsError
from slm_plugin.merge.arithmetic import weighted_sum
from slm_plugin.merge.sources import Source, Sources, fail


@dataclass(frozen=True)
class RowRule:
    """The rows of one matrix of the vocabulary.

    Attributes:
        common: How many first rows all models have.
        height: Rows of the result.
        bands: For each run of later rows: first, end, and number and factor of the models that give it.
    """

    common: int
    height: int
    bands: tuple[tuple[int, int, tuple[tuple[int, float], ...]], ...]

    def attach(self, merged: torch.Tensor, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the merged common rows with the later rows behind them.

        Args:
            merged: The first ``common`` rows, ``(common, width)``; ``(common,)`` where each row is one number.
            tensors: The whole matrix of each model, ``(rows, width)`` or ``(rows,)``, in the order of ``Sources.all``.

        Returns:
            ``(height, width)``, or ``(height,)``, of the type of ``merged``.
        """
        parts = [merged]
        for start, end, givers in self.bands:
            rows = [tensors[number][start:end] for number, _ in givers]
            parts.append(weighted_sum(rows, [factor for _, factor in givers], merged.dtype))
        return torch.cat(parts)


@dataclass(frozen=True)
class Vocabulary:
    """What is done with the vocabulary of a merge.

    Attributes:
        donor: The model whose tokenizer, configuration and padding are taken.
        rules: By name of tensor; empty where all models have the same vocabulary.
        height: Rows of the vocabulary in ``config.json``; None leaves it as the donor has it.
    """

    donor: Source
    rules: Mapping[str, RowRule]
    height: int | None


def plan_vocabulary(sources: Sources, weights: Sequence[float]) -> Vocabulary:
    """Compare the vocabularies of all models.

    Args:
        sources: The models.
        weights: Weight of each member in rows that not all have.

    Raises:
        WeightsError: Tokenizers give one id to different tokens, or tensors that are no part of the
            vocabulary differ in shape.
    """
    models = sources.all
    tokens = _token_counts(models)
    order = [*range(len(models) - len(sources.members), len(models)), *([0] if sources.base else [])]
    sized = [number for number in order if tokens[number] is not None]
    donor_number = max(sized, key=lambda number: tokens[number] or 0) if sized else order[0]
    donor = models[donor_number]
    uneven = {name for name in donor.weights.names() if len({s.weights.shape(name)[:1] for s in models}) > 1}
    if not uneven and len({tokens[number] for number in sized}) <= 1:
        return Vocabulary(donor, {}, None)
    vocabulary_names = _vocabulary_tensors(donor) & set(donor.weights.names())
    of_own_height = {
        name for name in uneven if all(s.weights.shape(name)[0] == _vocabulary_size(s, name) for s in models)
    }
    fail([_differing(models, name) for name in sorted(uneven - vocabulary_names - of_own_height)])
    rules = {
        name: _rule(models, tokens, donor_number, len(models) - len(sources.members), weights, name)
        for name in vocabulary_names | of_own_height
    }
    heights = {rule.height for name, rule in rules.items() if len(donor.weights.shape(name)) > 1}
    return Vocabulary(donor, rules, max(heights) if heights else None)


def _rule(
    models: Sequence[Source],
    tokens: Sequence[int | None],
    donor: int,
    first_member: int,
    weights: Sequence[float],
    name: str,
) -> RowRule:
    heights = [model.weights.shape(name)[0] for model in models]
    has = [height if count is None else min(count, height) for height, count in zip(heights, tokens, strict=True)]
    common, height = min(has), heights[donor]
    bands = []
    start = common
    for end in sorted({count for count in has if count > common}):
        givers = [number for number in range(first_member, len(models)) if has[number] >= end]
        shares = [weights[number - first_member] for number in givers]
        if not givers:
            givers, shares = [number for number in range(first_member) if has[number] >= end], [1.0]
        total = sum(shares)
        factors = [share / total for share in shares] if abs(total) > 1e-8 else [1 / len(shares)] * len(shares)
        bands.append((start, end, tuple(zip(givers, factors, strict=True))))
        start = end
    if start < height:
        bands.append((start, height, ((donor, 1.0),)))
    return RowRule(common, max(height, start), tuple(bands))


def _token_counts(models: Sequence[Source]) -> list[int | None]:
    """Return how many tokens each model's tokenizer has; None without one. Refuse tokenizers that disagree."""
    by_content: dict[bytes, dict[int, str]] = {}
    found: list[dict[int, str] | None] = []
    for model in models:
        if model.tokenizer is None:
            found.append(None)
            continue
        path = model.tokenizer / "tokenizer.json"
        content = path.read_bytes() if path.is_file() else str(model.tokenizer).encode()
        if content not in by_content:
            by_content[content] = _tokens(model.tokenizer)
        found.append(by_content[content])
    known = [(model, ids) for model, ids in zip(models, found, strict=True) if ids is not None]
    if known:
        largest, expected = max(known, key=lambda item: len(item[1]))
        fail([text for model, ids in known if (text := _disagreement(largest, expected, model, ids))])
    return [None if ids is None else max(ids, default=-1) + 1 for ids in found]


def _tokens(folder: Path) -> dict[int, str]:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise WeightsError(f"the tokenizer in {folder} cannot be read: {type(error).__name__}: {text}") from None
    return {number: token for token, number in tokenizer.get_vocab().items()}


def _disagreement(first: Source, expected: dict[int, str], other: Source, found: dict[int, str]) -> str | None:
    if expected is found:
        return None
    for number in sorted(expected.keys() & found.keys()):
        if expected[number] != found[number]:
            return (
                f"the tokenizers of {first.path} and {other.path} disagree: id {number} is {expected[number]!r} in the"
                f" one and {found[number]!r} in the other; their rows cannot be merged."
            )
    return None


def _vocabulary_tensors(source: Source) -> set[str]:
    """Return the names of the tensors with one row for each token, by the model's own account."""
    import transformers

    names = source.config.get("architectures") or [""]
    kind: Any = getattr(transformers, str(names[0]), None)
    if kind is None:
        return set()
    with torch.device("meta"):
        model = kind(transformers.AutoConfig.from_pretrained(source.model))
    modules = []
    for find in (model.get_input_embeddings, model.get_output_embeddings):
        try:
            modules.append(find())
        except NotImplementedError:
            continue
    own = {id(parameter) for module in modules if module is not None for parameter in module.parameters()}
    size = _vocabulary_size(source, "")
    return {
        name
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if id(parameter) in own and parameter.shape[0] == size
    }


def _vocabulary_size(source: Source, name: str) -> int | None:
    """Return the rows that ``config.json`` gives the vocabulary, or an adapter the matrix it trained in full."""
    if source.adapter is not None and name in source.adapter.replaced():
        return source.adapter.replacement_shape(name)[0]
    config = source.config
    inner = config.get("text_config")
    found = inner.get("vocab_size") if isinstance(inner, Mapping) else config.get("vocab_size")
    return found if isinstance(found, int) else None


def _differing(models: Sequence[Source], name: str) -> str:
    shapes: dict[tuple[int, ...], Path] = {}
    for model in models:
        shapes.setdefault(model.weights.shape(name), model.path)
    shown = " and ".join(f"{shape} in {path}" for shape, path in shapes.items())
    return f"the tensor {name!r} differs in shape: {shown}."
