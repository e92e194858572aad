"""One answer in a realtime conversation: from a job to OpenAI's events."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any, Literal, Protocol

from slm_plugin.errors import SlmError
from slm_serve.answer import Answer, Heard, Words
from slm_serve.errors import error_body
from slm_serve.generation import generate
from slm_serve.job import End, Event, Job, Sound
from slm_serve.prompt import Ids
from slm_serve.realtime.conversation import Item, new_id
from slm_serve.service import Service
from slm_serve.voice import RATE_HZ

Status = Literal["completed", "cancelled", "incomplete", "failed"]
CancelReason = Literal["client_cancelled", "turn_detected"]


class Send(Protocol):
    """Sends one event to the client."""

    def __call__(self, kind: str, **fields: Any) -> Awaitable[None]:
        """Send it."""
        ...


class Response:
    """Answers once; run :meth:`run` as a task, and cancel that task, once it has ``begun``, to interrupt.

    Args:
        service: What generates and speaks.
        job: What to generate.
        send: Sends events.
        added: Puts the answer into the conversation; called when it begins, and again with what it
            became. Returns the id of the item in front of it.
        heard: Takes the words of the question, where the model tells them.
        metadata: Of the client.
        kept: Whether the answer becomes a part of the conversation.
    """

    def __init__(
        self,
        service: Service,
        job: Job,
        send: Send,
        added: Callable[[Item], str | None],
        heard: Callable[[str], Awaitable[None]],
        metadata: dict[str, str] | None = None,
        kept: bool = True,
    ) -> None:
        self.id = new_id("resp")
        self.item_id = new_id("item")
        self.cancel_reason: CancelReason = "client_cancelled"
        self.begun = asyncio.Event()
        self._service = service
        self._job = job
        self._send = send
        self._added = added
        self._heard = heard
        self._metadata = metadata
        self._kept = kept
        self._place = {"response_id": self.id, "item_id": self.item_id, "output_index": 0, "content_index": 0}
        self._ids: list[int] = []
        self._text = ""
        self._n_bytes = self._n_spoken = 0

    async def run(self) -> None:
        """Answer; every response that has begun ends with one ``response.done``, whatever happens."""
        self.begun.set()
        status: Status = "failed"
        details: dict[str, Any] = {}
        end: End | None = None
        try:
            await _uninterrupted(self._begin())
            async with aclosing(generate(self._service, self._job, self._ids)) as events:
                async for event in events:
                    if isinstance(event, End):
                        end = event
                    else:
                        await self._tell(event)
            assert end is not None, "a generation ended without an end"
            status = "completed" if end.reason == "stop" else "incomplete"
            if status == "incomplete":
                details = {"type": "incomplete", "reason": "max_output_tokens"}
                if end.malformed is not None:
                    details["slm_malformed"] = end.malformed
        except asyncio.CancelledError:
            status, details = "cancelled", {"type": "cancelled", "reason": self.cancel_reason}
        except Exception as error:
            told = error_body(error)["error"]
            details = {"type": "failed", "error": {"type": told["type"], "code": told["code"]}}
            await self._send("error", error={**told, "event_id": None})
            if not isinstance(error, SlmError):
                raise
        finally:
            # a cancellation that comes now is too late to change how the response ended
            with suppress(asyncio.CancelledError):
                await _uninterrupted(self._finish(status, details, end))

    async def _begin(self) -> None:
        await self._send("response.created", response=self._shown("in_progress", {}, [], None))
        item = Item(self.item_id, "assistant", (), [], status="in_progress")
        previous = self._added(item) if self._kept else None
        await self._send("response.output_item.added", response_id=self.id, output_index=0, item=item.shown())
        if self._kept:
            await self._send("conversation.item.added", previous_item_id=previous, item=item.shown())
        part = {"type": "audio", "transcript": ""} if self._job.speech else {"type": "text", "text": ""}
        await self._send("response.content_part.added", **self._place, part=part)

    async def _tell(self, event: Event) -> None:
        match event:
            case Heard(text):
                await self._heard(text)
            case Sound(samples, n_units):
                self._n_bytes += len(samples)
                self._n_spoken = n_units
                data = base64.b64encode(samples).decode("ascii")
                await self._send("response.output_audio.delta", **self._place, delta=data)
            case Words(text):
                self._text += text
                await self._send("response.output_audio_transcript.delta", **self._place, delta=text)
            case Answer(text) if not self._job.speech:
                self._text += text
                await self._send("response.output_text.delta", **self._place, delta=text)

    async def _finish(self, status: Status, details: dict[str, Any], end: End | None) -> None:
        whole = status == "completed"
        if self._job.speech:
            await self._send("response.output_audio.done", **self._place)
            await self._send("response.output_audio_transcript.done", **self._place, transcript=self._text)
            part = {"type": "audio", "transcript": self._text}
            content = [{"type": "output_audio", "transcript": self._text}]
        else:
            await self._send("response.output_text.done", **self._place, text=self._text)
            part = {"type": "text", "text": self._text}
            content = [{"type": "output_text", "text": self._text}]
        await self._send("response.content_part.done", **self._place, part=part)
        ids = self._ids[:-1] if self._ids[-1:] == [self._service.end_id] else self._ids
        if status == "cancelled" and self._job.speech:
            ids = self._spoken(ids)
        item = Item(
            self.item_id,
            "assistant",
            (Ids(tuple(ids)),),
            content,
            status="completed" if whole else "incomplete",
            seconds=self._n_bytes / (2 * RATE_HZ),
        )
        previous = self._added(item) if self._kept else None
        await self._send("response.output_item.done", response_id=self.id, output_index=0, item=item.shown())
        if self._kept:
            await self._send("conversation.item.done", previous_item_id=previous, item=item.shown())
        await self._send("response.done", response=self._shown(status, details, [item.shown()], end))

    def _spoken(self, ids: list[int]) -> list[int]:
        """Return the ids up to the last unit whose sound was sent: the engine may be far ahead of a slow vocoder."""
        is_unit = self._service.vocabulary.is_unit
        units_at = [at for at, token_id in enumerate(ids) if is_unit(token_id)]
        return ids[: units_at[self._n_spoken - 1] + 1] if 0 < self._n_spoken <= len(units_at) else []

    def _shown(
        self, status: str, details: dict[str, Any], output: list[dict[str, Any]], end: End | None
    ) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": details or None,
            "output": output,
            "output_modalities": ["audio" if self._job.speech else "text"],
            "max_output_tokens": self._job.params.max_tokens,
            "metadata": self._metadata,
            "usage": None if status == "in_progress" else self._usage(end),
        }

    def _usage(self, end: End | None) -> dict[str, Any]:
        units = self._service.vocabulary
        n_prompt, prompt_audio = len(self._job.prompt), len(units.units(self._job.prompt))
        n_answer = len(self._ids) if end is None else end.n_tokens
        answer_audio = len(units.units(self._ids)) if end is None else end.n_units
        return {
            "total_tokens": n_prompt + n_answer,
            "input_tokens": n_prompt,
            "output_tokens": n_answer,
            "input_token_details": {
                "audio_tokens": prompt_audio,
                "text_tokens": n_prompt - prompt_audio,
                "cached_tokens": 0,
            },
            "output_token_details": {"audio_tokens": answer_audio, "text_tokens": n_answer - answer_audio},
        }


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Run some work to its end; a cancellation meanwhile is raised behind it.

    Raises:
        asyncio.CancelledError: The task was cancelled while the work ran.
    """
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError
