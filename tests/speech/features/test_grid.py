"""The frame grid and windows on it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from slm_plugin.speech.features.grid import FrameGrid, windows

GRID = FrameGrid.of((10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))


def test_the_grid_of_wav2vec_is_400_samples_every_320() -> None:
    # field: 1 + 9 + 2*5 + 2*10 + 2*20 + 2*40 + 1*80 + 1*160 = 400
    assert FrameGrid(320, 400) == GRID


def test_frames_of_a_wave_are_those_that_fit() -> None:
    assert [GRID.n_frames(n) for n in (0, 399, 400, 719, 720, 16_000)] == [0, 0, 1, 1, 2, 49]


def test_frames_see_their_samples() -> None:
    # frames 2 and 3: from 640 to 960 + 400
    assert GRID.samples(2, 4) == slice(640, 1360)
    assert GRID.n_frames(1360 - 640) == 2


@given(n_frames=st.integers(0, 500), longest=st.integers(1, 120), context=st.integers(0, 60))
def test_windows_keep_every_frame_once_and_in_order(n_frames: int, longest: int, context: int) -> None:
    cut = windows(n_frames, longest, context)
    kept = [frame for window in cut for frame in range(window.keep_first, window.keep_end)]
    assert kept == list(range(n_frames))
    for window in cut:
        assert 1 <= window.keep_end - window.keep_first <= longest
        assert window.first == max(0, window.keep_first - context)
        assert window.end == min(n_frames, window.keep_end + context)


def test_windows_are_about_equally_long() -> None:
    # 101 frames in windows of at most 50: three of 33 or 34, none of 1
    assert [window.keep_end - window.keep_first for window in windows(101, 50, 0)] == [33, 34, 34]
