"""The prompts that a tokenizer renders as a fingerprint, so that models can be compared by how they were prompted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_plugin import card
from slm_plugin.errors import WeightsError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEY = "template"
"""Key of ``slm.json``: ``name`` of LLaMA-Factory's template, ``fingerprint`` of its prompts, and its ``settings``."""

_USER = {"role": "user", "content": "one"}
_CHATS: tuple[list[dict[str, str]], ...] = (
    [_USER],
    [{"role": "system", "content": "two"}, _USER],
    [_USER, {"role": "assistant", "content": "three"}, {"role": "user", "content": "four"}],
)


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return twelve hex digits over the prompts that a tokenizer's chat template renders.

    Prompts with a system turn and with several turns take part; definitions of tools do not, nor does the date that
    some families write into every prompt.

    Returns:
        The digits, or an empty string for a tokenizer without a chat template.
    """
    if not tokenizer.chat_template:
        return ""
    texts = []
    for chat in _CHATS:
        try:
            text = tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=True, strftime_now=lambda form: form
            )
            texts.append(str(text))
        except Exception as error:
            # templates refuse what they do not know, a system turn for example; that belongs to the form
            texts.append(type(error).__name__)
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def recorded(folder: Path) -> Mapping[str, Any]:
    """Return what a folder's card records of its template; empty without a card, or in one of an older release."""
    found: Mapping[str, Any] = card.read(folder).get(KEY) or {}
    return found


def require_trained_form(folder: Path, tokenizer: PreTrainedTokenizerBase, tokenizer_folder: Path) -> None:
    """Refuse a tokenizer that renders other prompts than the model in ``folder`` was trained with.

    Args:
        folder: Model or adapter with its card; one that records no template is accepted.
        tokenizer: What will build the prompts.
        tokenizer_folder: Where it was loaded from, for the message.

    Raises:
        WeightsError: The prompts differ; both folders and the template are named.
    """
    known = recorded(folder)
    if known.get("fingerprint") and known["fingerprint"] != fingerprint(tokenizer):
        raise WeightsError(
            f"{folder} was trained with template {known.get('name')!r}, but the tokenizer in {tokenizer_folder} builds"
            f" other prompts. Use the tokenizer that training wrote, or export with template: {known.get('name')}."
        )


def differing(folders: Mapping[str, Path]) -> str | None:
    """Return a sentence if models were trained with different templates; None if not, or if that is not known.

    Args:
        folders: Folder of each model by how messages name it.
    """
    known = {name: found for name, folder in folders.items() if (found := recorded(folder)).get("fingerprint")}
    if len({found["fingerprint"] for found in known.values()}) < 2:
        return None
    first, *others = known.items()
    name, other = next(item for item in others if item[1]["fingerprint"] != first[1]["fingerprint"])
    return (
        f"{first[0]} was trained with template {first[1].get('name')!r}, {name} with {other.get('name')!r}: their"
        " prompts differ, so no prompt is right for a mixture of both."
    )
