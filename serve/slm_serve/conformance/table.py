"""The rows: a parameter, values of it that are taken and refused, and where they deviate from OpenAI's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One parameter.

    Attributes:
        name: Of the parameter.
        taken: Values that are accepted; a required parameter shows one.
        refused: Values that OpenAI accepts and that are refused by name.
        note: Where it deviates; empty where it does what OpenAI's does.
        ours: Whether OpenAI's API does not have it.
    """

    name: str
    taken: tuple[Any, ...] = ()
    refused: tuple[Any, ...] = ()
    note: str = ""
    ours: bool = False

    @property
    def support(self) -> str:
        """Say whether it is supported: ``yes``, ``partly`` or ``no``."""
        if not self.taken:
            return "no"
        return "partly" if self.refused else "yes"


def _no(name: str, *refused: Any, taken: tuple[Any, ...] = ()) -> Row:
    nothing = f"Only {taken[0]!r}, which asks for nothing." if taken else ""
    return Row(name, taken, refused, nothing)


_LABEL = "Taken; it has no effect."
_SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}
_VOICE = "OpenAI's names are the codec's default voice; a codec with speakers adds its own (see `/v1/models`)."

CHAT = (
    Row("model", ("fake",), note="A model of this server."),
    Row(
        "messages",
        ([{"role": "user", "content": "hi"}],),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],),
        "Text and `input_audio` (wav, mp3, flac, ogg, opus, m4a, mp4, webm, aac, 3gp, amr, pcm16; any rate from 8 kHz,"
        " 8 channels, 120 s);"
        " `audio: {id}` of an earlier answer puts back its exact tokens for an hour. No images, files or tools.",
    ),
    Row("modalities", (["text"],), (["audio"],), '`["text"]` or `["text", "audio"]`.'),
    Row(
        "audio",
        (_SPOKEN["audio"],),
        ({"voice": "tenor", "format": "wav"},),
        f"Formats wav, mp3, flac, opus, aac, pcm16; streamed: pcm16. {_VOICE}",
    ),
    Row("stream", (True, False)),
    Row("stream_options", ({"include_usage": True},), ({"include_obfuscation": True},), "No obfuscation."),
    Row("temperature", (0.5,)),
    Row("top_p", (0.5,)),
    Row("frequency_penalty", (0.5,)),
    Row("presence_penalty", (0.5,)),
    Row("seed", (1,)),
    Row("stop", ("x", ["x", "y"]), note="Found in the words, across units too."),
    Row("max_tokens", (5,), note="Units count."),
    Row("max_completion_tokens", (5,), note="Units count."),
    Row("n", (1,), (2,), "One answer a request."),
    Row("user", ("me",), note=_LABEL),
    Row("safety_identifier", ("me",), note=_LABEL),
    Row("prompt_cache_key", ("me",), note=_LABEL),
    Row("metadata", ({"a": "b"},), note=_LABEL),
    _no("function_call", "auto", taken=("none",)),
    _no("functions", [{"name": "f"}], taken=([],)),
    _no("logit_bias", {"1": 1}, taken=({},)),
    _no("logprobs", True, taken=(False,)),
    _no("moderation", {"model": "x"}),
    _no("parallel_tool_calls", True),
    _no("prediction", {"type": "content", "content": "x"}),
    _no("prompt_cache_options", {"mode": "x"}),
    _no("prompt_cache_retention", "24h"),
    _no("reasoning_effort", "low"),
    _no("response_format", {"type": "json_object"}, taken=({"type": "text"},)),
    _no("service_tier", "priority", taken=("auto",)),
    _no("store", True, taken=(False,)),
    _no("tool_choice", "auto", taken=("none",)),
    _no("tools", [{"type": "function"}], taken=([],)),
    _no("top_logprobs", 2),
    _no("verbosity", "low"),
    _no("web_search_options", {"user_location": None}),
    Row("top_k", (5,), note="As in vLLM.", ours=True),
    Row("ignore_eos", (True,), note="As in vLLM.", ours=True),
    Row(
        "interleave",
        ("text", {"mode": "free", "check": False}),
        note="`text`, `units` or a `ratio` of both; `check: false` lets malformed answers go on.",
        ours=True,
    ),
)

