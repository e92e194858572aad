"""What an unfinished step was started with, and where the outputs are that it replaces.

Nothing that a step may replace is deleted before its new result is complete: it is moved aside, to a hidden name in
its folder. Then it is deleted if nothing of worth is lost with it, and kept and reported otherwise.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from slm_plugin.errors import PipelineError
from slm_plugin.pipeline import checkpoints, records

SUFFIX = "attempt"
ASIDE = re.compile(r"\.(.+)\.replaced-\d+")
"""Names of outputs that were moved aside."""

ROOM_BYTES = 1 << 18
"""What is held free on the disk for the record of a step that runs."""

COSTLY_BYTES = 100_000_000
"""Size from which on an earlier output of a command is kept, in bytes; models are kept at any size."""

WEIGHTS = (".safetensors", ".bin", ".gguf")
"""Endings of files of weights."""

Kind = Literal["train", "export", "evaluate", "command"]
Origin = Literal["finished", "attempt", "foreign"]


@dataclass(frozen=True)
class Replaced:
    """An output that was there before a step wrote its own.

    Attributes:
        path: Where it was, and where the new one will be.
        aside: Where it was moved to.
        origin: A ``finished`` result of the step, what an interrupted ``attempt`` left, or ``foreign``: of another
            origin than the step.
        worth: Whether it is kept after the new result is complete.
    """

    path: str
    aside: str
    origin: Origin
    worth: bool


@dataclass(frozen=True)
class Attempt:
    """A step that was started and may not have finished.

    Attributes:
        name: Name of the step.
        fingerprint: What it was made from.
        inputs: The same part by part.
        replaced: Outputs that were moved aside for it or for an earlier attempt.
        record: Record of the finished result that it replaces; None if there was none.
    """

    name: str
    fingerprint: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    replaced: tuple[Replaced, ...] = ()
    record: Mapping[str, Any] | None = None


def read(output: Path, name: str) -> Attempt | None:
    """Return the last attempt of a step; None if it has none."""
    content: Any = records.read_json(_path(output, name))
    try:
        replaced = tuple(Replaced(**entry) for entry in content.pop("replaced"))
        return Attempt(**content, replaced=replaced)
    except (AttributeError, KeyError, TypeError):
        return None


def begin(output: Path, attempt: Attempt, kind: Kind, paths: Sequence[Path]) -> list[Replaced]:
    """Move aside what is where a step will write, and note that it was started.

    Args:
        output: Output folder of the pipeline.
        attempt: The step and its inputs.
        kind: Kind of the step.
        paths: Files and folders that it writes.

    Returns:
        What was moved and is of worth.

    Raises:
        PipelineError: An output cannot be moved.
    """
    before, finished = read(output, attempt.name), records.read(output, attempt.name)
    replaced = [entry for entry in before.replaced if os.path.lexists(entry.aside)] if before else []
    moves = []
    for path in paths:
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            with contextlib.suppress(OSError):
                path.rmdir()
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            continue
        origin = _origin(path, before, finished is not None)
        worth = _is_worth(path, origin, kind)
        moves.append(Replaced(str(path), str(_free(path)), origin, worth))
    known = asdict(finished) if finished is not None else before.record if before is not None else None
    attempt = replace(attempt, replaced=(*replaced, *moves), record=known)
    # noted before anything is moved: a run that is killed in between knows what is where
    _write(output, attempt)
    _reserve(output, attempt.name)
    records.forget(output, attempt.name)
    for move in moves:
        _move(Path(move.path), Path(move.aside))
    for path in paths if kind in ("train", "export") else ():
        if path.is_symlink() and not path.exists():
            # a link to a place on another disk, whose content was moved or not made yet
            _real(path).mkdir(parents=True, exist_ok=True)
    return [move for move in moves if move.worth]


def resume(output: Path, attempt: Attempt) -> None:
    """Note that a step goes on where its last attempt stopped."""
    before = read(output, attempt.name)
    _write(output, replace(attempt, replaced=before.replaced, record=before.record) if before else attempt)
    _reserve(output, attempt.name)


def record(output: Path, found: records.StepRecord) -> None:
    """Write the record of a step that has ended, for which there is room even if its outputs filled the disk.

    Raises:
        PipelineError: It cannot be written all the same.
    """
    _room(output, found.name).unlink(missing_ok=True)
    try:
        records.write(output, found)
    except OSError as error:
        text = f"step {found.name} has ended, but its record cannot be written ({error.strerror})."
        raise PipelineError(
            f"{text} Free some space and run again; a training that has ended is not repeated."
        ) from None


def finish(output: Path, name: str, restart: bool) -> list[Replaced]:
    """Delete what a finished step replaced.

    Args:
        output: Output folder of the pipeline.
        name: The step.
        restart: Whether what is worth keeping is deleted too.

    Returns:
        What was kept.
    """
    attempt = read(output, name)
    kept = []
    for entry in attempt.replaced if attempt is not None else ():
        if entry.worth and not restart:
            kept.append(entry)
        else:
            delete(Path(entry.aside))
    _path(output, name).unlink(missing_ok=True)
    _room(output, name).unlink(missing_ok=True)
    return [entry for entry in kept if os.path.lexists(entry.aside)]


def restorable(attempt: Attempt | None, fingerprint: str) -> records.StepRecord | None:
    """Return the record of a finished result that was moved aside, if it was made from the present inputs."""
    if attempt is None or attempt.record is None or attempt.record.get("fingerprint") != fingerprint:
        return None
    finished = [entry for entry in attempt.replaced if entry.origin == "finished"]
    if not finished or not all(os.path.lexists(entry.aside) for entry in finished):
        return None
    return records.StepRecord(**attempt.record)


def restore(output: Path, name: str) -> None:
    """Put a finished result back that an attempt with other inputs moved aside; what that attempt left is deleted.

    Raises:
        PipelineError: An output cannot be moved.
    """
    attempt = read(output, name)
    assert attempt is not None
    assert attempt.record is not None
    for entry in attempt.replaced:
        if entry.origin != "finished" or not os.path.lexists(entry.aside):
            continue
        path = Path(entry.path)
        if path.exists():
            delete(_real(path))
        _move(Path(entry.aside), _real(path))
    records.write(output, records.StepRecord(**attempt.record))
    finish(output, name, restart=False)


def size_text(path: Path) -> str:
    """Return the size of a file or folder in words."""
    n_bytes = sum(file.stat().st_size for file in _files(path))
    if n_bytes >= 10**8:
        return f"{n_bytes / 1e9:.1f} GB"
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 10**5 else f"{n_bytes / 1e3:.1f} kB"


def delete(path: Path) -> None:
    """Delete a file or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _path(output: Path, name: str) -> Path:
    return output / records.FOLDER / f"{name}.{SUFFIX}"


