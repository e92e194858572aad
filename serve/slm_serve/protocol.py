"""The wire protocol: OpenAI's Chat Completions (https://platform.openai.com/docs/api-reference/chat).

"Ours" marks what OpenAI's API does not have. Requests are parsed strictly: what cannot be done is
refused by name instead of being passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from slm_serve.backends.protocol import FinishReason
from slm_serve.interleave.form import Malformed

UNSUPPORTED: Mapping[str, Any] = {
    "function_call": "none",
    "functions": [],
    "logit_bias": {},
    "logprobs": False,
    "moderation": None,
    "parallel_tool_calls": None,
    "prediction": None,
    "prompt_cache_options": None,
    "prompt_cache_retention": None,
    "reasoning_effort": None,
    "response_format": {"type": "text"},
    "service_tier": "auto",
    "store": False,
    "tool_choice": "none",
    "tools": [],
    "top_logprobs": None,
    "verbosity": None,
    "web_search_options": None,
}
"""OpenAI's parameters that this server has no use for, with the one value that asks for nothing."""


MOST_MESSAGES = 4096
"""Most messages of a conversation."""

MOST_PARTS = 1024
"""Most parts of a message."""


def _without_null(value: Any) -> Any:
    """Null means "not given" everywhere in OpenAI's requests."""
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else value


def _listed(value: Any) -> Any:
    """Content may be written as a plain string, which is one text part."""
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


def voice_name(value: Any) -> Any:
    """Take the name out of ``{"id": name}``."""
    return value["id"] if isinstance(value, dict) and set(value) == {"id"} else value


def _mode_alone(value: Any) -> Any:
    return {"mode": value} if isinstance(value, str) else value


def _stops(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class StrictRequest(BaseModel):
    """A part of a request: unknown keys are refused, null means "not given"."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _nulls(cls, value: Any) -> Any:
        return _without_null(value)


# ------------------------------------------------------------------------------------------- requests
class TextPart(StrictRequest):
    """Written text."""

    type: Literal["text"]
    text: str


class InputAudio(StrictRequest):
    """A recording."""

    data: str
    """The file in base64."""
    format: Literal["wav", "mp3", "flac", "ogg", "opus", "m4a", "mp4", "webm", "aac", "3gp", "amr", "pcm16"]
    """Ours: all but wav and mp3. pcm16 is bare samples, mono, 24 kHz; every other file says itself what it is."""


class AudioPart(StrictRequest):
    """Spoken input."""

    type: Literal["input_audio"]
    input_audio: InputAudio


# an error costs more than the value it is about: the first one ends the check of a list
Texts = Annotated[list[TextPart], Field(fail_fast=True, max_length=MOST_PARTS), BeforeValidator(_listed)]
Parts = Annotated[
    list[Annotated[TextPart | AudioPart, Field(discriminator="type")]],
    Field(fail_fast=True),
    Field(max_length=MOST_PARTS),
    BeforeValidator(_listed),
]


class SystemMessage(StrictRequest):
    """Instructions; ``developer`` is taken as ``system``."""

    role: Literal["system", "developer"]
    content: Texts


class UserMessage(StrictRequest):
    """What the user writes or says."""

    role: Literal["user"]
    content: Parts


class AudioReference(StrictRequest):
    """An earlier spoken answer of this server; further fields of the answer may be left in."""

    model_config = ConfigDict(extra="ignore")

    id: str


class AssistantMessage(StrictRequest):
    """An earlier answer: its text, or the id of its sound, which puts it back exactly."""

    role: Literal["assistant"]
    content: Texts | None = None
    audio: AudioReference | None = None
    annotations: Annotated[list[Any], Field(max_length=0)] = []
    slm: dict[str, Any] | None = None
    """Ours: what this server added to the answer; passed over."""

    @model_validator(mode="after")
    def _says_something(self) -> AssistantMessage:
        if self.content is None and self.audio is None:
            raise ValueError("an assistant message needs content or audio.id.")
        return self


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]


class AudioOutput(StrictRequest):
    """How a spoken answer should be."""

    format: Literal["wav", "mp3", "flac", "opus", "aac", "pcm16"]
    voice: Annotated[str, BeforeValidator(voice_name)] = "default"
    """A name, or ``{"id": name}``: OpenAI's names, all the codec's default, or one of the codec's own."""


class InterleaveRequest(StrictRequest):
    """Ours: which tokens the answer may consist of."""

    mode: Literal["free", "text", "units", "ratio"] = "free"
    """What the model pleases, words alone, speech units alone, or rounds of ``ratio``."""
    ratio: (
        Annotated[list[Annotated[int, Field(ge=1, le=1000)]], Field(fail_fast=True, min_length=2, max_length=2)] | None
    ) = None
    """Text tokens of a round and units that follow them."""
    check: bool = True
    """Whether a malformed spoken answer is ended; ``ignore_eos`` means false too."""

    @model_validator(mode="after")
    def _agrees(self) -> InterleaveRequest:
        if (self.mode == "ratio") != (self.ratio is not None):
            raise ValueError('interleave.ratio is needed for mode "ratio", and only possible there.')
        return self


class StreamOptions(StrictRequest):
    """What a stream contains beside the answer."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class ChatRequest(StrictRequest):
    """Body of ``POST /v1/chat/completions``."""

    model: str
    messages: Annotated[list[Message], Field(fail_fast=True, min_length=1, max_length=MOST_MESSAGES)]
    modalities: Annotated[list[Literal["text", "audio"]], Field(fail_fast=True, min_length=1, max_length=2)] = ["text"]
    audio: AudioOutput | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    """Most tokens of the answer, units included; takes precedence over ``max_tokens``."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1024)]],
        Field(fail_fast=True, max_length=4),
        BeforeValidator(_stops),
    ] = []
    """Stop strings in the words of the answer (in the transcript, where it is spoken)."""
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    n: Literal[1] = 1
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    metadata: dict[str, str] | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    """Ours, as in vLLM."""
    ignore_eos: bool = False
    """Ours, as in vLLM."""
    interleave: Annotated[InterleaveRequest, BeforeValidator(_mode_alone)] = InterleaveRequest()
    """Ours. A mode may be written alone: ``"text"``."""

    @model_validator(mode="after")
    def _agrees(self) -> ChatRequest:
        if self.speech:
            if "text" not in self.modalities:
                raise ValueError('modalities ["audio"] alone is not possible; ask for ["text", "audio"].')
            if self.audio is None:
                raise ValueError('audio (its format and voice) is required when modalities include "audio".')
            if self.stream and self.audio.format != "pcm16":
                raise ValueError(f"audio.format {self.audio.format!r} cannot be streamed; ask for 'pcm16'.")
        elif self.audio is not None:
            raise ValueError('audio is given, but modalities do not include "audio".')
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is only possible when stream is true.")
        return self

    @property
    def speech(self) -> bool:
        """Whether the answer is to be spoken."""
        return "audio" in self.modalities