SPEECH = (
    Row("model", ("fake",), note="A model of this server."),
    Row("input", ("hi",), note="The model says it as it was trained to (TTS stage)."),
    Row("voice", ("alloy", {"id": "default"}), ("tenor",), _VOICE),
    Row("instructions", ("Say this: ",), note="Stands in front of the text, in place of the words of the training."),
    Row(
        "response_format",
        ("mp3", "opus", "aac", "flac", "wav", "pcm"),
        note="24 kHz mono. aac where PyAV's FFmpeg has the encoder.",
    ),
    Row("stream_format", ("audio", "sse"), note="`audio` is chunked; both begin with the first sound."),
    Row("speed", (1.0,), (1.5,), "Units have a speed of their own."),
    Row("temperature", (0.5,), ours=True),
    Row("seed", (1,), ours=True),
    Row("max_tokens", (50,), note="Units count.", ours=True),
)

TRANSCRIPTION = (
    Row("model", ("fake",), note="A model of this server."),
    Row(
        "file",
        (),
        (),
        "wav, mp3, flac, ogg, opus, m4a, mp4, webm, aac, 3gp, amr, video files with one sound stream; any rate from"
        " 8 kHz, up to 8 channels, up to 120 s.",
    ),
    Row(
        "response_format",
        ("json", "text", "verbose_json"),
        ("srt", "vtt", "diarized_json"),
        "`verbose_json` tells language and duration, and no segments: the model gives no times.",
    ),
    Row("stream", ("true", "false")),
    Row("language", ("en",), note="Told in `verbose_json`; the model listens to what it was trained on."),
    Row("temperature", ("0.5",)),
    _no("prompt", "names: David", taken=("",)),
    _no("timestamp_granularities", ["word"], taken=(["segment"],)),
    _no("include", ["logprobs"]),
    _no("chunking_strategy", "vad", taken=("auto",)),
    _no("keywords", ["x"]),
    _no("known_speaker_names", ["x"]),
    _no("known_speaker_references", ["x"]),
    _no("languages", ["en"]),
    Row("seed", ("1",), ours=True),
    Row("max_tokens", ("50",), ours=True),
)

SESSION = (
    Row("type", ("realtime",), ("transcription",), "Sessions that only transcribe are not done."),
    Row("model", ("fake",), note="Chosen by `?model=` when connecting; it cannot change."),
    Row("instructions", ("be kind",)),
    Row("output_modalities", (["audio"], ["text"])),
    Row("max_output_tokens", (5, "inf"), note="Units count."),
    Row(
        "audio",
        (
            {"input": {"turn_detection": None}},
            {"input": {"turn_detection": {"type": "server_vad", "silence_duration_ms": 300}}},
            {"input": {"transcription": {"model": "whisper-1"}}},
            {"output": {"voice": "marin"}},
        ),
        (
            {"input": {"turn_detection": {"type": "semantic_vad"}}},
            {"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 6000}}},
            {"input": {"noise_reduction": {"type": "near_field"}}},
            {"input": {"format": {"type": "audio/pcmu"}}},
            {"output": {"speed": 1.5}},
        ),
        "`audio/pcm` at 24 kHz both ways; turns by `server_vad` (silero-vad) or the client. `transcription` tells what"
        " the model itself heard, whatever transcription model is named.",
    ),
    Row("tool_choice", ("none", "auto"), ("required",), "There are no tools."),
    _no("tools", [{"type": "function", "name": "f"}], taken=([],)),
    Row("truncation", ("disabled",), ("auto",), "A conversation longer than the model's context is an error."),
    _no("include", ["item.input_audio_transcription.logprobs"], taken=([],)),
    _no("parallel_tool_calls", True),
    _no("prompt", {"id": "x"}),
    _no("reasoning", {"effort": "low"}),
    _no("tracing", "auto", taken=(None,)),
    Row("temperature", (0.5,), ours=True),
    Row("seed", (1,), ours=True),
)

CLIENT_EVENTS = (
    Row("session.update", ({},), note="See the session."),
    Row("input_audio_buffer.append", ({},)),
    Row("input_audio_buffer.commit", ({},)),
    Row("input_audio_buffer.clear", ({},)),
    Row("conversation.item.create", ({},), note="Messages; no function calls."),
    Row("conversation.item.delete", ({},)),
    Row("conversation.item.retrieve", ({},)),
    Row("conversation.item.truncate", ({},), note="The model forgets the units behind it; the transcript is dropped."),
    Row("response.create", ({},), note="`input` is not done; what is not given is the session's."),
    Row("response.cancel", ({},)),
    Row("output_audio_buffer.clear", (), ({},), "WebRTC and SIP alone."),
)

ENDPOINTS: dict[str, tuple[Row, ...]] = {
    "POST /v1/chat/completions": CHAT,
    "POST /v1/audio/speech": SPEECH,
    "POST /v1/audio/transcriptions": TRANSCRIPTION,
    "/v1/realtime: session": SESSION,
    "/v1/realtime: client events": CLIENT_EVENTS,
}
"""Every table, by its heading."""
