"""The model that writes: loaded with its adapter, and what its tokenizer says about turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slm_plugin.errors import WeightsError
from slm_plugin.generation.chat_form import require_trained_form
from slm_plugin.generation.thought import without_thought
from slm_plugin.vocabulary import UnitVocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MARK = "\u241e"
"""Stands for what a user says where a template is taken apart."""


class Speaker:
    """A tokenizer's side of a chat: prompts as token ids, and answers as text.

    Attributes:
        tokenizer: The tokenizer.
        vocabulary: Its units; None where it has none.
        stop_ids: Token ids that end an answer.

    Args:
        tokenizer: With a chat template, as the model was trained with.
        more_stop_ids: Further ids that end an answer, from the model's generation configuration.

    Raises:
        WeightsError: The tokenizer has no chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, more_stop_ids: tuple[int, ...] = ()) -> None:
        if not tokenizer.chat_template:
            raise WeightsError(
                "the tokenizer has no chat template; export the model with the template it was trained with."
            )
        self.tokenizer = tokenizer
        self.vocabulary = units = UnitVocabulary.find(tokenizer)
        added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        special = added | set(tokenizer.all_special_ids)
        self._special = {number for number in special if not (units and units.is_unit(number))}
        before, behind = self._around_user()
        self._user_header = before
        found = {*more_stop_ids, tokenizer.eos_token_id, *self._special_head(behind)} - {None}
        self.stop_ids: tuple[int, ...] = tuple(sorted(found))

    def prompt(self, user: str) -> list[int]:
        """Return the prompt that asks for the answer to a user turn."""
        chat = [{"role": "user", "content": user}]
        text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return self.encode(str(text))

    def user_header(self) -> list[int]:
        """Return the prompt that lets the model itself write a user turn.

        Source: arXiv 2406.08464 (Magpie), the pre-query template.
        """
        return self.encode(self._user_header)

    def text(self, ids: tuple[int, ...]) -> str:
        """Return the text of token ids, units and other special tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def answer(self, ids: Sequence[int]) -> tuple[int, ...]:
        """Return the ids of an answer without a thought in front of it."""
        return tuple(without_thought(self.tokenizer, ids))

    def special(self, ids: tuple[int, ...]) -> bool:
        """Tell whether ids hold a special token that is not a unit."""
        return not self._special.isdisjoint(ids)

    def encode(self, text: str) -> list[int]:
        """Return the token ids of a text as it stands, special tokens in it recognised and none added."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _around_user(self) -> tuple[str, str]:
        chat = [{"role": "user", "content": _MARK}]
        text = str(self.tokenizer.apply_chat_template(chat, tokenize=False))
        before, mark, behind = text.partition(_MARK)
        if not mark:
            raise WeightsError("the tokenizer's chat template drops what the user says.")
        return before, behind

    def _special_head(self, behind: str) -> list[int]:
        """Return the token that ends a user turn, where it is a special one."""
        ids = self.encode(behind)[:1]
        return ids if ids and self.special(tuple(ids)) else []


def load_speaker(model: Path, adapter: Path | None) -> Speaker:
    """Load the tokenizer of an adapter, where it has one of its own, or of the model.

    Raises:
        WeightsError: There is none, or it has no chat template.
    """
    from transformers import AutoTokenizer, GenerationConfig

    folder = tokenizer_folder(model, adapter)
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder} has no tokenizer that can be loaded: {_line(error)}") from error
    require_trained_form(adapter or model, tokenizer, folder)
    try:
        configured = GenerationConfig.from_pretrained(model).eos_token_id
    except OSError:
        configured = None
    several = configured if isinstance(configured, list) else [configured]
    return Speaker(tokenizer, tuple(number for number in several if number is not None))


def tokenizer_folder(model: Path, adapter: Path | None) -> Path:
    """Return the folder with the tokenizer that training ended with.

    Raises:
        WeightsError: A folder does not exist.
    """
    for folder in (model, *([adapter] if adapter else [])):
        if not folder.is_dir():
            raise WeightsError(f"there is no model folder {folder}.")
    return adapter if adapter and (adapter / "tokenizer_config.json").is_file() else model


def load_model(model: Path, adapter: Path | None, on_cpu: bool = False) -> PreTrainedModel:
    """Load a model in the type of its weights, with an adapter merged into it where one is given.

    Args:
        model: Folder of the model.
        adapter: Folder of an adapter.
        on_cpu: Whether it stays in ordinary memory; otherwise it goes to a GPU where there is one.

    Raises:
        WeightsError: The folder holds no model, or the adapter does not fit it.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
        if adapter is not None:
            loaded = _with_adapter(loaded, adapter)
    except (OSError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{model} with adapter {adapter} cannot be loaded: {_line(error)}") from error
    ready: PreTrainedModel = loaded.to("cuda" if torch.cuda.is_available() and not on_cpu else "cpu").eval()
    return ready


def _with_adapter(loaded: Any, adapter: Path) -> Any:
    from peft import PeftModel

    height = loaded.get_input_embeddings().weight.shape[0]
    rows = _embedding_rows(adapter) or max(height, _end_of_trained_rows(adapter))
    if rows != height:
        # units that were added while the adapter was trained: their rows are the adapter's
        loaded.resize_token_embeddings(rows, mean_resizing=False)
    return PeftModel.from_pretrained(loaded, adapter).merge_and_unload()


def _embedding_rows(adapter: Path) -> int | None:
    """Return the height of embeddings or head that an adapter replaces; None if it replaces neither."""
    from safetensors import safe_open

    path = adapter / "adapter_model.safetensors"
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118  # not a mapping
            if name.endswith(("embed_tokens.weight", "lm_head.weight")):
                return int(file.get_slice(name).get_shape()[0])
    return None


def _end_of_trained_rows(adapter: Path) -> int:
    """Return the id behind the last row of embeddings or head that an adapter trains by itself; 0 without any."""
    import json

    path = adapter / "adapter_config.json"
    found = json.loads(path.read_text(encoding="utf-8")).get("trainable_token_indices") if path.is_file() else None
    lists = found.values() if isinstance(found, dict) else [found or []]
    return max((row + 1 for rows in lists for row in rows), default=0)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
