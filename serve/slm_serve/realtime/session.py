"""One realtime session: takes the client's events in turn, and answers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from slm_plugin.errors import SlmError, suggest
from slm_serve.backends.protocol import SamplingParams
from slm_serve.conversation import DEFAULT_MAX_TOKENS, Reading
from slm_serve.errors import RequestError, error_body
from slm_serve.job import Job
from slm_serve.parsing import parse_object, quoted, read_json
from slm_serve.prompt import Ids, room
from slm_serve.realtime import events
from slm_serve.realtime.conversation import Conversation, Item, new_id
from slm_serve.realtime.listening import InputBuffer, Started, Stopped
from slm_serve.realtime.response import CancelReason, Response
from slm_serve.service import Service

_NOT_DONE: Mapping[str, Any] = {
    "include": [],
    "input": None,
    "noise_reduction": None,
    "parallel_tool_calls": None,
    "prompt": None,
    "reasoning": None,
    "tracing": None,
}
"""OpenAI's settings that this server has no use for, with the one value that asks for nothing."""

_LARGE_MESSAGE = 2**16
"""Characters of a message from which on it is parsed in a worker, off the event loop."""


class Session:
    """A client's conversation.

    Args:
        service: What listens, generates and speaks.
        model: Name that the engine knows.
        write: Sends one event to the client.
    """

    def __init__(self, service: Service, model: str, write: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
        self._service = service
        self._model = model
        self._write = write
        self._conversation = Conversation()
        self._buffer = InputBuffer(service.voice_activity, service.limits.clip_s)
        self._settings = events.SessionSettings(
            type="realtime",
            model=model,
            audio=events.SessionAudio(
                input=events.AudioInput(turn_detection=events.ServerVad(type="server_vad")),
            ),
        )
        self._buffer.detect(self._settings.audio.input.turn_detection)
        self._response: Response | None = None
        self._answering: asyncio.Task[None] | None = None
        self._speaking_item = ""
        self._id = new_id("sess")
        self._handlers: dict[type[events.ClientEvent], Callable[[Any], Awaitable[None]]] = {
            events.SessionUpdate: self._update,
            events.Append: self._append,
            events.Commit: self._commit,
            events.Clear: self._clear,
            events.ItemCreate: self._create_item,
            events.ItemDelete: self._delete_item,
            events.ItemRetrieve: self._retrieve_item,
            events.ItemTruncate: self._truncate_item,
            events.ResponseCreate: self._create_response,
            events.ResponseCancel: self._cancel_response,
        }

    async def begin(self) -> None:
        """Greet the client.

        Raises:
            RequestError: There is no such model.
            EngineError: The engine is away.
        """
        await self._service.card(self._model)
        await self.send("session.created", session=self._shown())

    async def take(self, message: str) -> None:
        """Take one message of the client; mistakes are told as ``error`` events."""
        event_id: str | None = None
        try:
            if len(message) > _LARGE_MESSAGE:
                raw = await self._service.in_worker(read_json, message, "the message")
            else:
                raw = read_json(message, "the message")
            event_id = raw["event_id"] if isinstance(raw.get("event_id"), str) else None
            kind = raw.get("type")
            if not isinstance(kind, str) or kind not in events.EVENTS:
                text = f"there is no event of type {quoted(kind)}. {suggest(str(kind), list(events.EVENTS), 'Events')}"
                raise RequestError(text, "type", "invalid_value")
            event = parse_object(events.EVENTS[kind], raw, {})
            await self._handlers[type(event)](event)
        except SlmError as error:
            await self.send("error", error={**error_body(error)["error"], "event_id": event_id})

    async def end(self) -> None:
        """Stop everything; the client has left."""
        if self._answering is not None:
            self._answering.cancel()
            await asyncio.gather(self._answering, return_exceptions=True)

    async def send(self, kind: str, **fields: Any) -> None:
        """Send one event."""
        await self._write({"type": kind, "event_id": new_id("event"), **fields})

    # ------------------------------------------------------------------------------------------ settings
    def _shown(self) -> dict[str, Any]:
        return {**self._settings.model_dump(mode="json"), "id": self._id, "object": "realtime.session"}

    async def _update(self, event: events.SessionUpdate) -> None:
        wanted = _overlaid(self._settings.model_dump(mode="json"), _served(event.session))
        settings = parse_object(events.SessionSettings, wanted, _NOT_DONE)
        if settings.model != self._model:
            raise RequestError("the model of a session cannot be changed.", "session.model", "invalid_value")
        self._service.voice(settings.audio.output.voice, "session.audio.output.voice")
        self._settings = settings
        self._buffer.detect(settings.audio.input.turn_detection)
        await self.send("session.updated", session=self._shown())

    # --------------------------------------------------------------------------------------------- sound
    async def _append(self, event: events.Append) -> None:
        try:
            samples = base64.b64decode(event.audio, validate=True)
        except ValueError as error:
            raise RequestError(f"audio is not base64 ({error}).", "audio", "invalid_value") from None
        refused: SlmError | None = None
        for moment in await self._buffer.append(samples):
            try:
                await self._turn(moment)
            except SlmError as error:
                # a further turn of the same sound must not be lost with it
                if refused is not None:
                    await self.send("error", error={**error_body(refused)["error"], "event_id": event.event_id})
                refused = error
        if refused is not None:
            raise refused

    async def _turn(self, moment: Started | Stopped) -> None:
        detection = self._settings.audio.input.turn_detection
        assert detection is not None, "a turn was found that nobody looked for"
        if isinstance(moment, Started):
            self._speaking_item = new_id("item")
            if detection.interrupt_response:
                await self._interrupt("turn_detected")
            await self.send(
                "input_audio_buffer.speech_started",
                audio_start_ms=moment.audio_start_ms,
                item_id=self._speaking_item,
            )
            return
        await self.send(
            "input_audio_buffer.speech_stopped", audio_end_ms=moment.audio_end_ms, item_id=self._speaking_item
        )
        await self._hear(self._speaking_item, moment.recording)
        if detection.create_response:
            await self._respond(self._settings, events.ResponseSettings())

    async def _commit(self, event: events.Commit) -> None:
        await self._hear(new_id("item"), self._buffer.commit())

    async def _clear(self, event: events.Clear) -> None:
        self._buffer.clear()
        await self.send("input_audio_buffer.cleared")

    async def _hear(self, item_id: str, recording: bytes) -> None:
        units = await self._service.encoder.units(recording, "pcm16", "audio")
        content: list[dict[str, Any]] = [{"type": "input_audio", "transcript": None}]
        ids = Ids(tuple(self._service.vocabulary.ids(units)))
        item = Item(item_id, "user", (ids,), content, spoken=True)
        previous = self._conversation.add(item)
        await self.send("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous)
        await self._show(item, previous)

    # --------------------------------------------------------------------------------------------- items
    async def _show(self, item: Item, previous: str | None) -> None:
        for kind in ("conversation.item.added", "conversation.item.done"):
            await self.send(kind, previous_item_id=previous, item=item.shown())

    async def _create_item(self, event: events.ItemCreate) -> None:
        new = event.item
        reading = Reading(self._service, (await self._service.card(self._model)).context, "item.content")
        parts: list[str | Ids] = []
        content: list[dict[str, Any]] = []
        for position, part in enumerate(new.content):
            where = f"item.content[{position}]"
            expected = ("output_text",) if new.role == "assistant" else ("input_text", "input_audio")
            if part.type not in expected or (new.role == "system" and part.type == "input_audio"):
                raise RequestError(f"{where}: {part.type!r} is not possible for {new.role}.", f"{where}.type")
            if part.type == "input_audio":
                parts.append(await reading.recording(part.audio or "", "pcm16", f"{where}.audio"))
                content.append({"type": part.type, "transcript": part.transcript})
            else:
                parts.append(part.text or "")
                content.append({"type": part.type, "text": part.text or ""})
        spoken = any(isinstance(part, Ids) for part in parts)
        item = Item(new.id or new_id("item"), new.role, tuple(parts), content, spoken)
        await self._show(item, self._conversation.add(item, event.previous_item_id))

    async def _delete_item(self, event: events.ItemDelete) -> None:
        self._conversation.remove(event.item_id)
        await self.send("conversation.item.deleted", item_id=event.item_id)

    async def _retrieve_item(self, event: events.ItemRetrieve) -> None:
        await self.send("conversation.item.retrieved", item=self._conversation.get(event.item_id).shown())

    async def _truncate_item(self, event: events.ItemTruncate) -> None:
        units = self._service.vocabulary
        self._conversation.truncate(event.item_id, event.audio_end_ms, units.first_id, units.count)
        await self.send(
            "conversation.item.truncated", item_id=event.item_id, content_index=0, audio_end_ms=event.audio_end_ms
        )

    # ----------------------------------------------------------------------------------------- responses
    async def _create_response(self, event: events.ResponseCreate) -> None:
        wish = parse_object(events.ResponseSettings, event.response, _NOT_DONE)
        session = self._settings.model_dump(mode="json", exclude={"type", "model", "audio", "truncation"})
        merged = parse_object(events.Settings, _overlaid(session, wish.model_dump(include=_given(wish))), {})
        await self._respond(merged, wish)

    async def _respond(self, settings: events.Settings, wish: events.ResponseSettings) -> None:
        if self._answering is not None and not self._answering.done():
            raise RequestError(
                "an answer is under way; cancel it or wait for response.done.",
                None,
                "conversation_already_has_active_response",
            )
        voice = self._settings.audio.output.voice
        if "audio" in wish.model_fields_set:
            voice = wish.audio.output.voice
        job = await self._job(settings, voice)
        question = self._conversation.latest

        def added(item: Item) -> str | None:
            if item.status == "in_progress":
                return self._conversation.add(item)
            return self._conversation.replace(item)

        async def heard(text: str) -> None:
            if self._settings.audio.input.transcription is not None and question is not None:
                await self._transcribed(question.id, text)

        kept = wish.conversation == "auto"
        self._response = Response(self._service, job, self.send, added, heard, wish.metadata, kept)
        self._answering = asyncio.create_task(self._response.run())
        # a task that is cancelled before its first step sends nothing
        await self._response.begun.wait()

    async def _job(self, settings: events.Settings, voice: str) -> Job:
        speech = settings.output_modalities == ["audio"]
        card = await self._service.card(self._model)
        prompt = await self._service.in_worker(
            self._service.prompts.build,
            self._conversation.turns(settings.instructions),
            card.context,
            "conversation",
        )
        wish = None if settings.max_output_tokens == "inf" else settings.max_output_tokens
        limits = [limit for limit in (wish, room(card.context, len(prompt), "conversation")) if limit is not None]
        params = SamplingParams(
            max_tokens=min(limits, default=DEFAULT_MAX_TOKENS),
            temperature=settings.temperature,
            seed=settings.seed,
            stop_token_ids=(self._service.end_id,),
        )
        return Job(
            prompt,
            params,
            self._model,
            sections=self._conversation.asks_aloud,
            speech=speech,
            voice=self._service.voice(voice, "audio.output.voice") if speech else None,
        )

    async def _transcribed(self, item_id: str, text: str) -> None:
        await self.send(
            "conversation.item.input_audio_transcription.completed",
            item_id=item_id,
            content_index=0,
            transcript=text,
            # the words are a part of the answer, which counts them
            usage={"type": "tokens", "input_tokens": 0, "output_tokens": 0, "total_tokens": 0},
        )

    async def _cancel_response(self, event: events.ResponseCancel) -> None:
        response = self._response
        if response is None or self._answering is None or self._answering.done():
            raise RequestError("no answer is under way.", None, "response_cancel_not_active")
        if event.response_id not in (None, response.id):
            raise RequestError(f"the answer under way is not {event.response_id!r}.", "response_id")
        await self._interrupt("client_cancelled")

    async def _interrupt(self, reason: CancelReason) -> None:
        """End the answer under way, if there is one; nothing of it is sent any more but its end."""
        if self._response is None or self._answering is None or self._answering.done():
            return
        self._response.cancel_reason = reason
        self._answering.cancel()
        await asyncio.gather(self._answering, return_exceptions=True)


def _given(settings: events.ResponseSettings) -> set[str]:
    return set(settings.model_fields_set) & set(events.Settings.model_fields)


def _served(session: dict[str, Any]) -> dict[str, Any]:
    """Take out what the server says itself, so that a client may send back what it was told."""
    return {key: value for key, value in session.items() if key not in ("id", "object", "expires_at")}


def _overlaid(below: Any, above: Any) -> Any:
    """Lay one JSON value over another: objects key by key, everything else as a whole, null too."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return {**below, **{key: _overlaid(below.get(key), value) for key, value in above.items()}}
