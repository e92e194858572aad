"""A model that answers chats greedily, whichever engine it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from slm_plugin.generation.engines import EngineName, make_engine
from slm_plugin.generation.model import Speaker, load_speaker
from slm_plugin.generation.protocol import Engine, Sampling, Told
from slm_plugin.generation.transformers_engine import TransformersEngine
from slm_plugin.vocabulary import UnitVocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 128


class EngineGenerator:
    """Answers by an engine of :mod:`slm_plugin.generation`; on greedy decoding the engines agree.

    Attributes:
        vocabulary: Unit tokens of the tokenizer; None for a model without units.

    Args:
        speaker: The tokenizer's side of a chat.
        engine: What continues prompts.
    """

    vocabulary: UnitVocabulary | None

    def __init__(self, speaker: Speaker, engine: Engine) -> None:
        self._speaker = speaker
        self._engine = engine
        self.vocabulary = speaker.vocabulary

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The model's tokenizer."""
        return self._speaker.tokenizer

    def answer(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Answer each user turn greedily; unit tokens are kept in the text as ``<|u|>``.

        Args:
            prompts: User turns.
            max_new_tokens: Longest answer, in tokens.
        """
        written = self.continue_ids([self._speaker.prompt(prompt) for prompt in prompts], max_new_tokens)
        return [self._speaker.text(tuple(ids)) for ids in written]

    def continue_ids(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        """Continue prompts of token ids greedily, up to the end of the turn; it and a thought are left out."""
        if not prompts:
            return []
        sampling = Sampling(0.0, 1.0, max_new_tokens, self._speaker.stop_ids, seed=0)
        return [list(self._speaker.answer(answer.ids)) for answer in self._engine.generate(prompts, sampling)]

    def log_probabilities(self, chats: Sequence[tuple[str, str]]) -> list[tuple[list[int], list[float]]]:
        """Return the token ids of each assistant turn and their log-probabilities, natural logarithms.

        Args:
            chats: User turn and assistant turn of each conversation; the end of the turn is not scored.
        """
        pairs = [(self._speaker.prompt(user), self._speaker.encode(text)) for user, text in chats]
        told = self.tell(pairs)
        return [(answer, list(one.log_probabilities)) for (_, answer), one in zip(pairs, told, strict=True)]

    def tell(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Told]:
        """Say how probable each given answer is behind its prompt, both as token ids."""
        return self._engine.tell(pairs) if pairs else []

    def close(self) -> None:
        """Free what the engine holds."""
        self._engine.close()


class TransformersGenerator(EngineGenerator):
    """Answers by a model in this process, in batches of similar length.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer, with a chat template.
        batch: Prompts per batch.

    Raises:
        WeightsError: The tokenizer has no chat template.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch: int = BATCH) -> None:
        configured = model.generation_config.eos_token_id if model.generation_config is not None else None
        several = configured if isinstance(configured, list) else [configured]
        speaker = Speaker(tokenizer, tuple(number for number in several if number is not None))
        super().__init__(speaker, TransformersEngine(model.eval(), batch))


def load_generator(model: Path, adapter: Path | None = None, engine: EngineName = "transformers") -> EngineGenerator:
    """Load a model, and an adapter merged into it where one is given.

    Raises:
        WeightsError: The folder holds no model, the adapter does not fit it, or there is no chat template.
        EngineError: vLLM is asked for and not installed, or does not start.
    """
    speaker = load_speaker(Path(model), Path(adapter) if adapter else None)
    return EngineGenerator(speaker, make_engine(engine, Path(model), Path(adapter) if adapter else None, BATCH))
