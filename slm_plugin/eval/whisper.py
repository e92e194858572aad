"""A recogniser of words that listens to sound: Whisper, by transformers.

Source: arXiv 2212.04356.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from slm_plugin.errors import WeightsError
from slm_plugin.speech import audio
from slm_plugin.speech.protocol import Codec

if TYPE_CHECKING:
    import numpy as np
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

BATCH = 16
WINDOW_SECONDS = 30
"""What Whisper hears at a time; longer speech is cut there, and a word at the cut may be lost."""


class WhisperRecogniser:
    """Sounds units with their codec and writes down what Whisper hears, greedily.

    Args:
        model: The model.
        processor: Its feature extractor and tokenizer.
        codec: What the units belong to.
        language: Language that a multilingual model is told; None lets it guess.

    Raises:
        WeightsError: The model knows one language only, and one is asked for.
    """

    def __init__(
        self,
        model: WhisperForConditionalGeneration,
        processor: WhisperProcessor,
        codec: Codec,
        language: str | None = None,
    ) -> None:
        self._model: Any = model.eval()
        self._processor: Any = processor
        self._codec = codec
        self._how: dict[str, Any] = {"do_sample": False, "num_beams": 1, "return_timestamps": False}
        if getattr(self._model.generation_config, "is_multilingual", False):
            self._how |= {"task": "transcribe", "language": language}
        elif language is not None:
            raise WeightsError(f"the Whisper model knows one language only; leave out language: {language}.")

    @classmethod
    def load(cls, source: str, codec: Codec, language: str | None = None) -> WhisperRecogniser:
        """Load a model from a folder or the hub; it goes to a GPU where there is one, in half precision.

        Raises:
            WeightsError: There is none, or it cannot be loaded.
        """
        import torch
        from transformers import WhisperForConditionalGeneration, WhisperProcessor

        device, dtype = ("cuda", torch.float16) if torch.cuda.is_available() else ("cpu", torch.float32)
        try:
            processor = WhisperProcessor.from_pretrained(source)
            model: Any = WhisperForConditionalGeneration.from_pretrained(source, dtype=dtype)
        except (OSError, ValueError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise WeightsError(f"there is no Whisper model {source} that can be loaded: {reason}") from error
        return cls(model.to(device), processor, codec, language)

    def recognise(self, utterances: Sequence[Sequence[int]]) -> list[str]:
        """Return the words of each utterance as Whisper writes them; nothing for one without units."""
        windows = [(number, part) for number, units in enumerate(utterances) for part in self._windows(units)]
        # windows of like length need the like number of steps
        order = sorted(range(len(windows)), key=lambda place: len(windows[place][1]))
        heard: dict[int, str] = {}
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            heard |= dict(zip(places, self._hear([windows[place][1] for place in places]), strict=True))
        parts: list[list[str]] = [[] for _ in utterances]
        for place, (number, _) in enumerate(windows):
            parts[number].append(heard[place].strip())
        return [" ".join(filter(None, words)) for words in parts]

    def _windows(self, units: Sequence[int]) -> list[np.ndarray]:
        if not units:
            return []
        rate_hz = self._processor.feature_extractor.sampling_rate
        wave_N = audio.resample(self._codec.decode(units), self._codec.sample_rate_hz, rate_hz)
        size = WINDOW_SECONDS * rate_hz
        return [wave_N[start : start + size] for start in range(0, len(wave_N), size)]

    def _hear(self, waves: Sequence[np.ndarray]) -> list[str]:
        import torch

        rate_hz = self._processor.feature_extractor.sampling_rate
        features = self._processor(list(waves), sampling_rate=rate_hz, return_tensors="pt", return_attention_mask=True)
        with torch.inference_mode():
            ids_BT = self._model.generate(
                features.input_features.to(self._model.device, self._model.dtype),
                attention_mask=features.attention_mask.to(self._model.device),
                **self._how,
            )
        return list(self._processor.batch_decode(ids_BT, skip_special_tokens=True))
