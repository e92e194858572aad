"""The recipes for real models: what their one source says, in the files, fitting together, with the right sizes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from slm_plugin.config import parse_block
from slm_plugin.pipeline import plan

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
MODELS = ("llama3_1_8b", "llama3_2_11b_vision", "llama3_2_1b", "qwen2_5_1_5b")
STAGES = ("asr", "tts", "sqa")
VARIANTS = ("", "_no_replay", "_l2")

every_model = pytest.mark.parametrize("name", MODELS)


def read(name: str, file: str) -> dict:
    return yaml.safe_load((EXAMPLES / name / file).read_text(encoding="utf-8"))


def run_source(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(folder / "recipes.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def sizes():
    """The module of models and estimates."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import recipes_models

        yield recipes_models
        sys.modules.pop("recipes_models", None)


@pytest.fixture
def written(tmp_path):
    """A copy of the source with the files that it writes."""
    for path in EXAMPLES.glob("recipes*.py"):
        shutil.copyfile(path, tmp_path / path.name)
    assert run_source(tmp_path).returncode == 0
    return tmp_path


def test_the_files_are_what_their_source_writes():
    checked = run_source(EXAMPLES, "--check")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_a_checked_difference_is_named_and_left_alone(written):
    changed = written / "llama3_2_1b" / "asr.yaml"
    changed.write_text(changed.read_text().replace("5.0e-5", "5.0e-4"))
    (written / "qwen2_5_1_5b" / "README.md").unlink()
    (written / "llama3_1_8b" / "left_over.yaml").touch()
    checked = run_source(written, "--check")
    assert checked.returncode == 1
    named = checked.stderr.strip().split(": ")[1].split(", ")
    files = ["llama3_2_1b/asr.yaml", "qwen2_5_1_5b/README.md", "llama3_1_8b/left_over.yaml"]
    assert sorted(named) == sorted(f"examples/{file}" for file in files)
    assert "5.0e-4" in changed.read_text()
    again = run_source(written)
    assert (again.returncode, "left_over.yaml is no file of a recipe" in again.stdout) == (0, True)
    # what a person put there is theirs to remove
    (written / "llama3_1_8b" / "left_over.yaml").unlink()
    assert run_source(written, "--check").returncode == 0


@every_model
def test_the_hyperparameters_are_the_papers(name):
    for stage, epochs in zip(STAGES, (5, 5, 1), strict=True):
        for variant in VARIANTS:
            found = read(name, f"{stage}{variant}.yaml")
            assert (found["lora_rank"], found["lora_alpha"], found["lora_dropout"]) == (64, 16, 0.1)
            assert found["lora_target"] == "q_proj,k_proj,v_proj"
            assert (found["learning_rate"], found["lr_scheduler_type"], found["warmup_ratio"]) == (5e-5, "cosine", 0.1)
            assert (found["cutoff_len"], found["num_train_epochs"], found["seed"]) == (1200, epochs, 1126)
    paper = read("llama3_2_11b_vision", "asr.yaml")
    assert (paper["per_device_train_batch_size"], paper["gradient_accumulation_steps"]) == (1, 6)
    assert "deepspeed" not in paper


@every_model
def test_variants_differ_in_mitigations_and_folders_only(name):
    for stage in STAGES:
        files = [read(name, f"{stage}{variant}.yaml") for variant in VARIANTS]
        replay, nothing, anchor = (file["slm"].pop("mitigations", []) for file in files)
        assert nothing == []
        assert anchor == [{"l2_anchor": {"strength": 1e-3}}]
        assert set(replay[0]["replay"]["sources"].values()) == {0.05}
        for file in files:
            file.pop("output_dir")
            file.pop("adapter_name_or_path", None)
        assert files[0] == files[1] == files[2]


