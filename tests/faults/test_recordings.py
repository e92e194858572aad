"""Recordings that are cut, damaged or made to do harm: refused or heard, never a failure of the server."""

import asyncio
import base64
import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve.sounds import recording
from slm_serve.errors import RequestError
from slm_serve.fakes import FakeCodec
from slm_serve.ops.limits import Limits
from slm_serve.workers.encoder import EncoderWorker
from speech.containers import container

CODEC = FakeCodec(50)
RATE_HZ = 16_000
TONE = 0.3 * np.sin(2 * np.pi * 440 * np.arange(RATE_HZ // 2) / RATE_HZ)
FORMS = {"WAV": "wav", "FLAC": "flac", "OGG": "ogg", "MP3": "mp3"}
FILES = {form: base64.b64decode(recording(TONE, RATE_HZ, form)) for form in FORMS}


def listen(raw: bytes, form: str, limits: Limits) -> tuple[int, ...]:
    """Return the units of a recording."""

    async def run() -> tuple[int, ...]:
        worker = EncoderWorker(CODEC, limits=limits)
        try:
            return await worker.units(base64.b64encode(raw).decode(), form, "p")
        finally:
            await worker.close()

    return asyncio.run(run())


def hear(raw: bytes, form: str = "wav", limits: Limits | None = None) -> tuple[int, ...] | None:
    """Return the units of a recording, or None where it is refused as the client's mistake."""
    try:
        return listen(raw, form, limits or Limits())
    except RequestError as error:
        refused = error
    assert (refused.status, refused.param) == (400, "p")
    return None


@pytest.mark.parametrize("form", FORMS)
def test_a_whole_recording_is_heard(form):
    assert len(hear(FILES[form], FORMS[form])) >= 20


@pytest.mark.parametrize("form", FORMS)
def test_a_recording_cut_anywhere_is_heard_or_refused(form):
    raw = FILES[form]
    for n_bytes in {*range(0, 200, 7), *range(0, len(raw), max(1, len(raw) // 60))}:
        hear(raw[:n_bytes], FORMS[form])


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=150)
@given(st.sampled_from(sorted(FORMS)), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=20))
def test_a_damaged_recording_is_heard_or_refused(form, wounds):
    raw = bytearray(FILES[form])
    for where, value in wounds:
        raw[int(where * (len(raw) - 1))] = value
    hear(bytes(raw), FORMS[form])


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300), st.sampled_from(["wav", "mp3", "flac", "ogg", "opus", "pcm16"]))
def test_any_bytes_are_heard_or_refused(raw, form):
    hear(raw, form)


def riff(channels: int, rate_hz: int, n_bytes_claimed: int, samples: bytes) -> bytes:
    """Write a WAV whose header says what it likes."""
    layout = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * channels * 2 % 2**32, channels * 2 % 2**16, 16)
    data = b"data" + struct.pack("<I", n_bytes_claimed) + samples
    return b"RIFF" + struct.pack("<I", 2**31) + b"WAVE" + b"fmt " + struct.pack("<I", 16) + layout + data


@pytest.mark.parametrize(
    ("channels", "rate_hz", "claimed"),
    [(1, RATE_HZ, 2**32 - 1), (0, RATE_HZ, 100), (65_535, RATE_HZ, 2**31), (2, 0, 100), (1, 2**32 - 1, 2**31)],
    ids=["endless", "no channel", "a stadium of channels", "no rate", "a rate beyond hearing"],
)
def test_a_header_that_lies_is_heard_or_refused(channels, rate_hz, claimed):
    hear(riff(channels, rate_hz, claimed, bytes(40_000)))


def test_a_small_file_that_would_fill_the_memory_is_refused_before_it_is_decoded(monkeypatch):
    # 100 s of silence in 8 channels: 4 * 8 * 48000 * 100 bytes are 146 MiB
    file = io.BytesIO()
    soundfile.write(file, np.zeros((4_800_000, 8), np.int16), 48_000, format="FLAC", subtype="PCM_16")
    raw = file.getvalue()
    assert len(raw) < 2**20
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(RequestError, match="146 MiB when it is decoded, the limit is 128 MiB"):
        listen(raw, "flac", Limits())


def test_the_longest_recording_is_a_setting():
    assert hear(FILES["WAV"], limits=Limits(clip_s=0.4)) is None
    assert hear(FILES["WAV"], limits=Limits(clip_s=0.6)) is not None


def test_a_container_that_libsndfile_does_not_read_is_heard():
    for ending in ("webm", "m4a", "mp4", "aac", "3gp", "amr"):
        assert len(hear(container(ending), ending)) >= 20, ending


def test_the_bounds_of_a_recording_hold_for_containers_too():
    with pytest.raises(RequestError, match=r"longer than the limit of 0\.5 seconds"):
        listen(container("m4a"), "m4a", Limits(clip_s=0.5))
    # a second of 48 kHz is 188 KiB of float32
    with pytest.raises(RequestError, match=r"when it is decoded, the limit is 0\.0625 MiB"):
        listen(container("webm"), "webm", Limits(decoded_bytes=2**16))
