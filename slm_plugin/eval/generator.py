"""A model that answers chats, by transformers' greedy search."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slm_plugin.errors import PipelineError
from slm_plugin.vocabulary import UnitVocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 128


class TransformersGenerator:
    """Answers prompts in batches of similar length.

    Attributes:
        vocabulary: Unit tokens of the tokenizer; None for a model without units.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer, with a chat template.
        batch: Prompts per batch.
    """

    vocabulary: UnitVocabulary | None

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: int = BATCH) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._batch = batch
        self.vocabulary = UnitVocabulary.find(tokenizer)

    def answer(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Answer each user turn greedily; unit tokens are kept in the text as ``<|u|>``.

        Args:
            prompts: User turns.
            max_new_tokens: Longest answer, in tokens.
        """
        encoded = [self._encode(prompt) for prompt in prompts]
        # prompts of one length need no padding: sort, then undo
        order = sorted(range(len(prompts)), key=lambda number: len(encoded[number]))
        answers = [""] * len(prompts)
        for start in range(0, len(order), self._batch):
            numbers = order[start : start + self._batch]
            texts = self._generate([encoded[number] for number in numbers], max_new_tokens)
            for number, text in zip(numbers, texts, strict=True):
                answers[number] = text
        return answers

    def log_probabilities(self, chats: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[float]]]:
        """Return the token ids of each assistant turn and their log-probabilities, natural logarithms.

        Args:
            chats: User turn and assistant turn of each conversation; the end of the turn is not scored.
        """
        prompts = [self._encode(user) for user, _ in chats]
        answers = [list(self._tokenizer.encode(text, add_special_tokens=False)) for _, text in chats]
        order = sorted(range(len(chats)), key=lambda number: len(prompts[number]) + len(answers[number]))
        found: list[tuple[list[int], list[float]]] = [([], [])] * len(chats)
        for start in range(0, len(order), self._batch):
            numbers = order[start : start + self._batch]
            logs = self._score([(prompts[number], answers[number]) for number in numbers])
            for number, values in zip(numbers, logs, strict=True):
                found[number] = (answers[number], values)
        return found

    def _score(self, pairs: Sequence[tuple[list[int], list[int]]]) -> list[list[float]]:
        import torch

        length = max(len(prompt) + len(answer) for prompt, answer in pairs)
        ids_BT = torch.full((len(pairs), length), self._pad_id())
        mask_BT = torch.zeros((len(pairs), length), dtype=torch.long)
        for row, (prompt, answer) in enumerate(pairs):
            n_tokens = len(prompt) + len(answer)
            ids_BT[row, :n_tokens] = torch.tensor(prompt + answer)
            mask_BT[row, :n_tokens] = 1
        device = self._model.device
        with torch.inference_mode():
            logits_BTV = self._model(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device)).logits
        found = []
        for row, (prompt, answer) in enumerate(pairs):
            first, end = len(prompt), len(prompt) + len(answer)
            logs_TV = logits_BTV[row, first - 1 : end - 1].float().log_softmax(dim=-1)
            wanted_T = torch.tensor(answer, device=device, dtype=torch.long)
            found.append(logs_TV.gather(1, wanted_T[:, None])[:, 0].tolist())
        return found

    def _encode(self, prompt: str) -> list[int]:
        text = self._tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _generate(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[str]:
        import torch

        pad, length = self._pad_id(), max(map(len, prompts))
        ids_BT = torch.full((len(prompts), length), pad)
        mask_BT = torch.zeros((len(prompts), length), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids_BT[row, length - len(prompt) :] = torch.tensor(prompt)
            mask_BT[row, length - len(prompt) :] = 1
        device = self._model.device
        with torch.inference_mode():
            output_BT = self._model.generate(
                input_ids=ids_BT.to(device),
                attention_mask=mask_BT.to(device),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=self._stop_ids(),
                pad_token_id=pad,
            )
        return [self._decode(row) for row in output_BT[:, length:].tolist()]

    def _decode(self, ids: list[int]) -> str:
        end = next((position for position, token in enumerate(ids) if token in self._stop_ids()), len(ids))
        return str(self._tokenizer.decode(ids[:end], skip_special_tokens=False))

    def _stop_ids(self) -> list[int]:
        configured = self._model.generation_config.eos_token_id
        several = configured if isinstance(configured, list) else [configured]
        found = {*several, self._tokenizer.eos_token_id} - {None}
        return sorted(found)

    def _pad_id(self) -> int:
        pad = self._tokenizer.pad_token_id
        return int(pad if pad is not None else self._tokenizer.eos_token_id)


def load_generator(model: Path, adapter: Path | None = None) -> TransformersGenerator:
    """Load a model, and an adapter merged into it where one is given.

    Raises:
        PipelineError: The folder holds no model, or the adapter does not fit it.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for folder in (model, *([adapter] if adapter else [])):
        if not Path(folder).is_dir():
            raise PipelineError(f"there is no model folder {folder}.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        loaded = AutoModelForCausalLM.from_pretrained(model)
        if adapter is not None:
            from peft import PeftModel

            loaded = PeftModel.from_pretrained(loaded, adapter).merge_and_unload()
    except (OSError, ValueError, RuntimeError) as error:
        raise PipelineError(f"{model} with adapter {adapter} cannot be loaded: {error}") from error
    if tokenizer.chat_template is None:
        raise PipelineError(f"the tokenizer in {model} has no chat template; add one to ask it anything.")
    return TransformersGenerator(loaded, tokenizer)
