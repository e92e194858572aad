"""Languages and speakers of Seamless' ``vocoder_v2``.

Source: the vocoder's card in seamless_communication: languages in the order of their embedding, and for
each the first of its speakers, which speaker -1 stands for.
"""

from __future__ import annotations

from slm_plugin.errors import CodecError, suggest
from slm_plugin.speech.vocoder.settings import VocoderSettings, VoiceTable

_FIRST_SPEAKERS = (
    "arb 0 ben 1 cat 2 ces 3 cmn 4 cym 6 dan 7 deu 9 eng 10 est 11 fin 14 fra 15 hin 16 ind 17 ita 29 jpn 30 kor 31"
    " mlt 32 nld 35 pes 38 pol 39 por 40 ron 41 rus 43 slk 44 spa 45 swe 46 swh 49 tel 52 tgl 53 tha 54 tur 61 ukr 62"
    " urd 63 uzn 66 vie 69"
)


def seamless_voices() -> VoiceTable:
    """Return the 36 languages of ``vocoder_v2`` and the first speaker of each."""
    parts = _FIRST_SPEAKERS.split()
    first = {language: int(number) for language, number in zip(parts[::2], parts[1::2], strict=True)}
    return VoiceTable(languages=list(first), first_speakers=first)


def voice_numbers(settings: VocoderSettings) -> tuple[int, int]:
    """Return the rows of the language and the speaker embedding that settings name.

    Raises:
        CodecError: The language or the speaker is not one of the vocoder's.
    """
    shape, voices = settings.shape, settings.voices
    language = 0
    if shape.language_width:
        if settings.language not in voices.languages:
            raise CodecError(
                f"the vocoder does not speak {settings.language!r}. {suggest(settings.language, voices.languages)}"
            )
        language = voices.languages.index(settings.language)
    if not shape.speaker_width:
        return language, 0
    speaker = settings.speaker
    if speaker == -1:
        speaker = voices.first_speakers.get(settings.language, 0)
    if not 0 <= speaker < shape.n_speakers:
        raise CodecError(f"the vocoder has no speaker {speaker}; its speakers are 0..{shape.n_speakers - 1}.")
    return language, speaker


def named_voice(settings: VocoderSettings, name: str) -> VocoderSettings:
    """Return the settings with the voice of a name.

    Args:
        settings: Of a vocoder.
        name: A language, which means its first speaker, or ``LANGUAGE-NUMBER``, such as ``eng-11``.

    Raises:
        CodecError: The vocoder has no such voice.
    """
    language, dash, number = name.partition("-")
    if dash and not (number.isascii() and number.isdigit()):
        raise CodecError(f"{name!r} is no voice; write a language and the number of a speaker, such as 'eng-11'.")
    wanted = settings.model_copy(update={"language": language, "speaker": int(number) if dash else -1})
    if language not in settings.voices.languages:
        raise CodecError(f"the vocoder does not speak {language!r}. {suggest(language, settings.voices.languages)}")
    voice_numbers(wanted)
    return wanted
