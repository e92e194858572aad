"""Resizing of the embeddings: quick, seeded, and the same wherever it happens."""

from __future__ import annotations

import functools
from typing import Any

import torch

from slm_plugin.embedding import start_from_covariance
from slm_plugin.host import runtime


def patch(patcher: Any) -> None:
    """Seed the host's resizing and spare it the covariance that it computes and throws away.

    transformers fills new rows from a multivariate normal (minutes at 128k x 2048) and the host then
    overwrites them with mean plus noise; with the first step off and the second one seeded, the
    units base, stage 1 and chat all start from the same bytes.
    """
    stock = patcher.resize_embedding_layer

    @functools.wraps(stock)
    def resize_embedding_layer(model: Any, tokenizer: Any, *args: Any, **kwargs: Any) -> None:
        active = runtime.active()
        units = active.config.block.units if active else None
        if units is None:
            stock(model, tokenizer, *args, **kwargs)
            return
        before = model.get_input_embeddings().weight.shape[0]
        model.resize_token_embeddings = functools.partial(model.resize_token_embeddings, mean_resizing=False)
        try:
            with torch.random.fork_rng():
                torch.manual_seed(units.seed)
                stock(model, tokenizer, *args, **kwargs)
        finally:
            del model.resize_token_embeddings
        n_new = model.get_input_embeddings().weight.shape[0] - before
        if n_new > 0 and units.init == "covariance":
            generator = torch.Generator().manual_seed(units.seed)
            start_from_covariance(model.get_input_embeddings().weight.data, n_new, generator)
            if not model.config.tie_word_embeddings:
                start_from_covariance(model.get_output_embeddings().weight.data, n_new, generator)

    patcher.resize_embedding_layer = resize_embedding_layer
