"""What Whisper hears in units, by a tiny random model of the real architecture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from eval.book import Book, score
from eval.tiny_whisper import LONGEST, SPECIAL, make_whisper
from slm_plugin.errors import WeightsError
from slm_plugin.eval.rows import read_rows
from slm_plugin.eval.whisper import WhisperRecogniser
from slm_plugin.plugins import Registry
from slm_plugin.speech.codecs import load_codec
from slm_plugin.speech.protocol import Codec

UNITS = [[3, 14, 15, 92, 65, 35], [89, 79, 32, 38, 46], [26, 43, 38, 32, 79, 50, 28, 84, 19, 71]]


@pytest.fixture(scope="module")
def codec(registry: Registry) -> Codec:
    return load_codec("tiny", registry)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_whisper(tmp_path_factory.mktemp("whisper"))


@pytest.fixture(scope="module")
def recogniser(folder: Path, codec: Codec) -> WhisperRecogniser:
    return WhisperRecogniser.load(str(folder), codec, "en")


def heard_alone(recogniser: WhisperRecogniser, wave_N: np.ndarray, language: str = "<|en|>") -> str:
    """Decode one recording token by token, with neither a batch nor transformers' generation."""
    processor, model = recogniser._processor, recogniser._model
    features = processor.feature_extractor(wave_N, sampling_rate=16_000, return_tensors="pt").input_features
    tokenizer = processor.tokenizer
    ids = tokenizer.convert_tokens_to_ids(["<|startoftranscript|>", language, "<|transcribe|>", "<|notimestamps|>"])
    special = tokenizer.convert_tokens_to_ids(list(SPECIAL))
    start = len(ids)
    with torch.inference_mode():
        sound = model.model.encoder(features)
        while len(ids) < LONGEST:
            logits_V = model(encoder_outputs=sound, decoder_input_ids=torch.tensor([ids])).logits[0, -1]
            # neither further control tokens nor times, and the end not at first
            logits_V[special[1] :] = -torch.inf
            if len(ids) == start:
                logits_V[special[0]] = -torch.inf
            token = int(logits_V.argmax())
            if token == special[0]:
                break
            ids.append(token)
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True)).strip()


def wave(codec: Codec, units: list[int]) -> np.ndarray:
    assert codec.sample_rate_hz == 16_000
    return codec.decode(units)


def test_it_hears_in_a_batch_what_it_hears_alone(recogniser, codec) -> None:
    found = recogniser.recognise([UNITS[0], [], *UNITS[1:]])
    assert found == [heard_alone(recogniser, wave(codec, UNITS[0])), ""] + [
        heard_alone(recogniser, wave(codec, units)) for units in UNITS[1:]
    ]
    # different sounds, different words
    assert len(set(found)) == 4


def test_the_language_is_told(folder, codec, recogniser) -> None:
    german = WhisperRecogniser.load(str(folder), codec, "de")
    assert german.recognise(UNITS[:1]) == [heard_alone(german, wave(codec, UNITS[0]), "<|de|>")]
    assert german.recognise(UNITS) != recogniser.recognise(UNITS)


def test_longer_speech_is_heard_in_windows_of_thirty_seconds(recogniser, codec, monkeypatch) -> None:
    monkeypatch.setattr("slm_plugin.eval.whisper.WINDOW_SECONDS", 1)
    long = UNITS[2] * 12
    parts = [wave(codec, long)[start : start + 16_000] for start in range(0, len(wave(codec, long)), 16_000)]
    assert len(parts) > 2
    assert recogniser.recognise([long]) == [" ".join(filter(None, (heard_alone(recogniser, one) for one in parts)))]


def test_a_model_of_one_language_is_not_told_one(codec, tmp_path) -> None:
    folder = make_whisper(tmp_path / "english", multilingual=False)
    assert WhisperRecogniser.load(str(folder), codec).recognise(UNITS[:1]) != [""]
    with pytest.raises(WeightsError, match="leave out language: en"):
        WhisperRecogniser.load(str(folder), codec, "en")


def test_a_folder_without_a_model_is_refused(codec, tmp_path) -> None:
    with pytest.raises(WeightsError, match=r"there is no Whisper model .* that can be loaded"):
        WhisperRecogniser.load(str(tmp_path), codec)


def test_speech_is_scored_by_whisper_beside_its_own_rate_on_real_speech(registry, root, folder, recogniser) -> None:
    file = root / "examples/tiny/data/eval_speech.jsonl"
    options = {"data": str(file), "codec": "tiny", "whisper": str(folder), "language": "en", "n": 3}
    rows = {row["transcription"]: row["interleaf"] for row in read_rows(file, 3)}
    found = score(registry, "speech_synthesis", Book(lambda prompt: rows[prompt.split(" : ")[1]]), **options)
    # a random model hears nonsense, the same in a model's units as in the recording's
    assert found.value == found.notes["recogniser_wer"] >= 1.0
    assert all(
        f"(heard: {heard})" in example["answer"]
        for example, heard in zip(
            found.examples, recogniser.recognise([row["discrete_unit"] for row in read_rows(file, 3)]), strict=True
        )
    )
