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
        n_known = len(tokenizer)
        stock(tokenizer, model_args)
        # formats of ours are read without a block too, and must not meet a tokenizer without units
        runtime.note_tokenizer(tokenizer)
        active = runtime.active()
        if active is None:
            return
        active.tokenizer = tokenizer
        before = set(tokenizer.get_vocab().values())
        active.host_tokens = range(n_known, len(tokenizer))
        if active.config.unit_count:
            active.vocabulary = UnitVocabulary.extend(tokenizer, active.config.unit_count)
        else:
            active.vocabulary = UnitVocabulary.find(tokenizer)
        further = [
            token for part in active.hooks.hook.slm_extend_tokenizer(tokenizer=tokenizer) for token in part or ()
        ]
        if further:
            tokenizer.add_tokens(further, special_tokens=True)
        added = set(tokenizer.get_vocab().values()) - before
        active.new_tokens = range(min(added), max(added) + 1) if added else range(0)
        if added:
            # the host looks at the embeddings only if this is set
            model_args.resize_vocab = True
        if active.vocabulary is not None and active.shows_units and not active.trains:
            show_units(tokenizer, active.vocabulary)

    loader.patch_tokenizer = patch_tokenizer
