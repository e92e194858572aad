"""Containers that libsndfile does not read: the same sound, the same bounds, and nothing but the bytes of the file."""

from __future__ import annotations

import builtins
import io
import random
import socket
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slm_plugin.errors import AudioError
from slm_plugin.listen.command import units
from slm_plugin.speech import containers
from slm_plugin.speech.audio import SUFFIXES, decode, prepare, read
from slm_plugin.speech.fit.recordings import find_recordings
from slm_plugin.speech.mel_kmeans import load_tiny
from slm_plugin.speech.stream import blocks_of
from slm_plugin.vocabulary import text_to_units
from speech.containers import FORMS, container, tone


@pytest.mark.parametrize("ending", FORMS)
def test_the_sound_of_a_container_is_read(ending: str):
    wave_NC, rate_hz = decode(container(ending))
    assert (wave_NC.dtype, wave_NC.shape[1], rate_hz) == (np.float32, 1, FORMS[ending][2])
    # codecs pad to whole frames, 3 frames of 1152 samples at most
    assert 0 <= len(wave_NC) - rate_hz <= 4_608
    # 0.5 / sqrt(2) = 0.354; AMR and MP3 lose up to a fifth of it
    assert float(np.sqrt((wave_NC[2_000:-4_000] ** 2).mean())) == pytest.approx(0.354, rel=0.2)


@pytest.mark.parametrize("ending", ["webm", "mp4", "mov"])
def test_a_container_gives_the_wave_that_was_put_in(ending: str):
    wave_NC, rate_hz = decode(container(ending))
    expected_N = tone(rate_hz, 1.0)[4_000:12_000]
    # lossless for pcm, within 3 % of full scale for the others; no shift by the encoder's delay
    assert np.abs(wave_NC[4_000:12_000, 0] - expected_N).max() < (1e-3 if ending == "mov" else 0.03)


def test_the_sound_of_a_video_file_is_read():
    video = container("mp4", video=True)
    assert np.array_equal(decode(video)[0], decode(container("mp4"))[0])


def test_stereo_has_two_channels():
    wave_NC, _ = decode(container("mov", layout="stereo"))
    assert wave_NC.shape == (16_000, 2)
    assert np.array_equal(wave_NC[:, 0], wave_NC[:, 1])


