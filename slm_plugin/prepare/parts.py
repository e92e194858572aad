"""What a data set is made with: corpus, codec, aligner and voice, from their names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slm_plugin.alignment.protocol import Aligner
from slm_plugin.errors import ConfigError, PluginError, Problem
from slm_plugin.plugins import Catalogue, Registry
from slm_plugin.prepare.corpora.protocol import Corpus
from slm_plugin.prepare.options import PrepareOptions
from slm_plugin.prepare.voices.protocol import Voice
from slm_plugin.speech.codecs import load_codec
from slm_plugin.speech.protocol import Codec
from slm_plugin.strict import parse


@dataclass(frozen=True)
class Parts:
    """Everything that decides what comes out, loaded.

    Attributes:
        codec: Units.
        corpus: Items.
        aligner: Word times; None for those that come with a recording.
        voice: Speaks chats; None where recordings are prepared.
        tokenizer: Counts the pieces of ``ratio``; None for words.
    """

    codec: Codec
    corpus: Corpus
    aligner: Aligner | None
    voice: Voice | None
    tokenizer: Any = None

    def fingerprints(self) -> dict[str, str]:
        """Return what each of them answers for itself."""
        return {
            "codec": self.codec.fingerprint,
            "corpus": self.corpus.fingerprint,
            "aligner": self.aligner.fingerprint if self.aligner else "",
            "voice": self.voice.fingerprint if self.voice else "",
        }

    def licences(self) -> dict[str, str]:
        """Return whose terms hold for the data set, as far as they are known."""
        found = {
            "corpus": self.corpus.licence,
            "codec": "; ".join(_licences(self.codec)),
            "aligner": self.aligner.licence if self.aligner else "",
            "voice": self.voice.licence if self.voice else "",
        }
        return {what: text for what, text in found.items() if text}


def _licences(codec: Codec) -> list[str]:
    """Return the terms of a codec's weights, where it knows them: ``licences`` of itself or of its settings."""
    return list(getattr(codec, "licences", None) or getattr(getattr(codec, "settings", None), "licences", []))


def load_parts(options: PrepareOptions, registry: Registry) -> Parts:
    """Load them.

    Raises:
        ConfigError: Lists every unknown name and every option that is wrong.
        SlmError: One of them cannot be loaded.
    """
    problems: list[Problem] = []
    chosen = {
        "corpus": _choose(options.corpus, "corpus", registry.corpora, problems),
        "align": _choose(options.align, "align", registry.aligners, problems),
        "voice": _choose(options.voice, "voice", registry.voices, problems),
    }
    if problems:
        raise ConfigError(problems)
    corpus: Corpus = _make(chosen["corpus"])
    if corpus.kind == "chats" and options.voice is None:
        raise ConfigError(
            [Problem("voice", f"text chats are spoken by one of: {', '.join(registry.voices.names())}.")]
        )
    if corpus.kind == "speech" and options.voice is not None:
        raise ConfigError([Problem("voice", "recordings are spoken already; leave it out.")])
    return Parts(
        load_codec(options.codec, registry),
        corpus,
        _make(chosen["align"]),
        _make(chosen["voice"]),
        _tokenizer(options.interleave.tokenizer) if options.interleave.form == "ratio" else None,
    )


def _choose(
    choice: Mapping[str, Mapping[str, Any]] | None, key: str, catalogue: Catalogue, problems: list[Problem]
) -> tuple[Any, Any] | None:
    if choice is None:
        return None
    ((name, raw),) = choice.items()
    try:
        kind = catalogue.get(name)
        return kind, parse(kind.Options, raw, f"{key}.{name}")
    except PluginError as error:
        problems.append(Problem(key, str(error)))
    except ConfigError as error:
        problems.extend(error.problems)
    return None


def _make(chosen: tuple[Any, Any] | None) -> Any:
    return None if chosen is None else chosen[0](chosen[1])


def _tokenizer(name: str | None) -> Any:
    if name is None:
        return None
    from transformers import AutoTokenizer

    try:
        found = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        raise ConfigError([Problem("interleave.tokenizer", f"{name} cannot be loaded: {text}")]) from None
    if not found.is_fast:
        raise ConfigError([Problem("interleave.tokenizer", f"{name} has no fast form, which knows where a token is.")])
    return found