def _room(output: Path, name: str) -> Path:
    return output / records.FOLDER / f"{name}.room"


def _reserve(output: Path, name: str) -> None:
    try:
        _room(output, name).write_bytes(os.urandom(ROOM_BYTES))
    except OSError as error:
        raise PipelineError(f"step {name} was not started: {output} cannot be written ({error.strerror}).") from None


def _write(output: Path, attempt: Attempt) -> None:
    records.write_json(_path(output, attempt.name), asdict(attempt))


def _origin(path: Path, before: Attempt | None, recorded: bool) -> Origin:
    if recorded:
        return "finished"
    if before is not None:
        planned = [entry for entry in before.replaced if entry.path == str(path)]
        if planned and not os.path.lexists(planned[-1].aside):
            # the run was killed before it moved this one
            return planned[-1].origin
        return "attempt"
    return "foreign"


def _is_worth(path: Path, origin: Origin, kind: Kind) -> bool:
    if origin == "foreign":
        return True
    if origin == "finished":
        # an export and its scores are made again from what was trained in minutes
        return kind == "train" or (kind == "command" and _is_costly(path))
    return kind == "train" and (checkpoints.has_any(path) or checkpoints.is_result(path))


def _is_costly(path: Path) -> bool:
    files = _files(path)
    weights = any(file.suffix in WEIGHTS for file in files)
    return weights or sum(file.stat().st_size for file in files) >= COSTLY_BYTES


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def _free(path: Path) -> Path:
    """Return a free hidden name beside a file or folder, on its own disk."""
    real, number = _real(path), 1
    while os.path.lexists(found := real.parent / f".{real.name}.replaced-{number}"):
        number += 1
    return found


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _move(path: Path, aside: Path) -> None:
    try:
        _real(path).rename(aside)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            text = f"{path} cannot be moved aside ({error.strerror}); move it, and run again."
            raise PipelineError(text) from None
        # a mount point stays where it is, and its content is moved
        inside = path / aside.name
        inside.mkdir()
        for entry in path.iterdir():
            if entry != inside:
                entry.rename(inside / entry.name)
