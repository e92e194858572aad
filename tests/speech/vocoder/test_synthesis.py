"""Units to waves: parity with transformers, exact batches, voices, durations, long utterances."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from slm_plugin.errors import CodecError
from slm_plugin.speech.vocoder.network import build_vocoder, load_vocoder
from slm_plugin.speech.vocoder.reach import Reach, reach
from slm_plugin.speech.vocoder.settings import VocoderSettings, VocoderShape
from slm_plugin.speech.vocoder.synthesis import Synthesiser
from slm_plugin.speech.vocoder.voices import seamless_voices, voice_numbers
from speech_models import N_UNITS, vocoder_network

SHAPE = VocoderShape(n_units=N_UNITS, unit_width=24, language_width=6, speaker_width=5, channels=32)


@pytest.fixture(scope="module")
def network() -> Any:
    return vocoder_network()


def synthesiser(
    network: Any, predict: bool = False, batch_frames: int = 3000, piece_frames: int = 3000, **settings: Any
) -> Synthesiser:
    chosen = VocoderSettings(shape=SHAPE, voices=seamless_voices(), **settings)
    return Synthesiser(chosen, network, predict, batch_frames, piece_frames)


def sequences(*lengths: int, seed: int = 0) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, N_UNITS, length).tolist() for length in lengths]


def reference(network: Any, units: list[int], language: int = 8, speaker: int = 10) -> np.ndarray:
    """The independent way: transformers' own forward of one clip, its durations and all."""
    with torch.inference_mode():
        wave, _ = network(torch.tensor([units]), torch.tensor([[speaker]]), torch.tensor([[language]]))
    return wave[0].numpy()


def test_predicted_durations_and_wave_are_those_of_transformers(network: Any) -> None:
    (units,) = sequences(30)
    ours = synthesiser(network, predict=True)
    durations = ours.durations(units)
    # the random predictor must do something for this to mean anything
    assert len(set(durations)) > 2
    wave_N = ours.wave(units)
    assert len(wave_N) == 320 * sum(durations)
    np.testing.assert_allclose(wave_N, reference(network, units), atol=1e-5)
    assert wave_N.std() > 0.01


def test_without_prediction_every_unit_lasts_320_samples(network: Any) -> None:
    (units,) = sequences(9)
    assert synthesiser(network).durations(units) == [1] * 9
    assert len(synthesiser(network).wave(units)) == 9 * 320


def test_durations_are_clamped(network: Any) -> None:
    (units,) = sequences(40)
    free = synthesiser(network, predict=True).durations(units)
    assert max(free) > 3
    assert synthesiser(network, predict=True, max_duration=3).durations(units) == [min(3, one) for one in free]
    endless = vocoder_network()
    with torch.no_grad():
        # e^30 frames would be 10^13
        endless.dur_predictor.proj.bias.fill_(30.0)
    assert synthesiser(endless, predict=True).durations(units) == [50] * 40


@pytest.mark.parametrize("predict", [False, True])
def test_ragged_batches_give_what_single_utterances_give(network: Any, predict: bool) -> None:
    ragged = sequences(1, 40, 0, 7, 23, 40)
    for batch_frames in (0, 100, 3000):
        ours = synthesiser(network, predict, batch_frames)
        for units, wave_N in zip(ragged, ours.waves(ragged), strict=True):
            if not units:
                assert wave_N.shape == (0,)
            else:
                np.testing.assert_allclose(wave_N, synthesiser(network, predict).wave(units), atol=1e-5)


def test_a_plain_batch_of_transformers_would_not_have_been_exact(network: Any) -> None:
    long, short = sequences(60, 20)
    padded = torch.tensor([long, short + [0] * 40])
    ours = synthesiser(network)
    with torch.inference_mode():
        plain = network.hifi_gan(ours._inputs(padded))[1].numpy()[: 20 * 320]
    single = ours.wave(short)
    assert np.abs(plain - single)[-320:].max() > 1e-3
    np.testing.assert_allclose(ours.waves([long, short])[1], single, atol=1e-5)


