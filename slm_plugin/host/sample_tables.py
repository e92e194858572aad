"""Sample generations as tables with text, units and sound, to whichever of the host's loggers are active.

TensorBoard, W&B and SwanLab are reached through the callbacks that ``report_to`` put into the trainer, so that
samples land in the same run as the curves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from slm_plugin.records import Score
from slm_plugin.speech.protocol import Codec
from slm_plugin.vocabulary import strip_units, text_to_units

COLUMNS = ("step", "skill", "prompt", "expected", "answer", "units")
TAG = "samples"
MAX_SECONDS = 30.0
"""Longer sound is cut: a model that does not stop would fill the log."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A generation to look at.

    Attributes:
        skill: Which skill's.
        number: Its place among those of the skill.
        prompt: What the model was asked; units left out.
        expected: What was wanted.
        answer: What the model wrote; units left out.
        units: The units it spoke.
        wave_N: Their sound, float32 in [-1, 1]; None without units or codec.
        sample_rate_hz: Of the sound; 0 without.
    """

    skill: str
    number: int
    prompt: str
    expected: str
    answer: str
    units: tuple[int, ...]
    wave_N: np.ndarray | None = None
    sample_rate_hz: int = 0

    def cells(self, step: int) -> list[Any]:
        """Return the sample as a row of :data:`COLUMNS`."""
        units = " ".join(map(str, self.units))
        return [step, self.skill, self.prompt, self.expected, self.answer, units]


def sounding(scores: Mapping[str, Score], limit: int, codec: Codec | None) -> list[Sample]:
    """Return the first examples of every score with the sound of their units.

    Args:
        scores: Score by skill.
        limit: Samples of each skill at most.
        codec: Turns units into sound; None for samples without.
    """
    found = []
    for skill, score in scores.items():
        for number, example in enumerate(list(score.examples)[:limit]):
            prompt, expected, answer = (str(example.get(key, "")) for key in ("prompt", "expected", "answer"))
            units = tuple(text_to_units(answer))
            wave_N, rate_hz = None, 0
            if codec is not None and units and max(units) < codec.n_units:
                rate_hz = codec.sample_rate_hz
                wave_N = codec.decode(units)[: int(MAX_SECONDS * rate_hz)]
            prompt, expected, answer = (strip_units(text).strip() for text in (prompt, expected, answer))
            sample = Sample(skill, number, prompt, expected, answer, units, wave_N, rate_hz)
            found.append(sample)
    return found


def log_samples(callbacks: Iterable[Any], samples: Sequence[Sample], step: int) -> None:
    """Write samples to every logger among the trainer's callbacks that is active.

    Args:
        callbacks: The trainer's callbacks.
        samples: What to show.
        step: Optimizer steps taken.
    """
    for callback in callbacks if samples else ():
        for kind in type(callback).__mro__:
            if kind.__name__ in _LOGGERS:
                _LOGGERS[kind.__name__](callback, samples, step)
                break


def to_tensorboard(callback: Any, samples: Sequence[Sample], step: int) -> None:
    """Write a table of text for each skill and a player for each sample."""
    writer = callback.tb_writer
    if writer is None:
        return
    for skill in dict.fromkeys(sample.skill for sample in samples):
        rows = [sample.cells(step)[2:] for sample in samples if sample.skill == skill]
        lines = [COLUMNS[2:], ("---",) * len(COLUMNS[2:]), *(map(_cell, row) for row in rows)]
        writer.add_text(f"{TAG}/{skill}", "\n".join(f"| {' | '.join(line)} |" for line in lines), step)
    for sample in samples:
        if sample.wave_N is not None:
            tag = f"{TAG}/{sample.skill}/{sample.number}"
            writer.add_audio(tag, sample.wave_N[None], step, sample.sample_rate_hz)
    writer.flush()


def to_wandb(callback: Any, samples: Sequence[Sample], step: int) -> None:
    """Write one table with a player in each row that has sound, and the sounds by skill as well.

    W&B keeps the media of a table in an artifact, which an offline run leaves outside its folder until it is
    synchronised; the sounds by skill lie in the folder.
    """
    wandb = callback._wandb
    if wandb is None or wandb.run is None:
        return
    rows, content = [], dict[str, Any]()
    for sample in samples:
        sound = None
        if sample.wave_N is not None:
            sound = wandb.Audio(sample.wave_N, sample_rate=sample.sample_rate_hz)
            again = wandb.Audio(sample.wave_N, sample_rate=sample.sample_rate_hz, caption=sample.answer)
            content.setdefault(f"{TAG}/{sample.skill}", []).append(again)
        rows.append([*sample.cells(step), sound])
    content[TAG] = wandb.Table(columns=[*COLUMNS, "audio"], data=rows)
    wandb.log({**content, "train/global_step": step})


def to_swanlab(callback: Any, samples: Sequence[Sample], step: int) -> None:
    """Write the text of every sample and its sound."""
    import swanlab

    try:
        run = swanlab.get_run()
    except RuntimeError:
        # how newer releases say that there is none
        return
    if run is None:
        return
    content: dict[str, Any] = {}
    for sample in samples:
        text = "\n\n".join(f"{name}: {cell}" for name, cell in zip(COLUMNS, sample.cells(step), strict=True))
        content.setdefault(f"{TAG}/{sample.skill}", []).append(swanlab.Text(text, caption=str(sample.number)))
        if sample.wave_N is not None:
            sound = swanlab.Audio(sample.wave_N[None], sample_rate=sample.sample_rate_hz, caption=str(sample.number))
            content.setdefault(f"{TAG}/{sample.skill}/audio", []).append(sound)
    swanlab.log(content, step=step)


_LOGGERS: Mapping[str, Callable[[Any, Sequence[Sample], int], None]] = {
    "TensorBoardCallback": to_tensorboard,
    "WandbCallback": to_wandb,
    "SwanLabCallback": to_swanlab,
}
"""Class of the callback -> what writes to its logger; the host's own SwanLab callback is a subclass."""


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
