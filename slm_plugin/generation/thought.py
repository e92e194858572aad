"""Thoughts of reasoning models: removed from the beginning of an answer, by token id and as it is generated.

Speech stages train without a thought, and the prompt then ends in an empty one where the model's family has
thoughts. A model may write one all the same. This filter is the only place that removes it: evaluation,
``slm infer`` and the server use it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THOUGHTS = (
    ("<think>", "</think>"),
    ("<seed:think>", "</seed:think>"),
    ("<|channel>thought", "<channel|>"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
)
"""How a thought begins and ends, without line breaks around it, in every family that LLaMA-Factory knows."""

_WINDOW = 64
"""Token ids in which the end of a thought is looked for; none is spelled with as many."""
_INCOMPLETE = "\ufffd"


class ThoughtFilter:
    """Takes the token ids of one answer and returns those that are not part of a thought at its beginning.

    A thought is removed from its first word to the blank behind its last one, and a closing word without an
    opening one is removed too. An answer that ends inside a thought is empty. Everything behind the first
    visible character passes unchanged.

    Args:
        tokenizer: The model's tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        # start, inside (a thought), behind (it), through
        self._state = "start"
        self._pending: list[int] = []
        self._end = ""

    def feed(self, ids: Sequence[int]) -> list[int]:
        """Take further ids; return those that are known to belong to the answer."""
        if self._state == "through":
            return list(ids)
        found: list[int] = []
        for position, token_id in enumerate(ids):
            found += self._step(token_id)
            if self._state == "through":
                return found + list(ids[position + 1 :])
        return found

    def finish(self) -> list[int]:
        """Return the ids that were held back until the end of the answer."""
        rest = self._pending if self._state == "start" else []
        self._state, self._pending = "through", []
        return rest

    def _step(self, token_id: int) -> list[int]:
        self._pending.append(token_id)
        if self._state == "start":
            self._begin()
            if self._state == "through":
                return self._release()
        if self._state == "inside":
            self._pending = self._pending[-_WINDOW:]
            _, end, rest = self._text().partition(self._end)
            if not end:
                return []
            self._state, self._pending = "behind", []
            if rest.strip():
                # one token holds the end of the thought and the beginning of the answer
                self._state = "through"
                return list(self._tokenizer.encode(rest.lstrip(), add_special_tokens=False))
            return []
        if self._state == "behind" and self._text().strip():
            self._state = "through"
            return self._release()
        self._pending = self._pending if self._state == "start" else []
        return []

    def _begin(self) -> None:
        """Tell whether the ids so far begin a thought, an answer, or may become either."""
        text = self._text().lstrip()
        for begin, end in THOUGHTS:
            if text.startswith((begin, end)):
                self._state, self._end = "inside", end
                return
        text = text.rstrip(_INCOMPLETE)
        if not any(word.startswith(text) for pair in THOUGHTS for word in pair):
            self._state = "through"

    def _release(self) -> list[int]:
        rest, self._pending = self._pending, []
        return rest

    def _text(self) -> str:
        decoded = self._tokenizer.decode(self._pending, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return str(decoded)


def without_thought(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[int]:
    """Return the token ids of a whole answer without the thought at its beginning."""
    thought = ThoughtFilter(tokenizer)
    return thought.feed(ids) + thought.finish()
