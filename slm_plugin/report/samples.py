"""Generations to read, and to listen to: the units of an answer as a WAV inside the page."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from slm_plugin.errors import SlmError
from slm_plugin.report.content import Example, Samples
from slm_plugin.report.folder import read_object
from slm_plugin.speech.protocol import Codec
from slm_plugin.vocabulary import UNIT_SPELLING, text_to_units

MAX_SECONDS = 30.0
"""Longer audio is cut: a page holds what it plays."""

MAX_FILE_BYTES = 4_000_000
"""Largest recording of a run that is put into the page."""

SPOKEN = ("question.wav", "answer.wav")
"""Recordings that a run leaves of a question and its answer."""

_RUN = re.compile(f"(?:{UNIT_SPELLING})+")


@dataclass
class Sounds:
    """Collects audio up to a limit.

    Attributes:
        codec: What units are decoded with; None for a page without audio.
        limit: How many recordings at most.
        found: Data URIs by key.
        refused: Recordings that were left out because of the limit.
        errors: What could not be decoded.
    """

    codec: Codec | None
    limit: int
    found: dict[str, str] = field(default_factory=dict)
    refused: int = 0
    errors: list[str] = field(default_factory=list)

    def of_units(self, units: Sequence[int]) -> tuple[str, float] | None:
        """Decode units and return the key and the length in seconds of their audio; None without."""
        if self.codec is None or not units:
            return None
        if len(self.found) >= self.limit:
            self.refused += 1
            return None
        try:
            wave_N = self.codec.decode(units)
        except SlmError as error:
            self.errors.append(str(error))
            return None
        wave_N = wave_N[: int(MAX_SECONDS * self.codec.sample_rate_hz)]
        if not len(wave_N):
            return None
        key = f"audio-{len(self.found)}"
        self.found[key] = data_uri(wav_bytes(wave_N, self.codec.sample_rate_hz))
        return key, len(wave_N) / self.codec.sample_rate_hz


def read_samples(scores: Mapping[str, Any], stage: str, limit: int) -> list[Samples]:
    """Return the first generations of each skill from a file of scores, without audio."""
    found = []
    for skill, score in scores.items():
        examples = [_example(example) for example in list(score.get("examples", []))[:limit]]
        if examples:
            found.append(Samples(stage, skill, examples))
    return found


def _example(content: Mapping[str, Any]) -> Example:
    prompt, expected, answer = (str(content.get(key, "")) for key in ("prompt", "expected", "answer"))
    return Example(prompt, expected, answer, units=len(text_to_units(answer)))


def with_audio(samples: Samples, sounds: Sounds) -> Samples:
    """Return generations with the audio of their answers."""
    examples = []
    for example in samples.examples:
        sound = sounds.of_units(text_to_units(example.answer))
        examples.append(example if sound is None else replace(example, audio=sound[0], seconds=sound[1]))
    return replace(samples, examples=examples)


def folded(text: str) -> list[tuple[str, int]]:
    """Split a text into plain parts and runs of units: ``[("yes", 0), ("<|3|><|1|>", 2)]``."""
    parts: list[tuple[str, int]] = []
    end = 0
    for match in _RUN.finditer(text):
        if match.start() > end:
            parts.append((text[end : match.start()], 0))
        parts.append((match[0], len(text_to_units(match[0]))))
        end = match.end()
    if end < len(text):
        parts.append((text[end:], 0))
    return parts


def spoken(folder: Path, prefix: str, sounds: Sounds) -> dict[str, str]:
    """Put the recordings that a run left into the page; returns the key by name of the file."""
    found = {}
    for name in SPOKEN:
        path = folder / name
        if path.is_file() and path.stat().st_size <= MAX_FILE_BYTES:
            key = found[name] = f"{prefix}-{path.stem}"
            sounds.found[key] = data_uri(path.read_bytes())
    return found


def codec_name(folder: Path) -> str | None:
    """Return the codec in a run's ``serve.json``."""
    name = read_object(folder / "serve.json").get("codec")
    return name if isinstance(name, str) else None


def wav_bytes(wave_N: np.ndarray, rate_hz: int) -> bytes:
    """Return a wave as a WAV file of 16 bits a sample."""
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(wave_N, -1.0, 1.0), rate_hz, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def data_uri(wav: bytes) -> str:
    """Return a WAV file as a URI that needs no other file."""
    return "data:audio/wav;base64," + base64.b64encode(wav).decode("ascii")
