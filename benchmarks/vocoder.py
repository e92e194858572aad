"""Claim: the vocoder's batches and streams are what single utterances are, and what that costs.

The network has the real shape of Seamless' ``vocoder_v2`` (41.9 M parameters) at random weights, because none are at
hand. Prints real-time factors (processor seconds per second of sound), the scaling of batches beside transformers' own
batched call and its error, the time to the first sound of a stream, what a stream costs in all, and what less
lookahead does to the sound.

Exits with 1 where a batch or an exact stream is more than 1e-5 from the single utterance.

    python benchmarks/vocoder.py [--channels 512] [--threads 1] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from slm_plugin.speech.vocoder.network import build_vocoder
from slm_plugin.speech.vocoder.settings import VocoderSettings, VocoderShape
from slm_plugin.speech.vocoder.stream import VocoderStream
from slm_plugin.speech.vocoder.synthesis import Synthesiser
from slm_plugin.speech.vocoder.voices import seamless_voices

TOLERANCE = 1e-5
UNITS_PER_S = 50


def random_network(shape: VocoderShape) -> Any:
    """Return the network at random weights that let sound through: each layer keeps the power of what it gets."""
    network: Any = build_vocoder(shape).to_empty(device="cpu")
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.ndim == 1:
                parameter.fill_(1.0 if name.endswith(("ln1.weight", "ln2.weight")) else 0.0)
            elif "embedding" in name:
                parameter.normal_(generator=draw)
            else:
                fan_in = parameter.shape[0] if "upsampler" in name else parameter[0].numel()
                parameter.normal_(std=0.8 * fan_in**-0.5, generator=draw)
        network.dur_predictor.proj.bias.fill_(1.0)
    return network


def measured(work: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return the median processor and wall seconds of work."""
    runs = []
    for _ in range(repeats):
        wall, begin = time.perf_counter(), time.process_time()
        work()
        runs.append((time.process_time() - begin, time.perf_counter() - wall))
    return statistics.median(run[0] for run in runs), statistics.median(run[1] for run in runs)


def snr_db(exact: np.ndarray, other: np.ndarray) -> float:
    """Return the power of a wave over that of its difference from another, in decibels."""
    error = float(((exact - other) ** 2).sum())
    return float(10 * np.log10(float((exact**2).sum()) / error)) if error else float("inf")


def stream(voice: Synthesiser, units: list[int], chunk: int) -> np.ndarray:
    """Return the joined pieces of a stream that is fed so many units at a time."""
    speech = VocoderStream(voice)
    pieces = [speech.push(units[start : start + chunk]) for start in range(0, len(units), chunk)]
    return np.concatenate([*pieces, speech.finish()])


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    for name, default in (("channels", 512), ("threads", 1), ("repeats", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    shape = VocoderShape(channels=chosen.channels)
    network = random_network(shape)
    size = sum(parameter.numel() for parameter in network.parameters()) / 1e6

    def voice(predict: bool = False, **settings: Any) -> Synthesiser:
        return Synthesiser(VocoderSettings(shape=shape, voices=seamless_voices(), **settings), network, predict)

    rng = np.random.default_rng(0)
    units = rng.integers(0, shape.n_units, 250).tolist()
    plain = voice()
    whole = plain.wave(units)
    sound_s = len(whole) / 16_000
    took, wall = measured(lambda: plain.wave(units), chosen.repeats)
    print(f"{size:.1f} M parameters, {chosen.threads} thread(s); power of the wave {float((whole**2).mean()):.4f}")
    print(f"one utterance of {sound_s:g} s: {took / sound_s:.3f} processor s per s (wall {wall / sound_s:.3f})")
    durations = voice(predict=True).durations(units)
    print(f"predicted durations: mean {np.mean(durations):.2f}, largest {max(durations)} frames")

    worst = 0.0
    ragged = [rng.integers(0, shape.n_units, n).tolist() for n in (200, 60, 130, 90, 180, 40, 150, 110)]
    singles = [plain.wave(one) for one in ragged]
    ragged_s = sum(map(len, singles)) / 16_000
    alone, _ = measured(lambda: [plain.wave(one) for one in ragged], chosen.repeats)
    print(f"8 ragged utterances, {ragged_s:.1f} s, one by one: {alone / ragged_s:.3f} processor s per s")
    for frames in (400, 800, 1600):
        batches = Synthesiser(plain.settings, network, False, frames)
        took, _ = measured(partial(batches.waves, ragged), chosen.repeats)
        error = max(np.abs(a - b).max() for a, b in zip(singles, batches.waves(ragged), strict=True))
        worst = max(worst, float(error))
        print(f"  in batches of {frames} frames: {took / ragged_s:.3f} ({alone / took:.2f}x), off by {error:.1e}")
    padded = torch.nn.utils.rnn.pad_sequence([torch.tensor(one) for one in ragged], batch_first=True)
    with torch.inference_mode():
        theirs = network.hifi_gan(plain._inputs(padded)).numpy()
    error = max(np.abs(row[: len(one)] - one).max() for row, one in zip(theirs, singles, strict=True))
    print(f"  transformers' network on the padded batch: off by {error:.2f}")

    for chunk in (1, 5, 25, 50):
        took, _ = measured(partial(stream, plain, units, chunk), 1)
        error = float(np.abs(stream(plain, units, chunk) - whole).max())
        worst = max(worst, error)
        print(f"streamed, {chunk} units at a time: {took / sound_s:.3f} processor s per s, off by {error:.1e}")
    for lookahead in (2, 4, 6, 8, 10, 12, 16, 21):
        limited = voice(lookahead=lookahead)
        firsts = []
        for _ in range(chosen.repeats):
            speech = VocoderStream(limited)
            speech.push(units[:lookahead])
            begin = time.perf_counter()
            assert len(speech.push(units[lookahead : lookahead + 1]))
            firsts.append(time.perf_counter() - begin)
        ratio = snr_db(whole, stream(limited, units, 1))
        first_ms = 1000 * statistics.median(firsts)
        wait = f"{lookahead + 1} units ({(lookahead + 1) / UNITS_PER_S:.2f} s) + {first_ms:.0f} ms"
        print(f"lookahead {lookahead:2}: first sound after {wait}, {ratio:.1f} dB")
    print("claim holds" if worst <= TOLERANCE else f"CLAIM MISSED: off by {worst:.1e}")
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
