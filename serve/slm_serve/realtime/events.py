"""The client's events: https://platform.openai.com/docs/api-reference/realtime-client-events.

"Ours" marks what OpenAI's API does not have. What cannot be done is refused by name.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from slm_serve.protocol import MOST_PARTS, StrictRequest, voice_name

MAX_OUTPUT_TOKENS = 4096

MOST_INSTRUCTIONS = 2**17
"""Most characters of the instructions, which every ``session.updated`` repeats."""


Modality = Literal["text", "audio"]


def _aloud() -> list[Modality]:
    return ["audio"]


class PcmFormat(StrictRequest):
    """Mono pcm16, little-endian, 24 kHz."""

    type: Literal["audio/pcm"] = "audio/pcm"
    rate: Literal[24000] = 24000


class ServerVad(StrictRequest):
    """Turns are found by voice activity."""

    type: Literal["server_vad"]
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Probability from which on a moment is speech."""
    prefix_padding_ms: Annotated[int, Field(ge=0, le=5000)] = 300
    """Sound in front of the first speech that belongs to the turn."""
    silence_duration_ms: Annotated[int, Field(ge=32, le=10_000)] = 500
    """Silence that ends the turn."""
    create_response: bool = True
    interrupt_response: bool = True


class Transcription(StrictRequest):
    """Asks for the words of spoken turns; they are the model's own, told with its answer."""

    model: str | None = None
    language: str | None = None


class AudioInput(StrictRequest):
    """How sound comes in."""

    format: PcmFormat = PcmFormat()
    turn_detection: ServerVad | None = None
    """Null leaves turns to the client."""
    transcription: Transcription | None = None


class AudioOutput(StrictRequest):
    """How sound goes out."""

    format: PcmFormat = PcmFormat()
    voice: Annotated[str, BeforeValidator(voice_name)] = "default"
    speed: Annotated[float, Field(ge=1, le=1)] = 1.0
    """A factor; units have a speed of their own, so only 1 is possible."""


class SessionAudio(StrictRequest):
    """Sound in both directions."""

    input: AudioInput = AudioInput()
    output: AudioOutput = AudioOutput()


class Settings(StrictRequest):
    """What a session and a single response both say of an answer."""

    instructions: Annotated[str, Field(max_length=MOST_INSTRUCTIONS)] | None = None
    output_modalities: Annotated[list[Modality], Field(fail_fast=True, min_length=1, max_length=1)] = Field(
        default_factory=_aloud
    )
    """One of them: sound comes with its transcript."""
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_OUTPUT_TOKENS)] | Literal["inf"] = "inf"
    tools: Annotated[list[Any], Field(max_length=0)] = Field(default_factory=list)
    tool_choice: Literal["none", "auto"] = "auto"
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """Ours."""
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    """Ours."""


class SessionSettings(Settings):
    """A session as it stands after an update."""

    type: Literal["realtime"]
    model: str
    audio: SessionAudio = SessionAudio()
    truncation: Literal["disabled"] = "disabled"


class ResponseAudio(StrictRequest):
    """Sound of one response."""

    output: AudioOutput = AudioOutput()


class ResponseSettings(Settings):
    """What one response does otherwise than the session; what it does not say is the session's."""

    audio: ResponseAudio = ResponseAudio()
    conversation: Literal["auto", "none"] = "auto"
    """``none`` leaves the answer out of the conversation."""
    metadata: dict[str, str] | None = None


class ClientEvent(StrictRequest):
    """What every event may carry."""

    event_id: str | None = None


class SessionUpdate(ClientEvent):
    """Changes the session; only what is given changes."""

    type: Literal["session.update"]
    session: dict[str, Any]


class Append(ClientEvent):
    """Further sound."""

    type: Literal["input_audio_buffer.append"]
    audio: str
    """pcm16 in base64."""


class Commit(ClientEvent):
    """The sound so far is a turn."""

    type: Literal["input_audio_buffer.commit"]


class Clear(ClientEvent):
    """Forget the sound so far."""

    type: Literal["input_audio_buffer.clear"]


class ItemPart(StrictRequest):
    """A piece of a message."""

    type: Literal["input_text", "input_audio", "output_text"]
    text: str | None = None
    audio: str | None = None
    """A recording: pcm16 in base64."""
    transcript: str | None = None


class NewItem(StrictRequest):
    """A message to put into the conversation."""

    id: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    object: Literal["realtime.item"] = "realtime.item"
    type: Literal["message"]
    role: Literal["user", "assistant", "system"]
    status: Literal["completed", "incomplete", "in_progress"] | None = None
    content: Annotated[list[ItemPart], Field(fail_fast=True, min_length=1, max_length=MOST_PARTS)]


class ItemCreate(ClientEvent):
    """Puts a message into the conversation."""

    type: Literal["conversation.item.create"]
    previous_item_id: str | None = None
    item: NewItem


class ItemDelete(ClientEvent):
    """Takes a message out of the conversation."""

    type: Literal["conversation.item.delete"]
    item_id: str


class ItemRetrieve(ClientEvent):
    """Asks for a message."""

    type: Literal["conversation.item.retrieve"]
    item_id: str


class ItemTruncate(ClientEvent):
    """Says how much of an answer was heard; the model forgets the rest."""

    type: Literal["conversation.item.truncate"]
    item_id: str
    content_index: Literal[0]
    audio_end_ms: Annotated[int, Field(ge=0)]


class ResponseCreate(ClientEvent):
    """Asks for an answer."""

    type: Literal["response.create"]
    response: dict[str, Any] = Field(default_factory=dict)


class ResponseCancel(ClientEvent):
    """Ends the answer under way."""

    type: Literal["response.cancel"]
    response_id: str | None = None


EVENTS: dict[str, type[ClientEvent]] = {
    kind.model_fields["type"].annotation.__args__[0]: kind  # type: ignore[union-attr]  # a Literal
    for kind in (
        SessionUpdate,
        Append,
        Commit,
        Clear,
        ItemCreate,
        ItemDelete,
        ItemRetrieve,
        ItemTruncate,
        ResponseCreate,
        ResponseCancel,
    )
}
"""Every event that a client may send, by its type."""
