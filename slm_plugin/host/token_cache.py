"""Data sets saved tokenised (``tokenized_path``): signed by the run that wrote them, and checked before they are used.

The host loads whatever lies in the folder and ignores every other data argument. A folder that was written
without the ``slm:`` block holds units as the text ``<``, ``|``, ``19``, ...
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from slm_plugin.errors import DataError
from slm_plugin.generation import chat_form
from slm_plugin.host import runtime

SIGNATURE_FILE = "slm_vocabulary.json"
_FORM = 2
_ADVICE = "Remove the folder or set another tokenized_path."
_BLOCK = 1 << 20


def is_ready(data_args: Any, tokenizer: Any, name: str, stage: str = "sft", generates: bool = False) -> bool:
    """Tell whether ``tokenized_path`` holds rows that this run may use; False if there are none yet.

    Args:
        data_args: The host's data arguments.
        tokenizer: The tokenizer of this run.
        name: What a message calls the rows.
        stage: The host's training stage.
        generates: Whether the host generates answers to evaluation rows, whose answers are then no part of them.

    Raises:
        DataError: The folder is not signed, or was signed for another vocabulary, another tokenizer, other data
            or other options. One line that names the folder and the difference.
    """
    folder = Path(data_args.tokenized_path or "")
    if not data_args.tokenized_path or not folder.is_dir() or not any(folder.iterdir()):
        return False
    saved = _read(folder / SIGNATURE_FILE)
    if saved is None:
        raise DataError(
            f"{folder} holds rows that no run with this slm block has signed ({SIGNATURE_FILE} is missing, damaged"
            f" or of an earlier release): units in them may be text, so they are not used for {name}. {_ADVICE}"
        )
    wanted = _vocabulary(tokenizer)
    if saved["vocabulary"] != wanted:
        raise DataError(
            f"{folder} holds {name} tokenised for another vocabulary ({_units(saved['vocabulary'])}), this run has"
            f" {_units(wanted)}. {_ADVICE}"
        )
    difference = _option_difference(saved["options"], _options(data_args, stage, generates)) or _data_difference(
        saved["data"], data_args
    )
    if difference is not None:
        raise DataError(f"{folder} holds {name} tokenised before {difference}. {_ADVICE}")
    return True


def sign(data_args: Any, tokenizer: Any, stage: str = "sft", generates: bool = False) -> None:
    """Leave a note in a folder that this run has just written, which says what its rows were made from.

    Args:
        data_args: The host's data arguments.
        tokenizer: The tokenizer of this run.
        stage: The host's training stage.
        generates: Whether the host generates answers to evaluation rows.
    """
    folder = Path(data_args.tokenized_path)
    vocabulary = _vocabulary(tokenizer)
    units = {key: vocabulary[key] for key in ("tokens", "first_unit_id", "units")}
    data = {name: _state(entry, files) for name, entry, files in _sources(data_args)}
    content = {
        **units,
        "form": _FORM,
        "vocabulary": vocabulary,
        "options": _options(data_args, stage, generates),
        "data": data,
    }
    temporary = folder / f".{SIGNATURE_FILE}"
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(folder / SIGNATURE_FILE)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    whole = content.get("form") == _FORM and {"vocabulary", "options", "data"} <= set(content)
    return content if whole else None


def _vocabulary(tokenizer: Any) -> dict[str, Any]:
    active = runtime.active()
    units = active.vocabulary if active else None
    tokens = json.dumps(sorted(tokenizer.get_vocab().items()))
    return {
        "tokens": len(tokenizer),
        "first_unit_id": units.first_id if units else -1,
        "units": units.count if units else 0,
        "digest": hashlib.sha256(tokens.encode()).hexdigest()[:16],
    }


def _units(vocabulary: dict[str, Any]) -> str:
    count, first, digest = vocabulary["units"], vocabulary["first_unit_id"], vocabulary["digest"]
    return f"{vocabulary['tokens']} tokens, {count} units from id {first}, digest {digest}"


def _options(data_args: Any, stage: str, generates: bool) -> dict[str, Any]:
    """Return the options that decide which ids a row becomes, and which rows there are."""
    active = runtime.active()
    evaluates = bool(data_args.eval_dataset or data_args.val_size)
    return {
        "stage": stage,
        "predict_with_generate": generates and evaluates,
        "template": data_args.template,
        "cutoff_len": data_args.cutoff_len,
        "train_on_prompt": data_args.train_on_prompt,
        "mask_history": data_args.mask_history,
        "preserve_thinking": data_args.preserve_thinking,
        "packing": bool(data_args.packing),
        "neat_packing": data_args.neat_packing,
        "max_samples": data_args.max_samples,
        "val_size": data_args.val_size,
        "mix_strategy": data_args.mix_strategy,
        "interleave_probs": data_args.interleave_probs,
        "default_system": data_args.default_system,
        "enable_thinking": data_args.enable_thinking,
        "tool_format": data_args.tool_format,
        "slm.long_samples": active.config.block.long_samples if active else None,
        "prompts": active.facts.get(chat_form.KEY, {}).get("fingerprint") if active else None,
    }


def _option_difference(saved: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    for key, value in wanted.items():
        if saved.get(key) != value:
            return f"{key} changed from {saved.get(key)} to {value}"
    return None


def _sources(data_args: Any) -> Iterator[tuple[str, Any, list[Path]]]:
    """Yield name, entry in ``dataset_info.json`` and local files of each data set of the run."""
    folder = data_args.dataset_dir
    registry: dict[str, Any] = folder if isinstance(folder, dict) else {}
    root = Path(folder) if isinstance(folder, str) else Path()
    if isinstance(folder, str) and (root / "dataset_info.json").is_file():
        registry = json.loads((root / "dataset_info.json").read_text(encoding="utf-8"))
    for name in dict.fromkeys([*(data_args.dataset or []), *(data_args.eval_dataset or [])]):
        entry = registry.get(name)
        local = (entry or {}).get("script_url") or (entry or {}).get("file_name")
        path = root / local if local else None
        if path is not None and path.is_dir():
            yield name, entry, sorted(file for file in path.iterdir() if file.is_file())
        else:
            yield name, entry, [path] if path is not None else []


def _state(entry: Any, files: list[Path]) -> dict[str, Any]:
    return {"entry": entry, "files": {file.name: _file_state(file) for file in files if file.is_file()}}


def _file_state(file: Path) -> dict[str, Any]:
    about = file.stat()
    return {"bytes": about.st_size, "mtime_ns": about.st_mtime_ns, "sha256": _digest(file)}


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _data_difference(saved: dict[str, Any], data_args: Any) -> str | None:
    """Return what changed in the data sets; None if nothing did, or the run names none."""
    sources = list(_sources(data_args))
    names = [name for name, _, _ in sources]
    if names and sorted(names) != sorted(saved):
        return f"the data sets changed from {', '.join(saved)} to {', '.join(names)}"
    for name, entry, files in sources:
        before = saved[name]
        if entry != before["entry"]:
            return f"the entry of {name!r} in dataset_info.json changed"
        there = {file.name: file for file in files if file.is_file()}
        if not there and before["files"]:
            runtime.say(
                f"the files of data set {name!r} are not here, so its tokenised rows cannot be compared with them"
            )
            continue
        for file in sorted(set(there) | set(before["files"])):
            if file not in there or file not in before["files"] or _changed(there[file], before["files"][file]):
                return f"the file {file} of data set {name!r} changed"
    return None


def _changed(file: Path, before: dict[str, Any]) -> bool:
    about = file.stat()
    if about.st_size != before["bytes"]:
        return True
    return about.st_mtime_ns != before["mtime_ns"] and _digest(file) != before["sha256"]
