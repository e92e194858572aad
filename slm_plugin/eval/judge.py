"""The recogniser of a codec's units, as probes name it."""

from __future__ import annotations

from slm_plugin.errors import CodecError, VocabularyError
from slm_plugin.eval.recogniser import HearsUnits, TemplateRecogniser
from slm_plugin.plugins import Registry
from slm_plugin.speech.codecs import load_codec


def load_judge(templates: str, codec: str, n_units: int) -> TemplateRecogniser:
    """Return the recogniser for templates in the units of a codec.

    Args:
        templates: File of templates.
        codec: Registered name, or folder.
        n_units: Units in the model's vocabulary, which must be the codec's.

    Raises:
        CodecError: The codec cannot say how different two units sound.
        VocabularyError: Model and codec have different numbers of units.
    """
    loaded = load_codec(codec, Registry.load())
    if loaded.n_units != n_units:
        raise VocabularyError(f"the model has {n_units} units, the codec {codec!r} has {loaded.n_units}.")
    if not isinstance(loaded, HearsUnits):
        raise CodecError(f"the codec {codec!r} does not tell how different two units sound; use a mel_kmeans codec.")
    return TemplateRecogniser.load(templates, loaded)
