"""From an item to recordings that a codec takes: read or spoken, conditioned, cut into words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from slm_plugin.alignment.words import Words, split_words
from slm_plugin.errors import AudioError, EngineError, SlmError
from slm_plugin.prepare.corpora.protocol import ChatItem, SpokenItem
from slm_plugin.prepare.filters import DroppedError
from slm_plugin.prepare.voices.protocol import Speaker, Voice, asking
from slm_plugin.records import Utterance, WordSpan
from slm_plugin.speech import audio
from slm_plugin.speech.policy import AudioPolicy, Conditioned, condition
from slm_plugin.vocabulary import text_to_units


@dataclass(frozen=True, eq=False)
class Ready:
    """One utterance ready for the codec.

    Attributes:
        text: What is said.
        words: The text in pieces.
        sound: The recording.
        known: Word times that came with it.
        speaker: Who speaks.
    """

    text: str
    words: Words
    sound: Conditioned
    known: tuple[WordSpan, ...]
    speaker: str


def spoken(item: SpokenItem, sample_rate_hz: int, policy: AudioPolicy) -> list[Ready]:
    """Return the utterance of a recording.

    Raises:
        DroppedError: It cannot be used.
    """
    check_text(item.text)
    try:
        wave, rate_hz = audio.read(item.audio)
        return [_ready(item.text, item.language, wave, rate_hz, item.words, item.speaker, sample_rate_hz, policy)]
    except AudioError as error:
        raise DroppedError("audio", str(error)) from None


def said(item: ChatItem, voice: Voice, speaker: Speaker, sample_rate_hz: int, policy: AudioPolicy) -> list[Ready]:
    """Return question and answer of a chat, spoken.

    Raises:
        DroppedError: One of them cannot be spoken.
        EngineError: The synthesiser is away.
    """
    found = []
    for text, who in ((item.question, asking(voice.questions, item.name)), (item.answer, voice.answers)):
        check_text(text)
        try:
            utterance: Utterance = speaker.say(text, who)
            wave, rate_hz = utterance.wave_N, utterance.sample_rate_hz
            found.append(_ready(text, item.language, wave, rate_hz, utterance.words, who, sample_rate_hz, policy))
        except EngineError:
            raise
        except SlmError as error:
            raise DroppedError("speech", str(error)) from None
    return found


def check_text(text: str) -> None:
    """Refuse texts that teach nothing or that would be read as units.

    Raises:
        DroppedError: Says which.
    """
    if not text.strip():
        raise DroppedError("no_text", "there is no text.")
    if text_to_units(text):
        raise DroppedError(
            "units_in_text", "the text holds unit tokens such as <|17|>, which would be heard as speech."
        )


def _ready(
    text: str,
    language: str,
    wave: Any,
    rate_hz: int,
    known: tuple[WordSpan, ...],
    speaker: str,
    sample_rate_hz: int,
    policy: AudioPolicy,
) -> Ready:
    sound = condition(wave, rate_hz, sample_rate_hz, policy)
    moved = tuple(replace(s, start_s=s.start_s - sound.trimmed_s, end_s=s.end_s - sound.trimmed_s) for s in known)
    return Ready(text, split_words(text, language), sound, moved, speaker)
