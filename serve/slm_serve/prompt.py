"""Build the token ids of a conversation: text through the model's own chat template, units by id.

Every run of ids (a recording's units, an earlier spoken answer) goes through the template as one unit
token and is put in its place after tokenising. Text is made safe first, so these are the only unit
tokens there are, and the tokenizer cuts the text around them just as it does in training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jinja2 import TemplateError

from slm_plugin.errors import VocabularyError
from slm_plugin.vocabulary import UnitVocabulary, neutralise, special_spellings, unit_token
from slm_serve.errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Role = Literal["system", "user", "assistant"]
_PLACEHOLDER = unit_token(0)
_SLICE = 2**15
"""Characters of a conversation above which its length is checked slice by slice."""


@dataclass(frozen=True)
class Ids:
    """Token ids that take part in a turn exactly as they are.

    Attributes:
        ids: The ids, possibly none.
    """

    ids: tuple[int, ...]


@dataclass(frozen=True)
class Turn:
    """One message of a conversation.

    Attributes:
        role: Who speaks.
        parts: What is said: text as typed, or ids.
    """

    role: Role
    parts: tuple[str | Ids, ...]


def room(context: int | None, n_tokens: int, param: str = "messages") -> int | None:
    """Return how many tokens a context has left; None if it is not known.

    Args:
        context: Most tokens of prompt and answer together.
        n_tokens: Of the prompt, as far as it is known.
        param: What fills it, for messages.

    Raises:
        RequestError: Nothing is left.
    """
    if context is not None and n_tokens >= context:
        raise RequestError(
            f"{param}: these are {n_tokens} tokens or more, the model's context is {context}.",
            param,
            "context_length_exceeded",
        )
    return None if context is None else context - n_tokens


class PromptBuilder:
    """Turns conversations into token ids.

    Args:
        tokenizer: A fast tokenizer with a chat template.
        vocabulary: Its units.

    Raises:
        VocabularyError: The tokenizer has no chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: UnitVocabulary) -> None:
        if not tokenizer.chat_template:
            raise VocabularyError(
                "the model's tokenizer has no chat template; export the model with the template it was trained with."
            )
        self._tokenizer = tokenizer
        self._first_unit_id = vocabulary.first_id
        self._spellings = special_spellings(tokenizer)

    def build(self, turns: Sequence[Turn], context: int | None = None, param: str = "messages") -> list[int]:
        """Return the prompt that asks for the assistant's next turn.

        Args:
            turns: The conversation.
            context: Most tokens of prompt and answer together; None if it is not known.
            param: What the request calls the conversation, for messages.

        Raises:
            RequestError: The conversation is longer than the context, or the chat template refuses it.
        """
        self._check_length(turns, context, param)
        inserts = [part.ids for turn in turns for part in turn.parts if isinstance(part, Ids)]
        messages = [{"role": turn.role, "content": self._content(turn)} for turn in turns]
        try:
            text = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # a template is code of the model's: it indexes and converts what it is given
            raise RequestError(f"the model's chat template refuses these messages: {error}", "messages") from error
        ids: list[int] = []
        waiting = iter(inserts)
        for token_id in self._tokenizer(text, add_special_tokens=False)["input_ids"]:
            if token_id == self._first_unit_id:
                ids.extend(next(waiting))
            else:
                ids.append(token_id)
        assert next(waiting, None) is None, "the chat template lost a recording"
        return ids

    def _check_length(self, turns: Sequence[Turn], context: int | None, param: str) -> None:
        """Refuse what is longer than the context before all of it is tokenised.

        Long text is tokenised slice by slice, and only until the context is full: megabytes would otherwise take
        seconds of a worker that all requests share. A cut may add a token on each side, so two a slice do not count.
        """
        parts = [part for turn in turns for part in turn.parts]
        text = "".join(part for part in parts if isinstance(part, str))
        if context is None or len(text) <= _SLICE:
            return
        n_tokens = sum(len(part.ids) for part in parts if isinstance(part, Ids))
        for start in range(0, len(text), _SLICE):
            n_slice = len(self._tokenizer(text[start : start + _SLICE], add_special_tokens=False)["input_ids"])
            n_tokens += max(0, n_slice - 2)
            room(context, n_tokens, param)

    def _content(self, turn: Turn) -> str:
        """Write a turn as text; neighbouring text is joined first, for two halves may spell a token."""
        texts, content = "", ""
        for part in turn.parts:
            if isinstance(part, str):
                texts += part
            else:
                content += self._safe(texts) + _PLACEHOLDER
                texts = ""
        return content + self._safe(texts)

    def _safe(self, text: str) -> str:
        return neutralise(text, self._spellings)
