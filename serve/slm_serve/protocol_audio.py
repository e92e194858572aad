"""The wire protocol of ``/v1/audio``: https://platform.openai.com/docs/api-reference/audio.

"Ours" marks what OpenAI's API does not have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from slm_serve.protocol import StrictRequest, voice_name

SPEECH_UNSUPPORTED: Mapping[str, Any] = {}
"""Speech has no parameter that is known and not done; values that are not are refused one by one."""

TRANSCRIPTION_UNSUPPORTED: Mapping[str, Any] = {
    "chunking_strategy": "auto",
    "include": [],
    "keywords": [],
    "known_speaker_names": [],
    "known_speaker_references": [],
    "languages": [],
    "prompt": "",
    "timestamp_granularities": ["segment"],
}
"""OpenAI's parameters that this server has no use for, with the one value that asks for nothing."""


class SpeechRequest(StrictRequest):
    """Body of ``POST /v1/audio/speech``."""

    model: str
    input: Annotated[str, Field(min_length=1, max_length=4096)]
    """What to say."""
    voice: Annotated[str, BeforeValidator(voice_name)]
    """A name, or ``{"id": name}``: OpenAI's names, all the codec's default, or one of the codec's own."""
    instructions: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """The words in front of the text that ask the model to speak; without, those of its training."""
    response_format: Literal["mp3", "opus", "aac", "flac", "wav", "pcm"] = "mp3"
    stream_format: Literal["audio", "sse"] = "audio"
    speed: float = 1.0
    """A factor; units have a speed of their own, so only 1 is possible."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Ours."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Ours."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Ours: most tokens, units included."""

    @model_validator(mode="after")
    def _own_speed(self) -> SpeechRequest:
        if self.speed != 1.0:
            raise ValueError("speed: units have a speed of their own; only 1.0 is possible.")
        return self


class TranscriptionRequest(StrictRequest):
    """The form of ``POST /v1/audio/transcriptions``, without its file."""

    model: str
    response_format: Literal["json", "text", "verbose_json"] = "json"
    stream: bool = False
    language: Annotated[str, Field(pattern="^[A-Za-z]{2,3}$")] | None = None
    """Told in ``verbose_json``; the model listens to whatever language it was trained on."""
    temperature: Annotated[float, Field(ge=0, le=1)] = 0.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Ours."""
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    """Ours."""

    @model_validator(mode="after")
    def _streams_json(self) -> TranscriptionRequest:
        if self.stream and self.response_format == "verbose_json":
            raise ValueError("response_format 'verbose_json' cannot be streamed; ask for 'json' or 'text'.")
        return self


class InputTokens(BaseModel):
    """Tokens of the input by kind."""

    audio_tokens: int
    text_tokens: int


class TokenUsage(BaseModel):
    """Tokens used; a unit of speech is one audio token."""

    type: Literal["tokens"] = "tokens"
    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_token_details: InputTokens

    @classmethod
    def count(cls, prompt: int, prompt_audio: int, completion: int) -> TokenUsage:
        """Return the usage of a prompt of so many tokens, some of them units, and of its answer."""
        return cls(
            input_tokens=prompt,
            output_tokens=completion,
            total_tokens=prompt + completion,
            input_token_details=InputTokens(audio_tokens=prompt_audio, text_tokens=prompt - prompt_audio),
        )


class SpeechDelta(BaseModel):
    """A piece of the file of sound, in base64."""

    type: Literal["speech.audio.delta"] = "speech.audio.delta"
    audio: str


class SpeechDone(BaseModel):
    """The sound is complete."""

    type: Literal["speech.audio.done"] = "speech.audio.done"
    usage: TokenUsage


class Transcription(BaseModel):
    """What was said."""

    text: str
    usage: TokenUsage


class Duration(BaseModel):
    """What OpenAI counts verbose transcriptions by."""

    type: Literal["duration"] = "duration"
    seconds: float


class VerboseTranscription(BaseModel):
    """What was said, with what is known about the recording."""

    task: Literal["transcribe"] = "transcribe"
    language: str
    duration: float
    """Seconds."""
    text: str
    usage: Duration


class TranscriptDelta(BaseModel):
    """Further words."""

    type: Literal["transcript.text.delta"] = "transcript.text.delta"
    delta: str


class TranscriptDone(BaseModel):
    """All words."""

    type: Literal["transcript.text.done"] = "transcript.text.done"
    text: str
    usage: TokenUsage
