"""The tokenizer of a text decoder: that of the whole model, without the tokens that the decoder has no row for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from slm_plugin.errors import VocabularyError

_COPIED = ("tokenizer.model", "*.tiktoken", "vocab*", "merges.txt", "chat_template.jinja", "generation_config.json")
_EDITED = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_OF_THE_PROCESSOR = ("processor_class",)


def carry_over(source: Path, destination: Path, rows: int) -> list[str]:
    """Write tokenizer, chat template and generation settings without the tokens from ``rows`` on.

    Args:
        source: Folder of the whole model.
        destination: Folder of the text decoder.
        rows: Rows of its vocabulary.

    Returns:
        The tokens that were left out, such as ``<|image|>``.

    Raises:
        VocabularyError: ``tokenizer.json`` is missing or damaged, or an ordinary token lies behind the last row.
    """
    path = source / "tokenizer.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        ordinary = content["model"]["vocab"]
        added = content["added_tokens"]
    except OSError:
        raise VocabularyError(f"{source} has no tokenizer.json, the form of tokenizer that is read.") from None
    except (json.JSONDecodeError, KeyError) as error:
        raise VocabularyError(f"{path} is damaged: {error}.") from None
    without_row = {entry["content"]: entry["id"] for entry in added if entry["id"] >= rows}
    behind = [token for token, number in _pairs(ordinary) if number >= rows and token not in without_row]
    if behind:
        raise VocabularyError(f"{path}: {len(behind)} tokens, {behind[0]!r} among them, lie behind the {rows} rows.")
    if without_row:
        content["added_tokens"] = [entry for entry in added if entry["id"] < rows]
        if isinstance(ordinary, dict):
            content["model"]["vocab"] = {token: number for token, number in ordinary.items() if number < rows}
    _write(destination / path.name, content)
    for name in _EDITED:
        if (source / name).is_file():
            edited = _without(json.loads((source / name).read_text(encoding="utf-8")), without_row)
            _write(destination / name, {key: value for key, value in edited.items() if key not in _OF_THE_PROCESSOR})
    for found in sorted({found for pattern in _COPIED for found in source.glob(pattern)}):
        shutil.copyfile(found, destination / found.name)
    _take_template_of_the_processor(source, destination)
    return sorted(without_row, key=lambda token: without_row[token])


def _take_template_of_the_processor(source: Path, destination: Path) -> None:
    """Keep the chat template where only the processor has it."""
    settings = destination / "tokenizer_config.json"
    held = settings.is_file() and "chat_template" in json.loads(settings.read_text(encoding="utf-8"))
    path = source / "chat_template.json"
    if not held and not (destination / "chat_template.jinja").exists() and path.is_file():
        template = json.loads(path.read_text(encoding="utf-8"))["chat_template"]
        (destination / "chat_template.jinja").write_text(template, encoding="utf-8")


def _pairs(vocabulary: Any) -> list[tuple[str, int]]:
    # unigram models list their tokens, and the place in the list is the id
    if isinstance(vocabulary, dict):
        return list(vocabulary.items())
    return [(entry[0], number) for number, entry in enumerate(vocabulary)]


def _without(value: Any, tokens: dict[str, int]) -> Any:
    """Return JSON without what names one of some tokens, by its text or as the key of its id."""
    if isinstance(value, dict):
        numbers = {str(number) for number in tokens.values()}
        return {
            key: _without(item, tokens)
            for key, item in value.items()
            if key not in tokens and key not in numbers and not _names(item, tokens)
        }
    if isinstance(value, list):
        return [_without(item, tokens) for item in value if not _names(item, tokens)]
    return value


def _names(item: Any, tokens: dict[str, int]) -> bool:
    text = item.get("content") if isinstance(item, dict) else item
    return isinstance(text, str) and text in tokens


def _write(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
