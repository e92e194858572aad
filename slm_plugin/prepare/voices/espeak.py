"""espeak-ng as a voice. It is GPL-3 and hence an extra, ``pip install 'slm-plugin[tiny]'``, never a dependency."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from pydantic import Field

from slm_plugin.errors import EngineError, SlmError
from slm_plugin.hookspecs import hookimpl
from slm_plugin.prepare.voices import espeak_process
from slm_plugin.records import Utterance, WordSpan
from slm_plugin.speech.espeak import Espeak
from slm_plugin.strict import Strict


class EspeakVoice:
    """Speaks with espeak-ng (GPL-3, an extra), in a process of its own per shard.

    espeak-ng carries state from one text to the next that nothing resets; in a fresh process the same texts
    in the same order sound the same.
    """

    class Options(Strict):
        """Options of ``espeak``."""

        voice: str = "en-us"
        """Voice of the answers, such as ``en-us``, ``en-gb-x-rp``, ``de`` or ``en-us+f2``."""

        question_voices: list[str] = Field(default=["en-us"], min_length=1)
        """Voices of the questions; each item has one of them."""

        words_per_minute: int = Field(default=175, ge=80, le=450)
        """Speaking rate."""

        pitch: int = Field(default=50, ge=0, le=100)
        """Base pitch on espeak-ng's scale, without a unit; 50 is the voice's own."""

    licence = "espeak-ng is GPL-3; its licence does not reach the speech it makes"

    def __init__(self, options: Options) -> None:
        self._options = options
        self.answers, self.questions = options.voice, options.question_voices
        espeak = Espeak()
        for voice in dict.fromkeys([options.voice, *options.question_voices]):
            # a name that is wrong is wrong for every text
            espeak.say("", voice)
        self.fingerprint = f"espeak-ng {espeak.version.split('  ')[0]}"

    @contextmanager
    def session(self) -> Iterator[EspeakSpeaker]:
        """Start a fresh process and end it afterwards."""
        process = subprocess.Popen(
            [sys.executable, "-m", espeak_process.__name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        try:
            yield EspeakSpeaker(process, self._options)
        finally:
            process.stdin.close()  # type: ignore[union-attr]  # it is a pipe
            process.stdout.close()  # type: ignore[union-attr]  # likewise
            process.wait()


class EspeakSpeaker:
    """The other end of a process that speaks."""

    def __init__(self, process: subprocess.Popen[bytes], options: EspeakVoice.Options) -> None:
        self._process, self._options = process, options

    def say(self, text: str, voice: str) -> Utterance:
        """Speak a text.

        Raises:
            SlmError: espeak-ng refuses it.
            EngineError: The process has ended.
        """
        options = self._options
        wish = {"text": text, "voice": voice, "words_per_minute": options.words_per_minute, "pitch": options.pitch}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(wish).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise EngineError(f"the process of espeak-ng has ended ({error}).") from None
        header = self._process.stdout.readline()
        if not header:
            raise EngineError("the process of espeak-ng has ended without an answer.")
        answer = json.loads(header)
        if "error" in answer:
            raise SlmError(answer["error"])
        wave = np.frombuffer(self._process.stdout.read(answer["n_bytes"]), np.float32)
        words = tuple(WordSpan(*word) for word in answer["words"])
        return Utterance(wave, answer["sample_rate_hz"], text, words)


@hookimpl
def slm_register_voices(register: Callable[[str, type[Any]], None]) -> None:
    """Offer ``espeak``."""
    register("espeak", EspeakVoice)
