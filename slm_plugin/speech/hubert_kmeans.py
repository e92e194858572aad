"""Units of a self-supervised speech network: the nearest of K centroids at every frame of one of its layers.

``hubert-kmeans`` is any HuBERT, wav2vec 2.0 or WavLM with any k-means; ``xlsr-10k`` is the one of the
reference: layer 35 of the 1B XLS-R that came with Seamless, 10,000 centroids, 50 units a second, spoken by
Seamless' ``vocoder_v2``. Both read folders that ``slm codec convert`` or ``slm codec fit`` wrote.

The unit of a frame x is ``argmin_k |x - c_k|^2``.

Source: HuBERT, arXiv 2106.07447; XLS-R, arXiv 2111.09296; SeamlessM4T v2, arXiv 2312.05187.

Shapes: ``N`` samples, ``T`` frames, ``D`` features, ``K`` units.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slm_plugin.errors import CodecError, ConfigError
from slm_plugin.hookspecs import hookimpl
from slm_plugin.records import Units
from slm_plugin.speech.folder import read_config, whole_folder, write_config
from slm_plugin.speech.hubert_settings import KIND, HubertKmeansSettings, check, fingerprint
from slm_plugin.speech.named_codecs import NamedCodec
from slm_plugin.speech.protocol import Codec, SpeechStream
from slm_plugin.speech.vocoder.settings import VocoderSettings
from slm_plugin.strict import parse
from slm_plugin.vocabulary import check_range

if TYPE_CHECKING:
    import torch

    from slm_plugin.speech.features.centroids import Centroids
    from slm_plugin.speech.features.extractor import FeatureExtractor
    from slm_plugin.speech.parts import Parts
    from slm_plugin.speech.vocoder.synthesis import Synthesiser

SEAMLESS_LICENCE = "Seamless v2 weights (unit extractor, k-means, vocoder): CC-BY-NC 4.0, no commercial use"


class HubertKmeansCodec:
    """See the module. Made by :meth:`load`, ``slm codec convert`` or ``slm codec fit``.

    Weights are read when they are first needed. Methods may be called from several threads.

    Args:
        settings: All but the weights.
        parts: The weights.
        device: Where to calculate; a GPU where there is one, else the CPU.

    Raises:
        CodecError: Settings and weights do not belong together.
    """

    sample_rate_hz = 16_000

    def __init__(self, settings: HubertKmeansSettings, parts: Parts, device: torch.device | str | None = None) -> None:
        from slm_plugin.speech.features.grid import FrameGrid

        check(settings, parts)
        self.settings = settings
        self.parts = parts
        self.n_units = settings.n_units
        grid = FrameGrid.of(settings.network["conv_kernel"], settings.network["conv_stride"])
        self.rate_hz = self.sample_rate_hz / grid.hop
        self.first_centre_s = grid.field / 2 / self.sample_rate_hz
        self.folds_runs = settings.folds_runs
        self.fingerprint = fingerprint(settings, parts)
        self._device = device
        self._lock = threading.Lock()
        self._listener: tuple[FeatureExtractor, Centroids] | None = None
        self._speaker: Synthesiser | None = None

    @property
    def device(self) -> torch.device:
        """Where it calculates: the given device, else the GPU of this process of torchrun, a GPU, or the CPU."""
        import torch

        if self._device is not None:
            return torch.device(self._device)
        if not torch.cuda.is_available():
            return torch.device("cpu")
        rank = os.environ.get("LOCAL_RANK", "")
        return torch.device("cuda", int(rank) % torch.cuda.device_count()) if rank.isdigit() else torch.device("cuda")

    def to(self, device: torch.device | str) -> HubertKmeansCodec:
        """Return the same codec on another device."""
        return HubertKmeansCodec(self.settings, self.parts, device)

    def with_voice(self, language: str | None = None, speaker: int = -1) -> HubertKmeansCodec:
        """Return the same codec with another voice.

        Args:
            language: Code of the language; the present one if None.
            speaker: Number of the speaker; -1 for the language's first.

        Raises:
            CodecError: The vocoder has no such voice, or there is none.
        """
        from slm_plugin.speech.vocoder.voices import voice_numbers

        present = self._vocoder_settings()
        wanted = present.model_copy(update={"language": language or present.language, "speaker": speaker})
        voice_numbers(wanted)
        return HubertKmeansCodec(self.settings.model_copy(update={"vocoder": wanted}), self.parts, self._device)

    def encode(self, wave_N: np.ndarray) -> Units:
        """Return the units of a wave at 16 kHz; less than one frame (400 samples) gives none.

        Raises:
            CodecError: The weights are damaged, or features come out of them that are no numbers.
        """
        return self.encode_batch([wave_N])[0]

    def encode_batch(self, waves: Sequence[np.ndarray]) -> list[Units]:
        """Return the units of several waves, ``(N,)`` at 16 kHz each, those of similar length calculated together.

        Raises:
            CodecError: The weights are damaged, or features come out of them that are no numbers.
        """
        return [self._folded(units_T) for units_T in self.frame_units(waves)]

    def frame_units(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the unit of every frame of each wave, unfolded: ``(T,)`` int64 of ``(N,)`` samples at 16 kHz."""
        extractor, centroids = self._listen()
        return [centroids.nearest(features_TD).cpu().numpy() for features_TD in extractor.features(waves)]

    def features(self, waves: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return the features of each wave, float32 ``(T, D)`` of ``(N,)`` samples at 16 kHz."""
        return [features_TD.cpu().numpy() for features_TD in self._listen()[0].features(waves)]

    def decode(self, units: Sequence[int]) -> np.ndarray:
        """Return the wave of units, ``(N,)`` float32 at 16 kHz.

        Raises:
            VocabularyError: A unit is outside ``[0, n_units)``.
            CodecError: The codec has no vocoder, or its weights are damaged.
        """
        return self.decode_batch([units])[0]

    def decode_batch(self, sequences: Sequence[Sequence[int]]) -> list[np.ndarray]:
        """Return the waves of several unit sequences, ``(N,)`` float32 each, similar lengths calculated together.

        Raises:
            VocabularyError: A unit is outside ``[0, n_units)``.
            CodecError: The codec has no vocoder, or its weights are damaged.
        """
        plain = [[int(unit) for unit in units] for units in sequences]
        for units in plain:
            check_range(units, self.n_units)
        speaker = self._speak()
        return [speaker.wave(plain[0])] if len(plain) == 1 else speaker.waves(plain)

    def stream(self) -> SpeechStream:
        """Return a fresh streaming synthesiser.

        Raises:
            CodecError: The codec has no vocoder, or its weights are damaged.
        """
        from slm_plugin.speech.vocoder.stream import VocoderStream

        return VocoderStream(self._speak())

    def advance(
        self, streams: Sequence[SpeechStream], pushes: Sequence[Sequence[int]], last: Sequence[bool]
    ) -> list[np.ndarray]:
        """Push to several streams of this codec at once; see :func:`slm_plugin.speech.protocol.advance`."""
        from slm_plugin.speech.vocoder.stream import VocoderStream, advance

        own = [stream for stream in streams if isinstance(stream, VocoderStream)]
        assert len(own) == len(streams), "a stream of another codec"
        return advance(own, pushes, last)

    @property
    def voices(self) -> list[str]:
        """Languages of the vocoder; ``LANGUAGE-NUMBER``, such as ``eng-11``, is a certain speaker of one."""
        return [] if self.settings.vocoder is None else list(self.settings.vocoder.voices.languages)

    def has_voice(self, voice: str) -> bool:
        """Tell whether :meth:`stream_as` knows a voice."""
        from slm_plugin.speech.vocoder.voices import named_voice

        try:
            return self.settings.vocoder is not None and named_voice(self.settings.vocoder, voice) is not None
        except CodecError:
            return False

    def stream_as(self, voice: str) -> SpeechStream:
        """Return a fresh streaming synthesiser with another voice; the weights are shared.

        Raises:
            CodecError: The vocoder has no such voice, or there is none.
        """
        from slm_plugin.speech.vocoder.stream import VocoderStream
        from slm_plugin.speech.vocoder.synthesis import Synthesiser
        from slm_plugin.speech.vocoder.voices import named_voice

        wanted, speaker = named_voice(self._vocoder_settings(), voice), self._speak()
        return VocoderStream(Synthesiser(wanted, speaker.network, speaker.predict_durations))

    def save(self, folder: Path) -> None:
        """Write the codec to a folder that ``load_codec`` reads."""
        with whole_folder(folder) as partial:
            for part in self.parts.digests:
                self.parts.write(part, partial)
            more = {"digests": dict(self.parts.digests)}
            write_config(partial, KIND, self.settings, self.fingerprint, more)

    @classmethod
    def load(cls, folder: Path) -> HubertKmeansCodec:
        """Read a codec folder; its weights are read, and checked against their digests, when first needed.

        Raises:
            CodecError: The folder is of another kind or damaged.
        """
        from slm_plugin.speech.parts import PartsInFolder

        folder = Path(folder)
        raw = read_config(folder)
        path = folder / "config.json"
        if raw["kind"] != KIND:
            raise CodecError(f"{folder} holds a codec of kind {raw['kind']!r}, not {KIND!r}.")
        digests = raw.get("digests")
        if not isinstance(digests, dict) or not all(isinstance(value, str) for value in digests.values()):
            raise CodecError(f"{path} lacks digests, which say what the weights are; convert or fit the codec again.")
        try:
            settings = parse(HubertKmeansSettings, raw["settings"], f"{path}: settings")
        except ConfigError as error:
            raise CodecError(str(error)) from None
        missing = [f"{part}.safetensors" for part in digests if not (folder / f"{part}.safetensors").is_file()]
        if missing:
            raise CodecError(f"{folder} lacks {', '.join(missing)}; convert, fit or copy the codec again.")
        codec = cls(settings, PartsInFolder(folder, digests))
        if codec.fingerprint != raw["fingerprint"]:
            raise CodecError(
                f"{path}: settings and digests have fingerprint {codec.fingerprint}, the file says"
                f" {raw['fingerprint']}; change settings with `slm codec configure`, not by hand."
            )
        return codec

    def _folded(self, units_T: np.ndarray) -> Units:
        if not self.folds_runs:
            return Units(tuple(int(unit) for unit in units_T))
        runs = [(int(unit), len(list(run))) for unit, run in groupby(units_T)]
        return Units(tuple(unit for unit, _ in runs), tuple(length for _, length in runs))

    def _listen(self) -> tuple[FeatureExtractor, Centroids]:
        from slm_plugin.speech.features.centroids import Centroids
        from slm_plugin.speech.features.extractor import FeatureExtractor
        from slm_plugin.speech.features.network import build_network, fill
        from slm_plugin.speech.parts import CENTROIDS, ENCODER

        with self._lock:
            if self._listener is None:
                network = build_network(self.settings.network)
                fill(network, self.parts.read(ENCODER), f"the {ENCODER}")
                centroids = Centroids(self.parts.read(CENTROIDS)["centroids_KD"].to(self.device))
                extractor = FeatureExtractor(self.settings.features, network, self.settings.network, self.device)
                self._listener = extractor, centroids
            return self._listener

    def _speak(self) -> Synthesiser:
        from slm_plugin.speech.parts import VOCODER
        from slm_plugin.speech.vocoder.network import load_vocoder
        from slm_plugin.speech.vocoder.synthesis import Synthesiser

        settings = self._vocoder_settings()
        with self._lock:
            if self._speaker is None:
                network = load_vocoder(settings.shape, self.parts.read(VOCODER), f"the {VOCODER}")
                predicts = settings.predict_durations
                predicts = self.folds_runs if predicts is None else predicts
                self._speaker = Synthesiser(settings, network.to(self.device), predicts)
            return self._speaker

    def _vocoder_settings(self) -> VocoderSettings:
        if self.settings.vocoder is None:
            raise CodecError(
                "this codec has no vocoder, so its units cannot be heard; make one with `slm codec convert --vocoder`."
            )
        return self.settings.vocoder


XLSR = NamedCodec(
    "xlsr-10k",
    HubertKmeansCodec.load,
    "Make it once from the published files: slm codec convert --encoder xlsr2_1b_v2.pt --centroids kmeans_10k.npy"
    f" --vocoder vocoder_v2.pt. {SEAMLESS_LICENCE}.",
)
HUBERT = NamedCodec(
    KIND,
    HubertKmeansCodec.load,
    "Make it from a network and a k-means of yours: slm codec convert, or slm codec fit on recordings.",
)


@hookimpl
def slm_register_codecs(register: Callable[[str, Callable[[], Codec]], None]) -> None:
    """Announce the codecs ``xlsr-10k`` and ``hubert-kmeans``."""
    register(XLSR.name, XLSR)
    register(HUBERT.name, HUBERT)
