"""``slm units``: the units of a recording, their resynthesis, and a picture of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

WaveFile = Annotated[
    Path, typer.Argument(metavar="FILE.wav", help="A recording, or a video file with one sound stream.")
]
CodecName = Annotated[str, typer.Option(help="Registered codec, or a folder.")]
ListenFile = Annotated[
    Path | None,
    typer.Option(metavar="OUT.wav", help="Write what the units sound like, and OUT.png: both as spectrograms."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of unit tokens.")]


def units(file: WaveFile, codec: CodecName = "tiny", listen: ListenFile = None, as_json: AsJson = False) -> None:
    """Print the units of a recording; with --listen, also write their resynthesis and a picture of both."""
    from slm_plugin.listen.picture import draw
    from slm_plugin.plugins import Registry
    from slm_plugin.speech.audio import decode
    from slm_plugin.speech.codecs import load_codec
    from slm_plugin.speech.policy import FLAGS, AudioPolicy, condition
    from slm_plugin.vocabulary import units_to_text

    loaded = load_codec(codec, Registry.load())
    found = condition(*decode(file), loaded.sample_rate_hz, AudioPolicy())
    encoded = loaded.encode(found.wave_N)
    if as_json:
        known = {"units": encoded.values, "durations": encoded.durations, "seconds": found.seconds}
        typer.echo(json.dumps({**known, "flags": found.flags, "fingerprint": loaded.fingerprint}))
    else:
        typer.echo(units_to_text(encoded.values))
        rate = len(encoded.values) / found.seconds if found.seconds else 0.0
        typer.echo(f"{len(encoded.values)} units, {found.seconds:.2f} seconds, {rate:.1f} a second", err=True)
        for flag in found.flags:
            typer.echo(f"{flag}: the recording {FLAGS[flag]}", err=True)
    if listen is None:
        return
    again_N = loaded.decode(encoded.values)
    _write(listen, again_N, loaded.sample_rate_hz)
    picture = listen.with_suffix(".png")
    draw(picture, {"recording": found.wave_N, "from its units": again_N}, loaded.sample_rate_hz)
    typer.echo(f"wrote {listen} and {picture}", err=True)


def _write(path: Path, wave_N: object, rate_hz: int) -> None:
    import soundfile

    from slm_plugin.errors import AudioError

    if path.suffix.lower() not in (".wav", ".flac", ".ogg"):
        raise AudioError(f"{path} must end in .wav, .flac or .ogg.")
    temporary = path.with_name(f".{path.name}")
    try:
        soundfile.write(temporary, wave_N, rate_hz, format=path.suffix[1:].upper())
        temporary.replace(path)
    except (OSError, soundfile.LibsndfileError) as error:
        raise AudioError(f"{path} cannot be written ({error}).") from None