def test_utterances_longer_than_fit_at_once_are_the_same_in_pieces(network: Any) -> None:
    (units,) = sequences(150)
    np.testing.assert_allclose(
        synthesiser(network, piece_frames=40).wave(units), synthesiser(network).wave(units), atol=1e-5
    )


def test_reach_is_21_frames_and_not_one_less() -> None:
    network = vocoder_network()
    assert reach(VocoderShape()) == reach(SHAPE) == Reach(21, 21)
    (units,) = sequences(61)
    inputs = synthesiser(network)._inputs(torch.tensor([units])).detach().double().requires_grad_()
    # by gradients in double precision, because the far ends of the reach add too little to be seen in a sum
    network.double().hifi_gan(inputs)[0, 30 * 320 : 31 * 320].sum().backward()
    network.float()
    assert inputs.grad is not None
    heard = inputs.grad[0].abs().sum(0).nonzero()[:, 0]
    assert heard.tolist() == list(range(30 - 21, 30 + 21 + 1))


def test_speaker_minus_1_is_the_languages_first() -> None:
    settings = VocoderSettings(shape=SHAPE, voices=seamless_voices())
    # English is the ninth of 36 languages, its first speaker is 10; Vietnamese is the last
    assert voice_numbers(settings) == (8, 10)
    assert voice_numbers(settings.model_copy(update={"language": "vie"})) == (35, 69)
    assert voice_numbers(settings.model_copy(update={"speaker": 0})) == (8, 0)
    assert len(seamless_voices().languages) == 36


def test_language_and_speaker_change_the_voice_as_in_transformers(network: Any) -> None:
    (units,) = sequences(12)
    spoken = {}
    for language, speaker, rows in (("eng", -1, (8, 10)), ("deu", -1, (7, 9)), ("eng", 3, (8, 3))):
        wave_N = synthesiser(network, predict=True, language=language, speaker=speaker).wave(units)
        np.testing.assert_allclose(wave_N, reference(network, units, *rows), atol=1e-5)
        spoken[language, speaker] = wave_N
    assert np.abs(spoken["eng", -1] - spoken["deu", -1]).max() > 1e-3
    assert np.abs(spoken["eng", -1] - spoken["eng", 3]).max() > 1e-3


def test_unknown_voices_are_refused() -> None:
    settings = VocoderSettings(shape=SHAPE, voices=seamless_voices())
    with pytest.raises(CodecError, match=r"does not speak 'en'\. Did you mean 'eng'\?"):
        voice_numbers(settings.model_copy(update={"language": "en"}))
    with pytest.raises(CodecError, match=r"no speaker 200; its speakers are 0\.\.199"):
        voice_numbers(settings.model_copy(update={"speaker": 200}))


def test_the_default_shape_is_that_of_transformers() -> None:
    from transformers import SeamlessM4Tv2Config
    from transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2 import SeamlessM4Tv2CodeHifiGan

    with torch.device("meta"):
        theirs = SeamlessM4Tv2CodeHifiGan(SeamlessM4Tv2Config())
    ours = build_vocoder(VocoderShape())
    shapes = [{name: tuple(t.shape) for name, t in net.state_dict().items()} for net in (ours, theirs)]
    assert shapes[0] == shapes[1]
    assert len(shapes[0]) == 207
    assert sum(parameter.numel() for parameter in ours.parameters()) == pytest.approx(41.9e6, rel=0.01)
    # dropout in the duration predictor would make every call another one
    assert not any(module.training for module in ours.modules())


def test_a_vocoder_of_one_language_and_speaker_is_the_same_network_without_their_embeddings() -> None:
    network = vocoder_network(lang_embed_dim=0, spkr_embed_dim=0)
    shape = SHAPE.model_copy(update={"language_width": 0, "speaker_width": 0, "n_languages": 1, "n_speakers": 1})
    tensors = {name: t for name, t in network.state_dict().items() if not name.startswith(("lang", "speaker"))}
    ours = Synthesiser(VocoderSettings(shape=shape), load_vocoder(shape, tensors, "test"), predict_durations=True)
    (units,) = sequences(15)
    np.testing.assert_allclose(ours.wave(units), reference(network, units, 0, 0), atol=1e-5)
