"""Turns a file of experts into a pipeline: per round, every expert from one parent, then their average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from slm_plugin import card
from slm_plugin.experts.plan import Expert, Experts
from slm_plugin.pipeline import records

PIPELINE_FILE = "pipeline.yaml"
ADAPTER_CONFIG = "adapter_config.json"


def write_pipeline(plan: Experts) -> Path:
    """Write the pipeline and the YAML of each of its steps below ``output``.

    Returns:
        The pipeline file, which ``slm run`` runs as well.
    """
    output = Path(plan.output)
    steps: list[dict[str, Any]] = _evaluation("parent", plan.parent, None, [], plan)
    parent, before = plan.parent, list[str]()
    for number in range(1, plan.rounds + 1):
        trained = [_expert(expert, number, parent, before, plan) for expert in plan.experts]
        names = [step["name"] for step in trained if step is not None]
        average = _average(number, parent, names or before, plan)
        steps += [step for step in trained if step is not None] + [average]
        for expert in plan.experts:
            step = f"round{number}_{expert.name}"
            folder = _folder(expert, number, plan)
            base = parent if _is_adapter(expert, folder) else None
            steps += _evaluation(step, folder, base, [step] if step in names else [], plan)
        parent, before = str(output / f"round{number}" / "average"), [average["name"]]
        steps += _evaluation(average["name"], parent, None, before, plan)
    content = {
        "output": plan.output,
        "jobs": plan.jobs,
        "warm_host": plan.warm_host,
        "environment": plan.environment,
        "skills": [skill.model_dump() for skill in plan.skills],
        "steps": steps,
    }
    path = output / PIPELINE_FILE
    _write_yaml(path, content)
    return path


def _expert(expert: Expert, number: int, parent: str, before: list[str], plan: Experts) -> dict[str, Any] | None:
    """Return the step that trains an expert; None for one that is there already."""
    folder = _folder(expert, number, plan)
    step: dict[str, Any] = {"name": f"round{number}_{expert.name}", "needs": before, "inputs": expert.inputs}
    if expert.command is not None:
        known = {"{parent}": parent, "{output}": folder, "{round}": str(number)}
        words = expert.command
        for key, value in known.items():
            words = [word.replace(key, value) for word in words]
        return step | {"command": words, "outputs": [folder], "environment": _contents(plan, number)}
    if expert.train is None:
        return None
    content = dict(yaml.safe_load(Path(expert.train).read_text(encoding="utf-8")))
    content.pop("adapter_name_or_path", None)
    content |= {"model_name_or_path": parent, "output_dir": folder}
    path = Path(plan.output) / "configs" / f"round{number}_{expert.name}.yaml"
    _write_yaml(path, content)
    return step | {"train": str(path), "processes": expert.processes, "environment": _contents(plan, number)}


def _average(number: int, parent: str, needs: list[str], plan: Experts) -> dict[str, Any]:
    folder = str(Path(plan.output) / f"round{number}" / "average")
    models = [{"model": _folder(expert, number, plan), "weight": expert.weight} for expert in plan.experts]
    if plan.parent_weight:
        models.append({"model": parent, "weight": plan.parent_weight})
    content: dict[str, Any] = {"output": folder, "method": "linear", "base_model": parent, "models": models}
    if plan.dtype is not None:
        content["dtype"] = plan.dtype
    path = Path(plan.output) / "configs" / f"round{number}_average.yaml"
    _write_yaml(path, content)
    return {
        "name": f"round{number}_average",
        "needs": needs,
        "command": ["python", "-m", "slm_plugin", "merge", str(path)],
        "inputs": [str(path)],
        "outputs": [folder],
        "environment": _contents(plan, number),
    }


def _evaluation(stage: str, model: str, base: str | None, needs: list[str], plan: Experts) -> list[dict[str, Any]]:
    if not plan.skills:
        return []
    evaluate: dict[str, Any] = {"stage": stage, "model": base or model}
    if base is not None:
        evaluate["adapter"] = model
    return [{"name": f"eval_{stage}", "needs": needs, "evaluate": evaluate}]


def _folder(expert: Expert, number: int, plan: Experts) -> str:
    return expert.model or str(Path(plan.output) / f"round{number}" / expert.name)


def _is_adapter(expert: Expert, folder: str) -> bool:
    if expert.train is not None:
        content = yaml.safe_load(Path(expert.train).read_text(encoding="utf-8"))
        return str(content.get("finetuning_type", "lora")) == "lora"
    return (Path(folder) / ADAPTER_CONFIG).is_file()


def _contents(plan: Experts, number: int) -> dict[str, str]:
    """Name the models that no step writes by their content, so that others in their place are noticed."""
    given = [expert.model for expert in plan.experts if expert.model is not None]
    folders = [*([plan.parent] if number == 1 else []), *given]
    digits = [card.fingerprint(Path(folder)) for folder in folders]
    return {"SLM_GIVEN_MODELS": " ".join(digits)} if any(digits) else {}


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    records.write_text(path, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
