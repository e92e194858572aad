"""``llamafactory-cli export`` with ``slm.merge``: several models are written as one, the host loads none."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from slm_plugin.errors import ConfigError, Problem
from slm_plugin.host import runtime
from slm_plugin.host.chat_template import write_into_merge
from slm_plugin.merge.plan import MergePlan
from slm_plugin.merge.run import MergeReport, merge
from slm_plugin.weights.staging import staged

BYTES_PER_GB = 10**9
"""What the host's ``export_size`` counts in."""


def export_merged(args: Any = None) -> bool:
    """Merge where the configuration has ``slm.merge``; return whether it has.

    The result has the host's ``export_size`` and ``infer_dtype`` (unless ``slm.merge.dtype`` is set), and the chat
    form of the host's template. ``slm_export`` fires when it is in place.

    Raises:
        ConfigError: The configuration asks for things that do not go together.
        WeightsError: The models cannot be merged; nothing is written.
    """
    from llamafactory.hparams import parser

    found = parser.read_args(args)
    # a first glance, so that exports without a merge are parsed once, by the host
    if "merge" not in str(found.get("slm") if isinstance(found, dict) else found):
        return False
    parser.get_infer_args(args)
    active = runtime.active()
    if active is None or active.config.merge is None:
        return False
    _require_fitting(active)
    model_args = active.model_args
    plan = active.config.merge
    if plan.dtype is None and model_args.infer_dtype != "auto":
        plan = dataclasses.replace(plan, dtype=model_args.infer_dtype)
    folder = Path(model_args.export_dir)
    with staged(folder) as partial:
        report = merge(plan, partial, model_args.export_size * BYTES_PER_GB)
        if report.tokenizer_from is not None:
            write_into_merge(partial, active)
    runtime.say(_summary(plan, report, folder))
    active.hooks.hook.slm_export(export_dir=folder)
    return True


def _require_fitting(active: runtime.Active) -> None:
    model_args = active.model_args
    problems = []
    if model_args.export_dir is None:
        problems.append(Problem("export_dir", "is required: the folder that the merged model is written to."))
    for key, wanted in (
        ("adapter_name_or_path", "name adapters as models of the merge"),
        ("export_quantization_bit", "quantise the merged model in an export of its own"),
        ("export_hub_model_id", "upload the merged folder afterwards"),
    ):
        if getattr(model_args, key):
            problems.append(Problem(key, f"does not go with slm.merge: {wanted}."))
    if problems:
        raise ConfigError(problems)


def _summary(plan: MergePlan, report: MergeReport, folder: Path) -> str:
    rows = "" if report.common_rows is None else f", rows from {report.common_rows} of the members that have them"
    return (
        f"merged {len(plan.members)} models by {plan.method_name} into {folder}: {report.n_tensors} tensors,"
        f" {report.n_bytes / 1e9:.2f} GB in {report.n_shards} file(s), {report.seconds:.1f} s{rows}"
    )
