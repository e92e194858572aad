"""What listens to a model's speech: a recogniser of words, as probes name it."""

from __future__ import annotations

from slm_plugin.errors import CodecError
from slm_plugin.eval.recogniser import HearsUnits, Recogniser, TemplateRecogniser
from slm_plugin.eval.rows import DataOptions
from slm_plugin.eval.whisper import WhisperRecogniser
from slm_plugin.plugins import Registry
from slm_plugin.speech.codecs import load_codec, require_units
from slm_plugin.speech.protocol import Codec


class JudgeOptions(DataOptions):
    """Which recogniser listens."""

    codec: str | None = None
    """Registered codec, or folder, that the units belong to."""

    templates: str | None = None
    """Templates of a closed set of words, JSON lines of ``word`` and ``units``: the recogniser needs no model."""

    whisper: str | None = None
    """Folder of a Whisper model, or its name on the hub: it hears the units as the codec sounds them."""

    language: str | None = None
    """Language that a multilingual Whisper is told, such as ``en``; it guesses unless set."""

    def check_judge(self) -> None:
        """Refuse options that name no recogniser, or two.

        Raises:
            ValueError: Says what is needed.
        """
        if self.codec is None or (self.templates is None) == (self.whisper is None):
            raise ValueError("speech is judged with a codec and with either templates or whisper.")


def load_judge(options: JudgeOptions, n_units: int) -> Recogniser:
    """Return the recogniser that options name.

    Args:
        options: The options.
        n_units: Units in the model's vocabulary, which must be the codec's.

    Raises:
        CodecError: The codec cannot say how different two units sound, which templates need.
        VocabularyError: Model and codec have different numbers of units.
        WeightsError: There is no Whisper model of that name.
    """
    codec = load_units_codec(options.codec or "", n_units)
    if options.whisper is not None:
        return WhisperRecogniser.load(options.whisper, codec, options.language)
    if not isinstance(codec, HearsUnits):
        raise CodecError(
            f"the codec {options.codec!r} does not tell how different two units sound;"
            " use a mel_kmeans codec, or whisper in place of templates."
        )
    return TemplateRecogniser.load(options.templates or "", codec)


def load_units_codec(name: str, n_units: int) -> Codec:
    """Return a codec of as many units as a model has.

    Raises:
        CodecError: There is none of that name.
        VocabularyError: Model and codec have different numbers of units.
    """
    codec = load_codec(name, Registry.load())
    require_units(codec, name, n_units)
    return codec
