"""A model of ours as lm-evaluation-harness asks one, whichever engine it runs on.

The module needs lm-evaluation-harness; nothing imports it before it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from slm_plugin.errors import PipelineError
from slm_plugin.eval.protocol import WorksOnTokens

MAX_NEW_TOKENS = 256
"""Longest answer of a task that names none, as in the harness's own models."""


class HarnessModel(TemplateLM):
    """Answers the harness's three kinds of requests with a generator.

    Args:
        generator: What continues and scores token ids.
        max_length: Longest prompt and answer together, in tokens; longer prompts lose their beginning.
    """

    def __init__(self, generator: WorksOnTokens, max_length: int) -> None:
        super().__init__()
        self.tokenizer: Any = generator.tokenizer
        self._generator = generator
        self._max_length = max_length

    @property
    def eot_token_id(self) -> int:
        """The end of a text."""
        return int(self.tokenizer.eos_token_id)

    @property
    def prefix_token_id(self) -> int:
        """What stands before an answer without a prompt."""
        begin = self.tokenizer.bos_token_id
        return int(begin if begin is not None else self.eot_token_id)

    @property
    def tokenizer_name(self) -> str:
        """Name under which the harness may keep prompts."""
        return str(self.tokenizer.name_or_path).replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Return token ids; what the tokenizer puts in front of a text is put there once."""
        if add_special_tokens is None:
            add_special_tokens = not string.startswith(self.tokenizer.decode(self.prefix_token_id))
        return list(self.tokenizer.encode(string, add_special_tokens=add_special_tokens))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Return a chat as text."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = []
        for _strings, prompt, answer in requests:
            room = max(1, self._max_length - len(answer))
            pairs.append((prompt[-room:], answer))
        told = self._generator.tell(pairs)
        return [(float(sum(one.log_probabilities)), all(one.likeliest)) for one in told]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Return the log-probability of whole texts, window by window where they are too long."""
        found = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(text),
                prefix_token=self.prefix_token_id,
                max_seq_len=self._max_length - 1,
                context_len=1,
            )
            told = self._loglikelihood_tokens([(None, *make_disjoint_window(window)) for window in windows])
            found.append(sum(value for value, _ in told))
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Return greedy answers, cut at the first of the task's ends.

        Raises:
            PipelineError: The task wants answers drawn at random.
        """
        answers: list[str] = [""] * len(requests)
        by_length: dict[int, list[int]] = {}
        for number, (_, how) in enumerate(request.args for request in requests):
            if how.get("do_sample") and how.get("temperature", 1.0) > 0:
                raise PipelineError("the task draws its answers at random; probes take the likeliest tokens.")
            by_length.setdefault(_longest(how), []).append(number)
        for longest, numbers in by_length.items():
            room = max(1, self._max_length - longest)
            prompts = [self.tok_encode(requests[number].args[0])[-room:] for number in numbers]
            for number, ids in zip(numbers, self._generator.continue_ids(prompts, longest), strict=True):
                answers[number] = _cut(self.tokenizer.decode(ids, skip_special_tokens=True), requests[number].args[1])
        return answers


def _longest(how: Mapping[str, Any]) -> int:
    names = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
    return int(next((how[name] for name in names if how.get(name) is not None), MAX_NEW_TOKENS))


def _cut(text: str, how: Mapping[str, Any]) -> str:
    ends = how.get("until") or []
    for end in [ends] if isinstance(ends, str) else ends:
        if end:
            text = text.split(end)[0]
    return text
