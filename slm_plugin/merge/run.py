"""Merge models tensor by tensor into a model folder: no model is ever held in memory as a whole."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from slm_plugin.errors import WeightsError
from slm_plugin.merge.arithmetic import low_rank_sum, weighted_sum
from slm_plugin.merge.folder import write_files
from slm_plugin.merge.parallel import side_by_side
from slm_plugin.merge.plan import MergePlan
from slm_plugin.merge.protocol import Group, share
from slm_plugin.merge.sources import Source, Sources, fail, open_sources, require_finite
from slm_plugin.merge.vocabulary import RowRule, Vocabulary, plan_vocabulary
from slm_plugin.weights.checkpoint import count_not_finite
from slm_plugin.weights.staging import staged
from slm_plugin.weights.tied import untie_differing
from slm_plugin.weights.writer import CheckpointWriter, PlannedTensor

Merged = Callable[[str, int | None], torch.Tensor]
"""``(name, rows) -> tensor``: a merged tensor, or its first rows."""


@dataclass(frozen=True)
class MergeReport:
    """What a merge wrote.

    Attributes:
        folder: The merged model.
        n_tensors: How many tensors it has.
        n_bytes: Their size.
        n_shards: Over how many files they are spread.
        common_rows: First rows of the vocabulary that all models have; None where all have the same.
        tokenizer_from: Folder that the tokenizer comes from; None where no model has one.
        seconds: How long it took.
    """

    folder: Path
    n_tensors: int
    n_bytes: int
    n_shards: int
    common_rows: int | None
    tokenizer_from: Path | None
    seconds: float


def merge(plan: MergePlan, destination: Path, max_shard_bytes: int | None = None) -> MergeReport:
    """Merge the models of a plan.

    Any transformers checkpoint will do, with or without a tokenizer. The files appear in ``destination`` when
    all of them are written; those of an earlier model there are replaced, and stay on an error.

    Args:
        plan: What to merge and how, see :func:`~slm_plugin.merge.plan.parse_merge`.
        destination: Folder for weights, configuration, tokenizer and ``slm.json``.
        max_shard_bytes: Size at which the next file of weights begins; None writes one file.

    Raises:
        WeightsError: A model is missing, damaged, not finite or of another kind than the others, or the
            disk is full.
    """
    started = time.monotonic()
    sources = open_sources(plan)
    shares = [getattr(plan.method, "share", share)(member.options) for member in plan.members]
    vocabulary = plan_vocabulary(sources, shares)
    first = sources.members[0]
    names = first.weights.names()
    planned = [_planned(name, first, vocabulary.rules.get(name), plan.dtype) for name in names]
    with staged(destination) as folder:
        with (
            _engine(plan, sources, vocabulary, destination) as merged,
            CheckpointWriter(folder, planned, max_shard_bytes) as writer,
        ):

            def produce(tensor: PlannedTensor) -> torch.Tensor:
                return _produce(tensor, sources, vocabulary.rules.get(tensor.name), merged)

            for tensor, found in side_by_side(planned, produce):
                writer.write(tensor.name, found)
        write_files(folder, plan, sources, vocabulary, _main_dtype(planned))
        untie_differing(folder)
    commons = {rule.common for rule in vocabulary.rules.values()}
    return MergeReport(
        folder=destination,
        n_tensors=len(planned),
        n_bytes=writer.n_bytes,
        n_shards=writer.n_shards,
        common_rows=min(commons) if commons else None,
        tokenizer_from=vocabulary.donor.tokenizer,
        seconds=time.monotonic() - started,
    )


def _planned(name: str, first: Source, rule: RowRule | None, dtype: str | None) -> PlannedTensor:
    shape, kept = first.weights.shape(name), first.weights.dtype(name)
    if rule is not None:
        shape = (rule.height, *shape[1:])
    wanted: torch.dtype = getattr(torch, dtype) if dtype is not None and kept.is_floating_point else kept
    return PlannedTensor(name, shape, wanted)


def _main_dtype(planned: list[PlannedTensor]) -> torch.dtype:
    """Return the type that most of the numbers have."""
    sizes: dict[torch.dtype, int] = {}
    for tensor in planned:
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.n_bytes
    return max(sizes, key=lambda dtype: sizes[dtype])


def _produce(tensor: PlannedTensor, sources: Sources, rule: RowRule | None, merged: Merged) -> torch.Tensor:
    if not tensor.dtype.is_floating_point:
        return _same_everywhere(tensor.name, sources)
    found = merged(tensor.name, None if rule is None else rule.common)
    if rule is not None and rule.bands:
        found = rule.attach(found, [source.tensor(tensor.name) for source in sources.all])
    n_bad = count_not_finite(found)
    if n_bad:
        # the members are finite: what overflows is the type, or the method's own arithmetic
        raise WeightsError(
            f"merged, {n_bad} value(s) of the tensor {tensor.name!r} are not finite in"
            f" {str(tensor.dtype).removeprefix('torch.')}: choose a wider dtype, or other weights."
        )
    return found


def _same_everywhere(name: str, sources: Sources) -> torch.Tensor:
    first, *others = sources.all
    found = first.weights.tensor(name)
    fail(
        [
            f"the tensor {name!r} holds whole numbers that differ between {first.path} and {other.path}."
            for other in others
            if not torch.equal(found, other.weights.tensor(name))
        ]
    )
    return found


@contextlib.contextmanager
def _engine(plan: MergePlan, sources: Sources, vocabulary: Vocabulary, destination: Path) -> Iterator[Merged]:
    if plan.engine == "own":
        yield _own_engine(plan, sources)
        return
    from slm_plugin.merge.mergekit_engine import merged_by_mergekit

    with merged_by_mergekit(plan, sources, vocabulary, destination) as merged:
        yield merged


def _own_engine(plan: MergePlan, sources: Sources) -> Merged:
    options = [member.options for member in plan.members]
    coefficients = getattr(plan.method, "coefficients", None)
    factors = None if coefficients is None else coefficients(options)
    first = sources.members[0].weights

    def merged(name: str, rows: int | None) -> torch.Tensor:
        dtype: torch.dtype = getattr(torch, plan.dtype) if plan.dtype else first.dtype(name)
        if factors is not None and any(source.adapter is not None for source in sources.members):
            base_factor, member_factors = factors
            by_source = [*((base_factor,) if sources.base else ()), *member_factors]
            return _weighted(name, rows, list(zip(sources.all, by_source, strict=True)), dtype)
        tensors = [source.tensor(name)[:rows] if rows is not None else source.tensor(name) for source in sources.all]
        base = tensors[0] if sources.base else None
        members = tensors[1:] if sources.base else tensors
        return torch.as_tensor(plan.method.merge(Group(name, members, options, base, dtype, plan.seed)))

    return merged


def _weighted(name: str, rows: int | None, parts: list[tuple[Source, float]], dtype: torch.dtype) -> torch.Tensor:
    """Return a weighted sum in which adapters are summed as low-rank matrices and each base is read once."""
    factors: dict[Path, float] = {}
    tensors: dict[Path, torch.Tensor] = {}
    ups, downs = [], []
    for source, factor in parts:
        adapter = source.adapter
        low_rank = None
        if adapter is not None and name not in adapter.replaced() and adapter.rows(name) is None:
            low_rank = adapter.low_rank(name)
            plain = low_rank is not None or adapter.decomposed(name) is None
        else:
            plain = adapter is None
        key = source.model if plain else source.path
        if key not in tensors:
            tensors[key] = source.full.tensor(name) if plain else source.weights.tensor(name)
            require_finite(tensors[key], name, source.full.file(name) if plain else source.path)
        factors[key] = factors.get(key, 0.0) + factor
        if low_rank is not None:
            ups.append(low_rank.up_OR * (low_rank.scale * factor))
            downs.append(low_rank.down_RI)
    found = [tensor[:rows] if rows is not None else tensor for tensor in tensors.values()]
    if not ups:
        return weighted_sum(found, list(factors.values()), dtype)
    return low_rank_sum(found, list(factors.values()), [up[:rows] for up in ups], downs, dtype)