def test_units_of_an_m4a_are_those_of_its_wave(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "a.m4a"
    path.write_bytes(container("m4a"))
    units(path)
    codec = load_tiny()
    expected = codec.encode(prepare(*decode(path), codec.sample_rate_hz)).values
    assert text_to_units(capsys.readouterr().out) == list(expected)
    assert find_recordings([tmp_path]) == [path]
    assert {f".{ending}" for ending in ("m4a", "mp4", "webm", "aac", "3gp", "amr")} <= set(SUFFIXES)


def test_a_container_is_read_block_by_block_too(tmp_path: Path):
    path = tmp_path / "a.webm"
    path.write_bytes(container("webm", 2.0))
    blocks = [block for block, _ in blocks_of(path)]
    assert np.array_equal(np.concatenate(blocks), decode(path)[0])
    # the forms in which data sets hold recordings, for slm prepare
    for form in (str(path), {"bytes": path.read_bytes()}, {"bytes": None, "path": str(path)}):
        assert np.array_equal(read(form)[0], decode(path)[0])


def test_a_recording_that_declares_to_be_too_long_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(containers, "_samples", lambda frame: pytest.fail("it was decoded"))
    with pytest.raises(AudioError, match=r"longer than the limit of 2 seconds"):
        decode(container("mp4", 3.0), max_seconds=2)
    # 8 channels x 3 s x 48 kHz x 4 bytes = 4.4 MiB
    with pytest.raises(AudioError, match="has 4 MiB when it is decoded, the limit is 1 MiB"):
        decode(container("webm", 3.0, "7.1"), max_decoded_bytes=2**20)


@pytest.mark.parametrize("ending", ["aac", "amr"])
def test_a_recording_without_a_length_is_refused_when_it_reaches_the_limit(
    ending: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(containers._Bounds, "check_declared", lambda *_: None)
    decoded: list[int] = []
    samples = containers._samples
    monkeypatch.setattr(containers, "_samples", lambda frame: decoded.append(frame.samples) or samples(frame))
    with pytest.raises(AudioError, match=r"longer than the limit of 0\.5 seconds"):
        decode(container(ending, 3.0), max_seconds=0.5)
    assert sum(decoded) < 0.6 * FORMS[ending][2]
    with pytest.raises(AudioError, match="when it is decoded, the limit is"):
        decode(container(ending, 3.0), max_decoded_bytes=4_000)


def test_a_small_mp4_that_declares_a_table_of_gigabytes_is_refused_before_ffmpeg_opens_it(
    monkeypatch: pytest.MonkeyPatch,
):
    raw = bytearray(container("mp4"))
    at = raw.index(b"stsz")
    raw[at + 8 : at + 16] = struct.pack(">II", 10, 40_000_000)  # 24 bytes each in FFmpeg's memory: 0.9 GB
    monkeypatch.setattr("av.open", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(AudioError, match="declares 40000000 frames, more than 140000"):
        decode(bytes(raw), max_seconds=120)
    # the same without the first box, as QuickTime wrote it
    with pytest.raises(AudioError, match="declares 40000000 frames"):
        decode(bytes(raw[raw.index(b"moov") - 4 :]), max_seconds=120)


def test_an_hour_of_uncompressed_sound_in_a_mov_does_not_count_as_frames():
    raw = bytearray(container("mov"))
    at = raw.index(b"stsz")
    raw[at + 8 : at + 16] = struct.pack(">II", 2, 3600 * 48_000)
    assert raw.index(b"stts") < at
    assert containers.declared_frames(io.BytesIO(bytes(raw))) == 3600 * 48_000 // 1024


@pytest.mark.parametrize(("streams", "found"), [(2, "2 sound streams")])
def test_several_sound_streams_are_refused(streams: int, found: str):
    with pytest.raises(AudioError, match=f"has {found}; one is accepted"):
        decode(container("mp4", streams=streams))


def test_a_video_without_sound_is_refused():
    with pytest.raises(AudioError, match="has no sound stream; one is accepted"):
        decode(container("mp4", streams=0, video=True))


@pytest.mark.parametrize("ending", ["mp4", "webm", "aac", "avi"])
def test_a_container_cut_anywhere_is_read_or_refused_in_one_line(ending: str):
    raw = container(ending, 0.3)
    for n_bytes in {*range(0, 100, 9), *range(0, len(raw), max(1, len(raw) // 25))}:
        read_or_refused(raw[:n_bytes])
    if ending == "mp4":
        with pytest.raises(AudioError, match="it is cut off or damaged"):
            decode(raw[: len(raw) // 2])


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["mp4", "webm", "3gp"]), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=20))
def test_a_damaged_container_is_read_or_refused_in_one_line(ending: str, wounds: list[tuple[float, int]]):
    raw = bytearray(FILES[ending])
    for where, value in wounds:
        raw[int(where * (len(raw) - 1))] = value
    read_or_refused(bytes(raw))


FILES = {ending: container(ending, 0.2) for ending in ("mp4", "webm", "3gp")}


def read_or_refused(raw: bytes) -> None:
    try:
        decode(raw, max_seconds=10, max_decoded_bytes=2**22)
    except AudioError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message


@pytest.mark.parametrize(
    "raw",
    [
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n",
        b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        b'<?xml version="1.0"?><MPD><BaseURL>http://127.0.0.1:9/</BaseURL></MPD>',
        b"[Script Info]\n",
        b"<html></html>",
        random.Random(0).randbytes(100_000),
    ],
    ids=["hls", "concat", "dash", "subtitles", "html", "noise"],
)
def test_what_leads_elsewhere_or_nowhere_is_no_recording(raw: bytes, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: Any, **__: Any) -> Any:
        pytest.fail("another file or the network was used")

    monkeypatch.setattr(builtins, "open", refuse)
    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(AudioError, match="Format not recognised"):
        decode(raw)


def test_no_name_reaches_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import av

    path = tmp_path / "concat:a|b.mp4"
    path.write_bytes(container("mp4", 0.2))
    opened: list[Any] = []
    stock = av.open
    monkeypatch.setattr(av, "open", lambda file, *rest, **more: opened.append(file) or stock(file, *rest, **more))
    decode(path)
    assert not hasattr(opened[0], "name")
