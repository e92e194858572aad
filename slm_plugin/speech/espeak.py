"""Synthesised speech with exact word times, by espeak-ng through ctypes.

The library comes with the wheel ``espeakng-loader`` (GPL-3, hence an extra and never a dependency).
It runs in synchronous mode: every call returns with its whole wave, hundreds of times faster than
speech.

espeak-ng carries state from one call to the next, so the same text may come out a few samples
different later on. Whoever needs the same bytes again starts a fresh process and synthesises the
same list in the same order.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from slm_plugin.errors import SlmError
from slm_plugin.records import Utterance, WordSpan

INSTALL = "pip install espeakng-loader"

# numbers of espeak-ng's public header speak_lib.h
_SYNCHRONOUS, _DO_NOT_EXIT, _UTF8, _OK = 2, 0x8000, 1, 0
_RATE, _PITCH = 1, 3
_LIST_END, _WORD = 0, 1


class _Identifier(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identifier),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """A synthesiser; make one per process, the library itself holds only one.

    Attributes:
        sample_rate_hz: Rate of the waves, 22,050 Hz for espeak-ng 1.52.
        version: Version of the library.

    Raises:
        SlmError: ``espeakng-loader`` is not installed or its library does not start.
    """

    def __init__(self) -> None:
        try:
            import espeakng_loader
        except ImportError:
            raise SlmError(f"speech synthesis needs espeak-ng, which is not installed; {INSTALL}") from None
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        data = espeakng_loader.get_data_path().encode()
        self.sample_rate_hz: int = self._library.espeak_Initialize(_SYNCHRONOUS, 0, data, _DO_NOT_EXIT)
        if self.sample_rate_hz <= 0:
            raise SlmError(f"espeak-ng did not start with the data in {data.decode()}; reinstall it: {INSTALL}")
        self._library.espeak_Info.restype = ctypes.c_char_p
        self.version: str = self._library.espeak_Info(None).decode()
        self._chunks: list[np.ndarray] = []
        self._marks: list[tuple[int, int, int]] = []
        self._lock = threading.Lock()
        # the library keeps only the address: the callback must live as long as this object
        self._callback = _Callback(self._collect)
        self._library.espeak_SetSynthCallback(self._callback)

    def _collect(self, wave: Any, n_samples: int, events: Any) -> int:
        if wave and n_samples > 0:
            self._chunks.append(np.ctypeslib.as_array(wave, (n_samples,)).copy())
        position = 0
        while events[position].type != _LIST_END:
            event = events[position]
            if event.type == _WORD:
                self._marks.append((event.text_position, event.length, event.sample))
            position += 1
        return 0

    def say(self, text: str, voice: str = "en-us", words_per_minute: int = 175, pitch: int = 50) -> Utterance:
        """Speak a text.

        A word lasts from its event to the next word's event, the last one to the end of the wave.

        Args:
            text: What to say.
            voice: Name of an espeak-ng voice.
            words_per_minute: Speaking rate, 80 to 450.
            pitch: Base pitch on espeak-ng's scale of 0 to 100, without a unit; 50 is the voice's own.

        Raises:
            SlmError: The voice is unknown or the library refused the text.
        """
        with self._lock:
            self._chunks, self._marks = [], []
            if self._library.espeak_SetVoiceByName(voice.encode()) != _OK:
                raise SlmError(f"espeak-ng has no voice {voice!r}; `espeak-ng --voices` lists them, such as en-us.")
            self._library.espeak_SetParameter(_RATE, words_per_minute, 0)
            self._library.espeak_SetParameter(_PITCH, pitch, 0)
            encoded = text.encode()
            status = self._library.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _UTF8, None, None)
            if status != _OK:
                raise SlmError(f"espeak-ng could not speak {text!r} (status {status}).")
            chunks, marks = self._chunks, self._marks
        pcm = np.concatenate(chunks) if chunks else np.zeros(0, np.int16)
        words = _spans(text, marks, len(pcm), self.sample_rate_hz)
        return Utterance(pcm.astype(np.float32) / 32768.0, self.sample_rate_hz, text, words)


def _spans(text: str, marks: Sequence[tuple[int, int, int]], n_samples: int, rate_hz: int) -> tuple[WordSpan, ...]:
    starts = [sample for _, _, sample in marks]
    ends = [*starts[1:], n_samples][: len(starts)]
    # espeak-ng counts characters from 1
    written = [text[position - 1 : position - 1 + length] for position, length, _ in marks]
    return tuple(
        WordSpan(word, start / rate_hz, max(start, end) / rate_hz)
        for word, start, end in zip(written, starts, ends, strict=True)
    )
