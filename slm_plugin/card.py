"""``slm.json``: what an adapter, units base or exported model was made from."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from slm_plugin import __version__
from slm_plugin.errors import DataError, WeightsError
from slm_plugin.vocabulary import UnitVocabulary
from slm_plugin.weights.digest import file_digest
from slm_plugin.weights.durable import settle
from slm_plugin.weights.staging import intended

FILE_NAME = "slm.json"
_SECOND = "v2"
_SAMPLED_BLOCKS = 16
_BLOCK_BYTES = 65_536


def read(folder: Path) -> dict[str, Any]:
    """Return the card of a folder; empty where it has none.

    Raises:
        DataError: The file is there but is not JSON, or not a card.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return {}
    try:
        content: dict[str, Any] = json.loads(path.read_bytes().decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged: {error}.") from None
    _check_form(content, path)
    return content


def units_of(folder: Path) -> dict[str, Any] | None:
    """Return the unit vocabulary of a folder, ``first_id`` and ``count``: by its card, else by its tokenizer.

    Returns:
        The record of a card; ``None`` if the folder has no units, or neither card nor tokenizer.

    Raises:
        DataError: The card is damaged.
        VocabularyError: The tokenizer has unit tokens whose ids are not one run.
        WeightsError: The tokenizer cannot be read.
    """
    recorded: dict[str, Any] | None = read(folder).get("units")
    if recorded or not (folder / "tokenizer_config.json").is_file():
        return recorded
    from transformers import AutoTokenizer

    try:
        found = UnitVocabulary.find(AutoTokenizer.from_pretrained(folder))
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        raise WeightsError(f"the tokenizer in {folder} cannot be read: {text}") from None
    return None if found is None else {"count": found.count, "first_id": found.first_id, "seed": None, "init": None}


def _check_form(content: Any, path: Path) -> None:
    """Refuse a card that is not a card: adapters come from elsewhere, and their readers index what it holds.

    Raises:
        DataError: Names the key.
    """
    if not isinstance(content, dict):
        raise DataError(f"{path} is damaged: it holds no object.")
    for key in ("units", "base", "replay", "versions"):
        if content.get(key) is not None and not isinstance(content[key], dict):
            raise DataError(f"{path} is damaged: {key} is no object.")
    for key, value in (content.get("units") or {}).items():
        if key in ("count", "first_id") and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
            raise DataError(f"{path} is damaged: units.{key} is no whole number of 0 or more.")


def write(folder: Path, content: Mapping[str, Any]) -> None:
    """Write a card, with the versions in force, to a temporary name and move it into place.

    Raises:
        WeightsError: The disk is full, or the folder cannot be written; an earlier card stays.
    """
    temporary = folder / f".{FILE_NAME}.{os.getpid()}"
    text = json.dumps({**content, "versions": versions()}, indent=2, ensure_ascii=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text + "\n", encoding="utf-8")
        settle(temporary, folder / FILE_NAME)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise WeightsError(f"{intended(folder) / FILE_NAME} was not written: {error.strerror or error}.") from None


def versions() -> dict[str, str]:
    """Return the versions of everything that decides a result."""
    found = {"slm_plugin": __version__, "python": platform.python_version()}
    for name in ("llamafactory", "transformers", "peft", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def fingerprint(model: Path) -> str:
    """Return twelve characters over a model folder: its configuration and its weights.

    Files of up to 64 MiB are read in full, and larger ones are sampled in every tensor and at the rows of the newest
    tokens, so that a 16 GB model costs well under a second; see :mod:`slm_plugin.weights.digest`.

    Returns:
        ``v2`` and ten hex digits, or an empty string if ``model`` is not a local folder.
    """
    if not model.is_dir():
        return ""
    digest = hashlib.blake2b()
    for path in _files(model):
        digest.update(f"{path.name}:{file_digest(path)}\n".encode())
    return f"{_SECOND}{digest.hexdigest()[:10]}"


def is_fingerprint_of(recorded: str, model: Path) -> bool:
    """Tell whether a recorded fingerprint is that of a model folder; cards of 0.1.0 have the form before this one."""
    return recorded == (fingerprint(model) if recorded.startswith(_SECOND) else _first_fingerprint(model))


def _first_fingerprint(model: Path) -> str:
    """Return twelve hex digits over sixteen samples of each file, as 0.1.0 did."""
    digest = hashlib.sha256()
    for path in _files(model):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}\n".encode())
        with path.open("rb") as file:
            for block in range(_SAMPLED_BLOCKS):
                file.seek(max(0, size - _BLOCK_BYTES) * block // (_SAMPLED_BLOCKS - 1))
                digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()[:12]


def _files(model: Path) -> list[Path]:
    return sorted([*model.glob("*.safetensors"), *model.glob("pytorch_model*.bin"), *model.glob("config.json")])
