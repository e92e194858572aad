"""``slm merge FILE.yaml``: the keys of ``slm.merge`` and ``output``, for checkpoints of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from slm_plugin.errors import ConfigError, Problem, WeightsError

MergeFile = Annotated[Path, typer.Argument(metavar="MERGE.yaml", help="The keys of slm.merge, and output.")]


def merge_file(file: MergeFile) -> None:
    """Merge models without LLaMA-Factory: speech recognisers and others that it does not load, too."""
    from slm_plugin.merge.plan import parse_merge
    from slm_plugin.merge.run import merge
    from slm_plugin.plugins import Registry

    content = _read(file)
    output = content.pop("output", None)
    if not isinstance(output, str):
        raise ConfigError([Problem(f"{file.name}: output", "is required: the folder to write the result to.")])
    merge(parse_merge(content, Registry.load(), file.name), Path(output))
    typer.echo(f"merged into {output}")


def _read(file: Path) -> dict[str, Any]:
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror}.") from None
    except yaml.YAMLError as error:
        raise ConfigError([Problem(file.name, f"is not valid YAML: {error}")]) from None
    if not isinstance(content, dict):
        raise ConfigError([Problem(file.name, "must be a mapping of keys.")])
    return content
