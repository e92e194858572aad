"""Generation by transformers, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slm_plugin.generation.protocol import Answer, Sampling, Told

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

BATCH = 32
TOLD_TOKENS = 8192
"""Tokens per batch of given answers, padding included: each costs a row of logits as long as the vocabulary."""


class TransformersEngine:
    """Generation in batches of similar length; batches are drawn from seeds of their own.

    Args:
        model: A causal language model.
        batch: Prompts per batch; part of what the answers depend on.
    """

    name = "transformers"

    def __init__(self, model: PreTrainedModel, batch: int = BATCH) -> None:
        self._model: Any = model
        self._batch = batch

    def close(self) -> None:
        """Nothing is held beyond the model."""

    def generate(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Continue every prompt, whatever else the model's generation configuration says."""
        order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
        answers: dict[int, Answer] = {}
        for start in range(0, len(order), self._batch):
            numbers = order[start : start + self._batch]
            found = self._generate([list(prompts[number]) for number in numbers], sampling, sampling.seed + start)
            answers |= dict(zip(numbers, found, strict=True))
        return [answers[number] for number in range(len(prompts))]

    def tell(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Told]:
        """Say how probable each given answer is behind its prompt."""
        wholes = [[*prompt, *answer] for prompt, answer in pairs]
        order = sorted(range(len(pairs)), key=lambda number: len(wholes[number]))
        found: dict[int, Told] = {}
        while order:
            # the last of a batch is its longest
            size = next((n for n in range(len(order), 1, -1) if n * len(wholes[order[n - 1]]) <= TOLD_TOKENS), 1)
            numbers, order = order[:size], order[size:]
            told = self._tell([wholes[number] for number in numbers], [len(pairs[number][0]) for number in numbers])
            found |= dict(zip(numbers, told, strict=True))
        return [found[number] for number in range(len(pairs))]

    def _tell(self, wholes: Sequence[list[int]], starts: Sequence[int]) -> list[Told]:
        import torch

        length, device = max(map(len, wholes)), self._model.device
        # padding stands behind what is scored and is attended to by nothing of it
        ids_BT = torch.zeros((len(wholes), length), dtype=torch.long)
        mask_BT = torch.zeros_like(ids_BT)
        for row, whole in enumerate(wholes):
            ids_BT[row, : len(whole)] = torch.tensor(whole)
            mask_BT[row, : len(whole)] = 1
        with torch.inference_mode():
            logits_BTV = self._model(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device)).logits
        found = []
        for row, (whole, start) in enumerate(zip(wholes, starts, strict=True)):
            logs_TV = logits_BTV[row, start - 1 : len(whole) - 1].float().log_softmax(dim=-1)
            wanted_T = torch.tensor(whole[start:], device=device, dtype=torch.long)
            logs_T = logs_TV.gather(1, wanted_T[:, None])[:, 0]
            found.append(Told(tuple(logs_T.tolist()), tuple((logs_TV.argmax(-1) == wanted_T).tolist())))
        return found

    def _generate(self, prompts: list[list[int]], sampling: Sampling, seed: int) -> list[Answer]:
        import torch
        from transformers import GenerationConfig

        length, device = max(map(len, prompts)), self._model.device
        pad = sampling.stop_ids[0]
        ids_BT = torch.full((len(prompts), length), pad)
        mask_BT = torch.zeros((len(prompts), length), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids_BT[row, length - len(prompt) :] = torch.tensor(prompt)
            mask_BT[row, length - len(prompt) :] = 1
        drawn = sampling.temperature > 0
        how = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0} if drawn else {}
        config = GenerationConfig(
            max_new_tokens=sampling.max_new_tokens,
            do_sample=drawn,
            eos_token_id=list(sampling.stop_ids),
            pad_token_id=pad,
            **how,
        )
        devices = [device.index or 0] if device.type == "cuda" else []
        before = self._model.generation_config
        # what the model's own configuration says would fill in whatever is not set here
        self._model.generation_config = config
        try:
            with torch.random.fork_rng(devices=devices), torch.inference_mode():
                torch.manual_seed(seed)
                output_BT = self._model.generate(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device))
        finally:
            self._model.generation_config = before
        written = [_cut(row, sampling.stop_ids) for row in output_BT[:, length:].tolist()]
        scores = self._scores(output_BT, mask_BT, written) if sampling.score else [None] * len(prompts)
        return [Answer(tuple(ids), finished, score) for (ids, finished), score in zip(written, scores, strict=True)]

    def _scores(
        self, output_BT: torch.Tensor, mask_BT: torch.Tensor, written: Sequence[tuple[list[int], bool]]
    ) -> list[float | None]:
        """Return each answer's mean log-probability, from one pass over prompt and answer."""
        import torch

        scores: list[float | None] = []
        length = mask_BT.shape[1]
        for row, (ids, finished) in enumerate(written):
            n_tokens = len(ids) + finished
            if n_tokens == 0:
                scores.append(None)
                continue
            first = length - int(mask_BT[row].sum())
            whole_T = output_BT[row, first : length + n_tokens]
            with torch.inference_mode():
                logits_TV = self._model(input_ids=whole_T[None]).logits[0, -n_tokens - 1 : -1].float()
            chosen_T = logits_TV.log_softmax(-1).gather(1, whole_T[-n_tokens:, None])
            scores.append(float(chosen_T.mean()))
        return scores


def _cut(ids: list[int], stop_ids: Sequence[int]) -> tuple[list[int], bool]:
    end = next((position for position, token in enumerate(ids) if token in stop_ids), None)
    return (ids, False) if end is None else (ids[:end], True)
