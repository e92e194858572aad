"""Unit tokens on the tokenizer that the host loads."""

from __future__ import annotations

import functools
from typing import Any

from slm_plugin.host import runtime
from slm_plugin.host.shown_units import show_units
from slm_plugin.vocabulary import UnitVocabulary


def patch(loader: Any) -> None:
    """Extend the tokenizer right after the host's own changes to it, for training, export and chat alike."""
    stock = loader.patch_tokenizer

    @functools.wraps(stock)
    def patch_tokenizer(tokenizer: Any, model_args: Any) -> None:
        stock(tokenizer, model_args)
        active = runtime.active()
        if active is None:
            return
        active.tokenizer = tokenizer
        before = len(tokenizer)
        if active.config.unit_count:
            active.vocabulary = UnitVocabulary.extend(tokenizer, active.config.unit_count)
        else:
            active.vocabulary = UnitVocabulary.find(tokenizer)
        further = [
            token for part in active.hooks.hook.slm_extend_tokenizer(tokenizer=tokenizer) for token in part or ()
        ]
        if further:
            tokenizer.add_tokens(further, special_tokens=True)
        if len(tokenizer) > before:
            # the host resizes the embeddings only where this is set
            model_args.resize_vocab = True
        if active.vocabulary is not None and active.shows_units and not active.trains:
            show_units(tokenizer, active.vocabulary)

    loader.patch_tokenizer = patch_tokenizer
