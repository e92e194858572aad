"""``slm codec fit``: units of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slm_plugin.errors import CodecError
from slm_plugin.speech.codec_command.common import Heads, Layer, Trust, describe

_WHERE = "slm codec fit"


def fit(
    recordings: Annotated[list[Path], typer.Argument(help="Recordings, and folders of them.")],
    encoder: Annotated[Path, typer.Option(help="Speech network: transformers' folder, or fairseq .pt file.")],
    units: Annotated[int, typer.Option(help="Units wanted.")],
    output: Annotated[Path, typer.Option(help="Codec folder.")],
    layer: Layer = None,
    seed: Annotated[int, typer.Option(help="Seed of the order of files and of the first centroids.")] = 1126,
    epochs: Annotated[int, typer.Option(help="How often every recording is heard.")] = 1,
    batch_frames: Annotated[int, typer.Option(help="Frames of an update; 0: 10,000 or 3 x units.")] = 0,
    init: Annotated[str, typer.Option(help="First centroids: k-means++ or random.")] = "k-means++",
    fold_runs: Annotated[bool, typer.Option("--fold-runs", help="Fold runs of equal units into one.")] = False,
    licence: Annotated[list[str] | None, typer.Option(help="Terms of the weights, to be kept with them.")] = None,
    heads: Heads = None,
    trust_pickle: Trust = False,
) -> None:
    """Cluster the features of recordings into units; stopped at any time, it goes on when started again."""
    import torch
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from slm_plugin.speech.convert.encoder import read_encoder
    from slm_plugin.speech.features.extractor import FeatureExtractor
    from slm_plugin.speech.features.network import build_network, fill
    from slm_plugin.speech.features.settings import FeatureSettings
    from slm_plugin.speech.fit.kmeans import GROUP, FitSettings, fit_centroids
    from slm_plugin.speech.fit.recordings import find_recordings
    from slm_plugin.speech.hubert_kmeans import HubertKmeansCodec
    from slm_plugin.speech.hubert_settings import HubertKmeansSettings
    from slm_plugin.speech.parts import CENTROIDS, ENCODER, PartsInMemory, digest
    from slm_plugin.strict import parse

    if output.exists():
        raise CodecError(f"{output} exists; give another folder, or remove it.")
    wanted = {"n_units": units, "seed": seed, "epochs": epochs, "batch_frames": batch_frames, "init": init}
    settings = parse(FitSettings, wanted, _WHERE)
    files = find_recordings(recordings)
    listener = read_encoder(encoder, layer, heads, trust_pickle)
    features = FeatureSettings(
        layer=listener.config["num_hidden_layers"],
        normalise=listener.normalise,
        normalise_eps=listener.normalise_eps,
    )
    network = build_network(listener.config)
    fill(network, listener.tensors, str(encoder))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    extractor = FeatureExtractor(features, network, listener.config, device)
    state_file = output.with_name(f".{output.name}.fit")
    state_file.parent.mkdir(parents=True, exist_ok=True)
    columns = (TextColumn("groups of {task.fields[size]} files"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=None, size=GROUP)
        done = fit_centroids(
            extractor,
            digest(listener.tensors),
            files,
            settings,
            state_file,
            lambda finished, total: bar.update(task, completed=finished, total=total),
        )
    points_KD = torch.from_numpy(done.kmeans.cluster_centers_).float()
    parts = PartsInMemory({ENCODER: listener.tensors, CENTROIDS: {"centroids_KD": points_KD}})
    codec = HubertKmeansCodec(
        HubertKmeansSettings(
            n_units=units,
            features=features,
            network=listener.config,
            folds_runs=fold_runs,
            licences=list(licence or []),
        ),
        parts,
    )
    codec.save(output)
    state_file.unlink(missing_ok=True)
    typer.echo(f"wrote {output}: {describe(codec)}")
    used = int((done.counts_K > 0).sum())
    typer.echo(f"{done.n_frames} frames of {len(files)} recordings; {used} units were the nearest at least once.")
    for path, reason in done.broken.items():
        typer.echo(f"left out {path}: {reason}", err=True)
