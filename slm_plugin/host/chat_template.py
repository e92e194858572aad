"""The chat form that a model was trained with, written into the tokenizer it is exported with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from slm_plugin.errors import WeightsError
from slm_plugin.host import runtime
from slm_plugin.weights.staging import intended

_SAMPLE = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def write_training_template(folder: Path, data_args: Any) -> None:
    """Make an exported tokenizer build prompts as the host did in training.

    A model's own chat template may say more than the host's template of its family (Llama 3.2's adds a
    system turn with dates), and a prompt that differs from training is answered worse. The model's own
    one stays where the host's cannot be written as a chat template, which the log then says.

    Args:
        folder: Exported model.
        data_args: The host's data arguments; nothing is done where they name no template.

    Raises:
        WeightsError: The host could not write the tokenizer, of which it only warns.
    """
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from transformers import AutoTokenizer

    if not data_args.template:
        return
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        raise WeightsError(f"{intended(folder)} was not written: its tokenizer cannot be read: {text}") from error
    template = get_template_and_fix_tokenizer(tokenizer, data_args)
    trained = [token for part in template.encode_oneturn(tokenizer, _SAMPLE) for token in part]
    before = tokenizer.chat_template
    if before is not None and _ids(tokenizer) == trained:
        return
    try:
        tokenizer.chat_template = template._get_jinja_template(tokenizer)
    except ValueError:
        tokenizer.chat_template = before
    if tokenizer.chat_template is None or _ids(tokenizer) != trained:
        runtime.say(f"the chat template of {intended(folder)} differs from training's template {data_args.template!r}")
        return
    tokenizer.save_pretrained(folder)


def _ids(tokenizer: Any) -> list[int]:
    return list(tokenizer.apply_chat_template(_SAMPLE, return_dict=False))