# ------------------------------------------------------------------------------------------ responses
class Extension(BaseModel):
    """Ours: what is to be told beside the answer."""

    heard: str | None = None
    """The question as the model heard it."""
    answer: str | None = None
    """The written answer that the spoken one follows, where the answer is spoken."""
    malformed: Malformed | None = None
    """Why a spoken answer was ended early (its ``finish_reason`` is then ``length``)."""


class AudioAnswer(BaseModel):
    """A spoken answer; it expires at a second of Unix time."""

    id: str
    data: str
    expires_at: int
    transcript: str


class AnswerMessage(BaseModel):
    """The assistant's message."""

    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    audio: AudioAnswer | None = None
    slm: Extension | None = None
    """Ours; present where the question was spoken, or the answer is malformed."""


class Choice(BaseModel):
    """The one answer."""

    index: Literal[0] = 0
    message: AnswerMessage
    logprobs: None = None
    finish_reason: FinishReason


class PromptTokens(BaseModel):
    """Tokens of the prompt by kind."""

    audio_tokens: int
    text_tokens: int
    cached_tokens: int = 0


class CompletionTokens(BaseModel):
    """Tokens of the answer by kind."""

    audio_tokens: int
    text_tokens: int
    reasoning_tokens: int = 0


class Usage(BaseModel):
    """Tokens used; a unit of speech is one audio token."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokens
    completion_tokens_details: CompletionTokens

    @classmethod
    def count(cls, prompt: int, prompt_audio: int, completion: int, completion_audio: int) -> Usage:
        """Return the usage of a prompt and an answer of so many tokens, of which so many are units."""
        return cls(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
            prompt_tokens_details=PromptTokens(audio_tokens=prompt_audio, text_tokens=prompt - prompt_audio),
            completion_tokens_details=CompletionTokens(
                audio_tokens=completion_audio, text_tokens=completion - completion_audio
            ),
        )


class ChatCompletion(BaseModel):
    """Answer to a request that does not stream; ``created`` is Unix time in seconds."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage


class AudioDelta(BaseModel):
    """A piece of a spoken answer: words, or base64 pcm16, or at last when it expires."""

    id: str
    transcript: str | None = None
    data: str | None = None
    expires_at: int | None = None


class Delta(BaseModel):
    """A piece of a message; only what is set is sent."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: None = None
    audio: AudioDelta | None = None
    slm: Extension | None = None
    """Ours."""


class ChunkChoice(BaseModel):
    """A piece of the one answer."""

    index: Literal[0] = 0
    delta: Delta
    logprobs: None = None
    finish_reason: FinishReason | None = None


class ChatCompletionChunk(BaseModel):
    """One event of a streamed answer; ``created`` is Unix time in seconds."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