@every_model
def test_every_stage_replays_all_earlier_tasks_and_stands_on_the_one_before(name):
    known = json.loads((ROOT / "dataset_info" / "dataset_info.json").read_text(encoding="utf-8"))
    base = read(name, "units_base.yaml")["export_dir"]
    for variant in VARIANTS:
        earlier, before = ["magpie_text"], None
        for stage in STAGES:
            found = read(name, f"{stage}{variant}.yaml")
            assert found["model_name_or_path"] == base
            assert found.get("adapter_name_or_path") == before
            data = found["dataset"].split(",")
            assert all(known[entry]["formatting"] == f"slm_{stage}" for entry in data)
            assert len(data) == len(set(data)) == (40 if stage == "sqa" else 1)
            if not variant:
                assert list(found["slm"]["mitigations"][0]["replay"]["sources"]) == earlier
            earlier, before = [*earlier, *data], found["output_dir"]


@every_model
def test_merges_and_exports_take_what_the_stages_leave(name, registry):
    left = {stage: read(name, f"{stage}.yaml")["output_dir"] for stage in STAGES}
    base = read(name, "units_base.yaml")["export_dir"]
    for file, shares in {
        "merge_linear.yaml": {base: 0.02, left["sqa"]: 0.90, left["tts"]: 0.05, left["asr"]: 0.03},
        "merge_ties.yaml": {left["sqa"]: 0.90, left["tts"]: 0.06, left["asr"]: 0.04},
        "merge_dare.yaml": {left["sqa"]: 0.90, left["tts"]: 0.06, left["asr"]: 0.04},
    }.items():
        merge = parse_block(read(name, file)["slm"], registry, file).merge
        assert merge.base_model == Path(base)
        assert {str(member.model): member.options.weight for member in merge.members} == shares
        density = {"merge_ties.yaml": 0.90, "merge_dare.yaml": 0.91}.get(file)
        assert density is None or {member.options.density for member in merge.members} == {density}
    for file in ("export.yaml", "discount.yaml"):
        assert read(name, file)["adapter_name_or_path"] == left["sqa"]
    assert read(name, "discount.yaml")["slm"]["lora_scale"] == [0.9, 0.7, 0.5]


@every_model
@pytest.mark.parametrize("file", ["pipeline.yaml", "pipeline_variants.yaml"])
def test_what_a_pipeline_scores_was_written_by_a_step_before(name, file, registry, monkeypatch):
    monkeypatch.chdir(ROOT)
    pipeline = plan.load(EXAMPLES / name / file, registry)
    needs, written = plan.needs(pipeline), {}
    for step in pipeline.steps:
        host_file = step.train or step.export
        if host_file is not None:
            content = yaml.safe_load(Path(host_file).read_text())
            out = content.get("output_dir") or content["export_dir"]
            scales = content["slm"].get("lora_scale") or []
            written |= dict.fromkeys((out, *(f"{out}/lora_scale_{scale}" for scale in scales)), step.name)
            read_from = [content["model_name_or_path"], content.get("adapter_name_or_path")]
            for folder in read_from:
                assert folder in {None, *written} or not folder.startswith("runs/"), folder
        if step.command is not None:
            written |= dict.fromkeys(step.outputs, step.name)
        if step.evaluate is not None:
            last = step.evaluate.adapter or step.evaluate.model
            assert needs[step.name] == (written[last],)
            assert step.evaluate.model in written
    lengths = {name: len(rows) for name, rows in plan.variants(pipeline).items()}
    # base, asr, tts, and one last row for each
    names = ["replay 5 %", "linear merge", "TIES merge", "DARE merge", "discount 0.9", "discount 0.7", "discount 0.5"]
    assert lengths == dict.fromkeys(names if file == "pipeline.yaml" else ["no replay", "L2 anchor"], 4)


@every_model
def test_pages_name_files_that_are_there_and_every_one_that_is(name):
    page = (EXAMPLES / name / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in (EXAMPLES / name).iterdir()} - {"README.md"}
    named = {file for file in files if f"`{file}`" in page}
    starred = {file for file in files if file.endswith(("_no_replay.yaml", "_l2.yaml"))}
    assert named | starred == files
    assert "**Calculated, not measured.**" in page


