"""Write the reference pages from the code: ``python -m slm_plugin.reference [--check] [folder]``.

The hooks come from :mod:`slm_plugin.hookspecs`, the keys from the models of the ``slm:`` block and
the options of the built-in mitigations and probes; their docstrings are the text. Commands, errors and
metrics are in :mod:`slm_plugin.reference_code`; packages beside this one announce a page of their own
under the entry-point group :data:`PAGES_OF_OTHERS`.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from slm_plugin import hookspecs
from slm_plugin.config import SlmBlock, UnitsConfig
from slm_plugin.docstrings import markdown
from slm_plugin.eval.probing import Guard, TrainingProbes
from slm_plugin.eval.protocol import Skill
from slm_plugin.experts import plan as experts_plan
from slm_plugin.infer import options as infer_options
from slm_plugin.merge.mergekit_methods import NAMES as MERGEKIT_NAMES
from slm_plugin.merge.plan import MergeBlock
from slm_plugin.pipeline import plan
from slm_plugin.plugins import Registry
from slm_plugin.prepare import options as prepare_options
from slm_plugin.prepare.filters import Drop
from slm_plugin.reference_code import command_page, errors_page, metrics_page
from slm_plugin.speech.features.settings import FeatureSettings
from slm_plugin.speech.hubert_settings import HubertKmeansSettings
from slm_plugin.speech.policy import AudioPolicy
from slm_plugin.speech.vocoder.settings import VocoderSettings, VocoderShape, VoiceTable

NOTE = "<!-- Written by `python -m slm_plugin.reference` from the code's docstrings; edit those. -->\n\n"


def hooks_page() -> str:
    """Return the page of all extension points, in the order of their file."""
    parts = [f"# Hooks\n\n{NOTE}{markdown(_without_title(hookspecs.__doc__ or ''))}\n"]
    for title, group in (("Register hooks", hookspecs.RegisterHooks), ("Stage hooks", hookspecs.StageHooks)):
        parts.append(f"## {title}\n\n{markdown(inspect.getdoc(group) or '')}\n")
        tree = ast.parse(textwrap.dedent(inspect.getsource(group))).body[0]
        assert isinstance(tree, ast.ClassDef)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                text = markdown(ast.get_docstring(node) or "")
                parts.append(f"### {node.name}\n\n```python\n{_signature(node)}\n```\n\n{text}\n")
    return "\n".join(parts)


def keys_page() -> str:
    """Return the page of the ``slm:`` block and the options of what it can name."""
    registry = Registry.load(entry_points=False)
    parts = [
        f"# Keys of the `slm:` block\n\n{NOTE}"
        "The block stands in a LLaMA-Factory YAML beside the host's own keys. The command line changes it, with or"
        " without a YAML:"
        ' `--slm \'{"stage": "asr"}\'`. With a YAML there are dotted overrides too: `slm.stage=asr`, and'
        " for mitigations `slm.mitigations.replay.sources.text=0.2`. Keys of `--slm` replace those of the YAML one by"
        " one, but its list of mitigations as a whole. `torchrun` splits arguments at blanks; the JSON is joined"
        " again, with one blank for several in a row. Unknown keys are refused.\n",
        _table("slm", SlmBlock),
        _table("slm.units", UnitsConfig),
        _table("slm.merge", MergeBlock),
        _table("slm.probes", TrainingProbes),
        _table("slm.probes.skills", Skill),
        _table("slm.probes.guard", Guard),
    ]
    for name in registry.merges.names():
        if name not in MERGEKIT_NAMES:
            kind = registry.merges.get(name)
            parts.append(_table(f"{name} (merge): parameters", kind.Options, kind))
            parts.append(_table(f"{name} (merge): each of models", kind.MemberOptions))
    listed = ", ".join(f"`{name}`" for name in MERGEKIT_NAMES)
    parts.append(f"## Merges by mergekit\n\n{listed}: options and defaults are those of mergekit 0.1.5.\n")
    for kind, catalogue in (("mitigation", registry.mitigations), ("probe", registry.probes)):
        for name in catalogue.names():
            parts.append(_table(f"{name} ({kind})", catalogue.get(name).Options, catalogue.get(name)))
    return "\n".join(parts)


def pipeline_page() -> str:
    """Return the page of the keys of a pipeline file."""
    parts = [f"# Keys of a pipeline file\n\n{NOTE}`slm run PIPELINE.yaml` runs it. Unknown keys are refused.\n"]
    models: dict[str, type[BaseModel]] = {"": plan.Pipeline, "steps": plan.Step, "steps.evaluate": plan.Evaluation}
    models |= {"skills": Skill, "gates": plan.Gate}
    return "\n".join([*parts, *(_table(title or "top level", model) for title, model in models.items())])


def experts_page() -> str:
    """Return the page of the keys of a file of experts."""
    head = f"# Keys of a file of experts\n\n{NOTE}`slm experts EXPERTS.yaml` runs it. Unknown keys are refused.\n"
    models: dict[str, type[BaseModel]] = {"top level": experts_plan.Experts, "experts": experts_plan.Expert}
    return "\n".join([head, *(_table(title, model) for title, model in models.items())])


def infer_page() -> str:
    """Return the page of the keys of a file of spoken questions."""
    head = f"# Keys of `slm infer`\n\n{NOTE}`slm infer CONFIG.yaml` runs it. Unknown keys are refused.\n"
    models: dict[str, type[BaseModel]] = {"top level": infer_options.InferOptions, "data": infer_options.SpokenData}
    models |= {"sampling": infer_options.Draws}
    return "\n".join([head, *(_table(title, model) for title, model in models.items())])


def prepare_page() -> str:
    """Return the page of the keys of ``slm prepare``, and the options of everything that it can name."""
    registry = Registry.load(entry_points=False)
    head = (
        f"# Keys of `slm prepare`\n\n{NOTE}`slm prepare [CONFIG.yaml] [key=value ...]` takes them from a file, its"
        " arguments, or both. Unknown keys are refused.\n"
    )
    models: dict[str, type[BaseModel]] = {"top level": prepare_options.PrepareOptions}
    models |= {"interleave": prepare_options.Interleave, "audio": AudioPolicy, "drop": Drop}
    parts = [head, *(_table(title, model) for title, model in models.items())]
    for key, catalogue in (("corpus", registry.corpora), ("align", registry.aligners), ("voice", registry.voices)):
        for name in catalogue.names():
            parts.append(_table(f"{name} ({key})", catalogue.get(name).Options, catalogue.get(name)))
    return "\n".join(parts)


def codec_page() -> str:
    """Return the page of the settings of a codec folder."""
    head = (
        f"# Settings of a codec folder\n\n{NOTE}They are in its `config.json`; `slm codec configure FOLDER KEY=VALUE`"
        " changes those that do not belong to the weights. Unknown keys are refused.\n"
    )
    models: dict[str, type[BaseModel]] = {
        "top level": HubertKmeansSettings,
        "features": FeatureSettings,
        "vocoder": VocoderSettings,
        "vocoder.shape": VocoderShape,
        "vocoder.voices": VoiceTable,
    }
    return "\n".join([head, *(_table(title, model) for title, model in models.items())])


PAGES = {
    "hooks.md": hooks_page,
    "slm-keys.md": keys_page,
    "pipeline-keys.md": pipeline_page,
    "experts-keys.md": experts_page,
    "infer-keys.md": infer_page,
    "prepare-keys.md": prepare_page,
    "command-line.md": command_page,
    "errors.md": errors_page,
    "metrics.md": metrics_page,
    "codec-keys.md": codec_page,
}

PAGES_OF_OTHERS = "slm_plugin.reference"
"""Entry-point group of further pages: the name is that of the file without its ending, the value makes the page."""


def every_page() -> dict[str, Callable[[], str]]:
    """Return what makes each page, by file name: those of this package, then those announced by others."""
    found = sorted(metadata.entry_points(group=PAGES_OF_OTHERS), key=lambda entry: entry.name)
    return PAGES | {f"{entry.name}.md": entry.load() for entry in found}


def _without_title(docstring: str) -> str:
    return docstring.split("\n", 1)[1] if "\n" in docstring else ""


def _signature(node: ast.FunctionDef) -> str:
    arguments = [ast.unparse(argument) for argument in node.args.args if argument.arg != "self"]
    returns = ast.unparse(node.returns) if node.returns else "None"
    line = f"def {node.name}({', '.join(arguments)}) -> {returns}"
    return line if len(line) <= 100 else f"def {node.name}(\n    " + ",\n    ".join(arguments) + f",\n) -> {returns}"


def _table(title: str, model: type[BaseModel], owner: type | None = None) -> str:
    about = markdown(inspect.getdoc(owner or model) or "").split("\n\n")[0]
    lines = [f"## {title}\n", f"{about}\n"]
    if not model.model_fields:
        return "\n".join([*lines, "No options.\n"])
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        meaning = " ".join(markdown(field.description or "").split())
        cells = [f"`{field.alias or name}`", _show(field), _default(field), meaning]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _show(field: FieldInfo) -> str:
    limits = ", ".join(_limits(field.metadata))
    return _value(field.annotation) + (f", {limits}" if limits else "")


def _value(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " or ".join(f"`{choice}`" for choice in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_value(part) for part in arguments if part is not types.NoneType)
    if origin is list:
        return f"list of {_value(arguments[0])}"
    if origin is dict:
        return f"mapping of {_value(arguments[0])} to {_value(arguments[1])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping, see below"
    words = {int: "whole number", float: "number", str: "text", bool: "true or false", Any: "anything"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _limits(metadata: list[Any]) -> Iterator[str]:
    for limit in metadata:
        match limit:
            case annotated_types.Ge(bound):
                yield f"at least {bound:,}"
            case annotated_types.Gt(bound):
                yield f"above {bound:,}"
            case annotated_types.Le(bound):
                yield f"at most {bound:,}"
            case annotated_types.Lt(bound):
                yield f"below {bound:,}"
            case annotated_types.MinLen(length):
                yield f"{length} or more"
            case annotated_types.MaxLen(length):
                yield f"{length} or fewer"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "" if value is None or value in ([], {}) else f"`{value}`"


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, or with ``--check`` say which differ; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m slm_plugin.reference", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing, fail where a page is out of date")
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs/reference"), help="where the pages are")
    chosen = parser.parse_args(arguments)
    pages = {chosen.folder / name: make() for name, make in every_page().items()}
    outdated = [path for path, text in pages.items() if not path.is_file() or path.read_text("utf-8") != text]
    if chosen.check:
        for path in outdated:
            sys.stderr.write(f"{path} does not match the code; run: python -m slm_plugin.reference {chosen.folder}\n")
        return 1 if outdated else 0
    for path in outdated:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_text(pages[path], encoding="utf-8")
        temporary.replace(path)
        sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
