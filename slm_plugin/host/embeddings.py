"""Start values of the rows of new tokens: quick, seeded, and the same wherever they are made.

Rows are found by the ids of the tokens. The height of a matrix says nothing about them: it may be padded far
beyond the last token, and a resize then adds fewer rows than there are new tokens, or none.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

from slm_plugin.config import UnitsConfig
from slm_plugin.embedding import start_from_covariance, start_from_mean
from slm_plugin.errors import VocabularyError
from slm_plugin.host import runtime
from slm_plugin.training.vocabulary_matrices import height, own_matrices


def patch(patcher: Any) -> None:
    """Seed the host's resizing, spare it an unused covariance, and set the rows that it leaves as padding.

    transformers fills new rows from a multivariate normal (minutes at 128k x 2048) and the host then
    overwrites them with mean plus noise; with the first step off and the second one seeded, the
    units base, stage 1 and chat all start from the same bytes.
    """
    stock = patcher.resize_embedding_layer

    @functools.wraps(stock)
    def resize_embedding_layer(model: Any, tokenizer: Any, *args: Any, **kwargs: Any) -> None:
        active = runtime.active()
        if active is None or (active.config.block.units is None and not active.new_tokens):
            stock(model, tokenizer, *args, **kwargs)
            return
        units = active.config.block.units or UnitsConfig()
        before = height(model.get_input_embeddings())
        model.resize_token_embeddings = functools.partial(model.resize_token_embeddings, mean_resizing=False)
        try:
            with torch.random.fork_rng():
                torch.manual_seed(units.seed)
                stock(model, tokenizer, *args, **kwargs)
        finally:
            del model.resize_token_embeddings
        after = height(model.get_input_embeddings())
        rows = _new_rows(active, before, after)
        # the host's own noise is right if it set exactly these rows, from rows of known tokens
        of_host = units.init == "mean" and rows.start >= before and not kwargs.get("new_special_tokens_config")
        padded = [token for token in active.host_tokens if token < before]
        if padded:
            # the host does the same without a block
            runtime.say(
                f"tokens {padded[0]}..{padded[-1]} of add_tokens or add_special_tokens keep the values of the model's"
                " padding: LLaMA-Factory sets only rows that a resize adds."
            )
        if rows and not of_host:
            _start(model, rows, _n_known(active, rows), units)

    patcher.resize_embedding_layer = resize_embedding_layer


def _new_rows(active: runtime.Active, before: int, after: int) -> range:
    """Return the rows that no training has seen: those of new tokens, and padding that a resize added behind them.

    Args:
        active: The block in force.
        before: Rows that the model came with.
        after: Rows that it has now.
    """
    new, vocabulary = active.new_tokens, active.vocabulary
    if not new and vocabulary is not None and before < vocabulary.end_id:
        # an extended tokenizer beside a model that is too short for it
        new = range(vocabulary.first_id, vocabulary.end_id)
    return range(new.start, after) if new and after > before else new


def _n_known(active: runtime.Active, rows: range) -> int:
    """Return how many first rows belong to tokens that the model was trained on."""
    firsts = [rows.start]
    if active.vocabulary:
        firsts.append(active.vocabulary.first_id)
    if active.host_tokens:
        firsts.append(active.host_tokens.start)
    return min(firsts)


def _start(model: Any, rows: range, n_known: int, units: UnitsConfig) -> None:
    start = start_from_mean if units.init == "mean" else start_from_covariance
    generator = torch.Generator().manual_seed(units.seed)
    for path, module in own_matrices(model).items():
        with _whole(module) as weight_VD:
            if weight_VD.is_meta:
                # this process receives its weights from another one
                continue
            if not weight_VD.is_floating_point():
                raise VocabularyError(
                    f"{path} is quantised ({weight_VD.dtype}), so its rows {rows.start}..{rows.stop - 1} cannot be set"
                    " for the new tokens; export a units base from the unquantised model and quantise that."
                )
            start(weight_VD, rows, n_known, generator)
            bias_V = getattr(module, "bias", None)
            if bias_V is not None:
                bias_V.data[rows.start : rows.stop] = bias_V.data[:n_known].mean()


@contextlib.contextmanager
def _whole(module: Any) -> Iterator[torch.Tensor]:
    """Yield the weight of a module, gathered from all processes under ZeRO-3."""
    if not is_deepspeed_zero3_enabled():
        yield module.weight.data
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(module.parameters()), modifier_rank=0):
        yield module.weight.data
