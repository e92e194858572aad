"""Ogg files whose headers are cut or damaged: refused before libsndfile opens them, for it would lose memory."""

import io
import resource

import numpy as np
import pytest
import soundfile

from slm_plugin.errors import AudioError
from slm_plugin.speech.audio import decode


def ogg(kind: str) -> bytes:
    file = io.BytesIO()
    wave_N = np.sin(np.arange(16_000) / 20).astype(np.float32)
    soundfile.write(file, wave_N, 16_000, format="OGG", subtype=kind)
    return file.getvalue()


@pytest.fixture(scope="module", params=["VORBIS", "OPUS"])
def whole(request):
    return ogg(request.param)


def test_a_whole_file_is_read_as_ever(whole, tmp_path):
    expected, rate_hz = soundfile.read(io.BytesIO(whole), dtype="float32", always_2d=True)
    path = tmp_path / "a.ogg"
    path.write_bytes(whole)
    for source in (whole, path):
        found, found_hz = decode(source)
        assert found_hz == rate_hz
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("length", [4, 20, 27, 40, 58, 80])
def test_a_file_that_is_cut_in_its_headers_is_refused(whole, length, tmp_path):
    path = tmp_path / "a.ogg"
    path.write_bytes(whole[:length])
    for source in (whole[:length], path):
        with pytest.raises(AudioError, match="headers of the Ogg file are cut or damaged"):
            decode(source)


def test_a_damaged_byte_of_the_headers_is_found_by_its_checksum(whole):
    # in the codec's first packet, behind the 28 bytes of the first page's header
    damaged = whole[:40] + bytes([whole[40] ^ 1]) + whole[41:]
    with pytest.raises(AudioError, match="headers of the Ogg file are cut or damaged"):
        decode(damaged)


def test_a_thousand_damaged_files_cost_no_memory(whole):
    cut = whole[:58]

    def refuse() -> None:
        for _ in range(1000):
            with pytest.raises(AudioError):
                decode(cut)

    refuse()
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refuse()
    # libsndfile lost 5.7 KiB each
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 2000
