"""Small corpora in every form, written without a network and without espeak-ng."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from slm_plugin.speech.mel_kmeans import load_tiny

TEXTS = ("the red dog sings", "anna has two cats", "what is one plus two", "so it is", "a window", "no")
RATE_HZ = 16_000


def wave(seed: int, n_units: int = 20) -> np.ndarray:
    """Sound of random units of the tiny codec, about 0.8 seconds."""
    return load_tiny().decode(np.random.default_rng(seed).integers(0, 100, n_units).tolist())


def write_wave(path: Path, seed: int, rate_hz: int = RATE_HZ) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave(seed), rate_hz)
    return path


def librispeech(root: Path, n: int = 6) -> Path:
    """Two speakers, one chapter each; FLAC."""
    for number in range(n):
        speaker = 84 if number % 2 else 1272
        folder = root / str(speaker) / "121"
        name = f"{speaker}-121-{number:04d}"
        write_wave(folder / f"{name}.flac", number)
        with (folder / f"{speaker}-121.trans.txt").open("a", encoding="utf-8") as file:
            file.write(f"{name} {TEXTS[number % len(TEXTS)].upper()}\n")
    return root


def listed(root: Path, n: int = 6, texts: Sequence[str] = TEXTS) -> Path:
    """A table of JSON lines beside a folder of recordings."""
    rows = []
    for number in range(n):
        write_wave(root / f"wav/{number:02d}.wav", number)
        rows.append({"audio": f"wav/{number:02d}.wav", "text": texts[number % len(texts)], "who": f"s{number % 3}"})
    path = root / "list.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but for hidden ones, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