@every_model
def test_sizes_are_those_of_the_architecture(name, sizes):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    model = sizes.MODELS[name]
    found = sizes.estimate(model)
    kind = "qwen2" if "qwen" in name else "llama"
    config = AutoConfig.for_model(
        kind,
        vocab_size=found.n_rows,
        hidden_size=model.hidden,
        intermediate_size=model.inner,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        tie_word_embeddings=model.tied,
    )
    with torch.device("meta"):
        built = AutoModelForCausalLM.from_config(config)
    # biases of q, k and v, which Qwen2 has, are left out of the formula
    assert found.n_frozen == pytest.approx(built.num_parameters(), rel=1e-4 if kind == "qwen2" else 0)
    assert built.get_output_embeddings().weight.shape[0] == found.n_rows
    # tokens of the models' cards: 128,256 + 10,000 -> 138,304; 151,665 + 10,000 -> 161,728
    assert found.n_rows == (161_728 if kind == "qwen2" else 138_304)


@every_model
def test_trained_weights_are_those_that_peft_makes_trainable(name, sizes):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    model = sizes.MODELS[name]
    found = sizes.estimate(model)
    config = LlamaConfig(
        vocab_size=found.n_rows,
        hidden_size=model.hidden,
        intermediate_size=64,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        tie_word_embeddings=False,
    )
    trained = ["embed_tokens"] if model.tied else ["embed_tokens", "lm_head"]
    with torch.device("meta"):
        lora = LoraConfig(r=64, target_modules=["q_proj", "k_proj", "v_proj"], modules_to_save=trained)
        built = get_peft_model(LlamaForCausalLM(config), lora)
    assert sum(p.numel() for p in built.parameters() if p.requires_grad) == found.n_trained


@every_model
def test_the_recipe_fits_its_gpus(name, sizes):
    model = sizes.MODELS[name]
    found = sizes.estimate(model)
    zero = 2 if model.deepspeed else 0
    # room for what the formula leaves out
    assert sizes.memory(found, zero, model.gpus) < 0.75e9 * model.gpu_gb
    assert (EXAMPLES / name / "deepspeed_zero2.json").is_file() == (model.hidden >= 4096)


@pytest.mark.parametrize("name", ["llama3_1_8b", "llama3_2_11b_vision"])
@pytest.mark.parametrize("zero", [2, 3])
def test_deepspeed_takes_its_files(name, zero, monkeypatch):
    config = pytest.importorskip("deepspeed.runtime.config", reason="pip install 'slm-plugin[deepspeed]'")
    from accelerate.utils.deepspeed import HfDeepSpeedConfig

    path = EXAMPLES / name / f"deepspeed_zero{zero}.json"
    held = HfDeepSpeedConfig(str(path))
    assert (held.is_zero2(), held.is_zero3(), held.is_offload()) == (zero == 2, zero == 3, False)
    # what the host fills in from the YAML, for one process
    filled = {"train_batch_size": 6, "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 6}
    content = json.loads(path.read_text()) | filled | {"gradient_clipping": 1.0, "bf16": {"enabled": True}}
    zero_block = {key: value for key, value in content["zero_optimization"].items() if value != "auto"}
    monkeypatch.setenv("WORLD_SIZE", "1")
    done = config.DeepSpeedConfig(content | {"zero_optimization": zero_block})
    assert done.zero_config.stage == zero
    assert done.zero_config.gather_16bit_weights_on_model_save == (zero == 3)
    assert done.zero_allow_untested_optimizer


@pytest.mark.host
@every_model
def test_the_host_knows_the_template(name):
    from llamafactory.data.template import TEMPLATES

    assert {read(name, file)["template"] for file in ("units_base.yaml", "asr.yaml", "export.yaml")} <= set(TEMPLATES)
