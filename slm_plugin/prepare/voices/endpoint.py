"""Any server with OpenAI's ``POST /v1/audio/speech`` as a voice."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pydantic import Field

from slm_plugin.errors import AudioError, EngineError
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Utterance
from slm_plugin.speech.audio import decode
from slm_plugin.strict import Strict

if TYPE_CHECKING:
    import httpx

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
REFUSED_TEXT = frozenset({400, 413, 422})


class EndpointVoice:
    """Asks a server for WAV files. It gives no word times: choose an aligner.

    The same bytes come out of every run only as far as the server gives the same bytes for the same text.
    """

    class Options(Strict):
        """Options of ``endpoint``."""

        url: str
        """Address up to and with ``/v1``, such as ``http://127.0.0.1:8000/v1``."""

        model: str = "tts-1"
        """Model of the request."""

        voice: str = "alloy"
        """Voice of the answers."""

        question_voices: list[str] = Field(default=["alloy"], min_length=1)
        """Voices of the questions; each item has one of them."""

        instructions: str = ""
        """How to speak, where the server takes instructions."""

        speed: float = Field(default=1.0, ge=0.25, le=4.0)
        """Speaking rate as a factor; 1 is the voice's own."""

        api_key_variable: str = "OPENAI_API_KEY"
        """Environment variable that holds the key; none is sent where it is not set."""

        timeout_seconds: float = Field(default=120.0, gt=0)
        """How long one answer may take."""

        attempts: int = Field(default=5, ge=1)
        """How often a request is made before the server counts as away; it waits 1, 2, 4 ... seconds between."""

        licence: str = ""
        """Terms of the voice, for the card of the data."""

    def __init__(self, options: Options, wait: Callable[[float], None] = time.sleep) -> None:
        self._options, self._wait = options, wait
        self.answers, self.questions = options.voice, options.question_voices
        self.fingerprint = f"{options.model} at {options.url}"
        self.licence = options.licence or f"those of {options.model} at {options.url}"

    @contextmanager
    def session(self) -> Iterator[EndpointSpeaker]:
        """Open a connection and close it afterwards."""
        import httpx

        key = os.environ.get(self._options.api_key_variable, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with httpx.Client(headers=headers, timeout=self._options.timeout_seconds) as client:
            yield EndpointSpeaker(client, self._options, self._wait)


class EndpointSpeaker:
    """Speaks through one connection."""

    def __init__(self, client: httpx.Client, options: EndpointVoice.Options, wait: Callable[[float], None]) -> None:
        self._client, self._options, self._wait = client, options, wait

    def say(self, text: str, voice: str) -> Utterance:
        """Ask for a text.

        Raises:
            AudioError: The server refuses this text, or what it sends is no recording.
            EngineError: The server is away, or refuses whoever asks.
        """
        options = self._options
        wish: dict[str, Any] = {"model": options.model, "input": text, "voice": voice, "response_format": "wav"}
        if options.speed != 1.0:
            wish["speed"] = options.speed
        if options.instructions:
            wish["instructions"] = options.instructions
        wave_NC, rate_hz = decode(self._ask(wish))
        return Utterance(wave_NC.mean(1), rate_hz, text)

    def _ask(self, wish: dict[str, Any]) -> bytes:
        import httpx

        url = self._options.url.rstrip("/") + "/audio/speech"
        reason = ""
        for attempt in range(self._options.attempts):
            if attempt:
                self._wait(2.0 ** (attempt - 1))
            try:
                answer = self._client.post(url, json=wish)
            except httpx.HTTPError as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            if answer.is_success:
                return answer.content
            reason = f"HTTP {answer.status_code}: {' '.join(answer.text.split())[:200]}"
            if answer.status_code in REFUSED_TEXT:
                raise AudioError(f"{url} refuses the text ({reason}).")
            if answer.status_code not in RETRIED:
                break
        raise EngineError(f"{url} does not speak ({reason}); the run goes on where it stopped when started again.")


@hookimpl
def slm_register_voices(register: Callable[[str, type[Any]], None]) -> None:
    """Offer ``endpoint``."""
    register("endpoint", EndpointVoice)
