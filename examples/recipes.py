"""Write the recipes for real models: ``python examples/recipes.py [--check]``.

Every file of ``examples/llama3_2_1b`` and its neighbours comes from here and the two modules beside it: what differs
between models is in ``recipes_models.py``, the pages are in ``recipes_readme.py``. With ``--check`` nothing is
written, and files that differ are named.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from recipes_models import CUTOFF, EPOCHS, MODELS, RANK, UNITS, Model
from recipes_readme import readme

HERE = Path(__file__).parent
EARLIER = {
    "asr": ["magpie_text"],
    "tts": ["magpie_text", "ls960_asr"],
    "sqa": ["magpie_text", "ls960_asr", "ls960_tts"],
}
DATA = {
    "asr": "ls960_asr",
    "tts": "ls960_tts",
    # 40 parts, a line for each rank; the escaped line ends leave no blanks between the names
    "sqa": '"'
    + ",\\\n  ".join(",".join(f"magpie_sqa_{rank}_{part}" for part in range(10)) for rank in range(4))
    + '"',
}
PURPOSE = {
    "asr": "Stage 1: hear. Speech units in, words out",
    "tts": "Stage 2: speak. Text in, words with their speech units out",
    "sqa": "Stage 3: answer. A spoken question in; its transcript, the answer, and the answer spoken out",
}
PREVIOUS = {"tts": "asr", "sqa": "tts"}
VARIANTS = {
    "": "replaying 5 % of every earlier task",
    "no_replay": "with nothing against forgetting",
    "l2": "pulled toward the weights that the stage started from (L2, lambda 1e-3)",
}
DISCOUNTS = (0.9, 0.7, 0.5)


def header(name: str, file: str, verb: str, text: str, launcher: str = "") -> str:
    """Return the comment that a file starts with: what it does, and the command that runs it."""
    return f"# {text}.\n#   {launcher}{verb} examples/{name}/{file}\n# Written by examples/recipes.py; edit that.\n"


def llm(name: str, model: Model) -> str:
    """Return where the text LLM is."""
    return f"runs/{name}/text_decoder" if model.extract else model.hub


def launcher(model: Model) -> str:
    """Return what starts one process for each GPU."""
    return f"FORCE_TORCHRUN=1 NPROC_PER_NODE={model.gpus} " if model.gpus > 1 else ""


def train_file(name: str, model: Model, stage: str, variant: str) -> str:
    """Return the training file of a stage in a variant."""
    runs = f"runs/{name}/{variant}".rstrip("/")
    file = f"{stage}_{variant}.yaml" if variant else f"{stage}.yaml"
    adapter = f"adapter_name_or_path: {runs}/{PREVIOUS[stage]}\n" if stage in PREVIOUS else ""
    deepspeed = f"deepspeed: examples/{name}/deepspeed_zero2.json\n" if model.deepspeed else ""
    sources = ", ".join(f"{source}: 0.05" for source in EARLIER[stage])
    mitigations = {
        "": f"  mitigations:\n    - replay: {{sources: {{{sources}}}, resample: once}}\n",
        "no_replay": "",
        "l2": "  mitigations:\n    - l2_anchor: {strength: 1.0e-3}\n",
    }[variant]
    text = f"{PURPOSE[stage]}, {VARIANTS[variant]}"
    return (
        header(name, file, "llamafactory-cli train", text, launcher(model))
        + f"""
### model
model_name_or_path: runs/{name}/units_base
{adapter}finetuning_type: lora
lora_rank: {RANK}
lora_alpha: 16
lora_dropout: 0.1
lora_target: q_proj,k_proj,v_proj    # embeddings and head train in full, as train_units says
template: {model.template}

### data
dataset_dir: dataset_info
dataset: {DATA[stage]}
cutoff_len: {CUTOFF}
preprocessing_num_workers: 16
dataloader_num_workers: 4

### spoken language model
slm:
  stage: {stage}
  units: {{count: {UNITS}}}
  train_units: modules
{mitigations}
### output
output_dir: {runs}/{stage}
save_strategy: steps    # stopped and started again, a run goes on from its last checkpoint
save_steps: 1000
save_total_limit: 2
logging_steps: 10
plot_loss: true
report_to: none

### training
stage: sft
do_train: true
per_device_train_batch_size: {model.batch}
gradient_accumulation_steps: {model.accumulation}
num_train_epochs: {EPOCHS[stage]}
learning_rate: 5.0e-5
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
seed: 1126
ddp_timeout: 180000000
{deepspeed}"""
    )


def export_file(name: str, model: Model, file: str, text: str, model_path: str, output: str, rest: str) -> str:
    """Return an export file."""
    return (
        header(name, file, "llamafactory-cli export", text)
        + f"""
model_name_or_path: {model_path}
template: {model.template}
{rest.split("slm:")[0]}export_dir: runs/{name}/{output}
export_device: cpu
export_size: 5
infer_dtype: bfloat16

slm:{rest.split("slm:")[1]}"""
    )


def merge_block(name: str, method: str) -> str:
    """Return the ``slm:`` block of one of the paper's merges."""
    runs = f"runs/{name}"
    weights = {"sqa": "0.90", "tts": "0.06", "asr": "0.04"}
    density = {"linear": "", "ties": ", density: 0.90", "dare_ties": ", density: 0.91"}[method]
    rest = "    dtype: bfloat16\n"
    first = ""
    if method == "linear":
        weights = {"sqa": "0.90", "tts": "0.05", "asr": "0.03"}
        first = f"      - {{model: {runs}/units_base, weight: 0.02}}    # its text rows are the LLM's\n"
    else:
        rest = "    parameters: {normalize: true}\n" + rest + "    seed: 1126\n"
    models = "".join(
        f"      - {{model: {runs}/{stage}, weight: {weight}{density}}}\n" for stage, weight in weights.items()
    )
    return (
        f"slm:\n  merge:\n    method: {method}\n    base_model: {runs}/units_base\n    models:\n{first}{models}{rest}"
    )


def export_files(name: str, model: Model) -> dict[str, str]:
    """Return the export files: units base, final model, merges, discounts."""
    base, lora = f"runs/{name}/units_base", f"adapter_name_or_path: runs/{name}/sqa\nfinetuning_type: lora\n"
    units = f"slm:\n  units: {{count: {UNITS}}}\n"
    scales = f"{units}  lora_scale: [{', '.join(map(str, DISCOUNTS))}]\n  scaled_modules: leave\n"
    files = {
        "units_base": ("The text LLM with the unit tokens added, once: every stage and merge sits on it", units),
        "export": ("The last stage's adapter merged into the units base: one folder for vLLM", lora + units),
        "discount": ("The last adapter counted by factors below 1: one export for each, in lora_scale_<factor>",
                     lora + scales),
        "merge_linear": ("The paper's linear merge: the base .02, SQA .90, TTS .05, ASR .03",
                         merge_block(name, "linear")),
        "merge_ties": ("The paper's TIES merge: density .90, SQA .90, TTS .06, ASR .04", merge_block(name, "ties")),
        "merge_dare": ("The paper's DARE-TIES merge: density .91, SQA .90, TTS .06, ASR .04",
                       merge_block(name, "dare_ties")),
    }  # fmt: skip
    return {
        f"{key}.yaml": export_file(
            name, model, f"{key}.yaml", text,
            llm(name, model) if key == "units_base" else base, "model" if key == "export" else key, rest,
        )
        for key, (text, rest) in files.items()
    }  # fmt: skip


SKILLS = """skills:
  - {skill: text_qa, probe: text_match, options: {data: data/eval/text.jsonl, match: contains, max_new_tokens: 128}}
  - {skill: asr_wer, probe: speech_recognition, options: {data: data/eval/speech.jsonl, max_new_tokens: 256}}
  - {skill: tts_form, probe: interleave_form, options: {data: data/eval/speech.jsonl, max_new_tokens: 1024}}
  - skill: tts_perplexity
    probe: perplexity
    options: {data: data/eval/speech.jsonl, stage: tts, modality: units}
  - {skill: sqa, probe: spoken_qa, options: {data: data/eval/sqa.jsonl, max_new_tokens: 1024}}
"""


def evaluation(name: str, step: str, needs: str, stage: str, variants: str, label: str = "", **where: str) -> str:
    """Return an evaluation step."""
    adapter = f", adapter: {where['adapter']}" if "adapter" in where else ""
    model = where.get("model", f"runs/{name}/units_base")
    marks = (f", label: {label}" if label else "") + (f", variants: [{variants}]" if variants else "")
    return (
        f"  - name: {step}\n    needs: [{needs}]\n    evaluate: {{model: {model}{adapter}, stage: {stage}{marks}}}\n"
    )


def pipeline_start(name: str, model: Model, file: str, text: str, output: str) -> str:
    """Return what both pipelines begin with, up to the evaluation of the base."""
    extract = f"""  - name: text_decoder
    command: [python, -m, slm_plugin, extract-text, {model.hub}, {llm(name, model)}]
    outputs: [{llm(name, model)}]
"""
    return (
        header(name, file, "slm run", text)
        + f"output: runs/{name}/{output}\n\n{SKILLS}\nsteps:\n"
        + (extract if model.extract else "")
        + f"  - {{name: units_base, export: examples/{name}/units_base.yaml}}\n"
        + evaluation(name, "eval_base", "units_base", "base", "")
    )


def train_steps(name: str, model: Model, variant: str, shared: bool) -> str:
    """Return the training of the three stages and their evaluations."""
    text, before, suffix = "", "units_base", f"_{variant}" if variant else ""
    label = {"": "replay 5 %", "no_replay": "no replay", "l2": "L2 anchor"}[variant]
    processes = f", processes: {model.gpus}" if model.gpus > 1 else ""
    for stage in DATA:
        step = f"{stage}{suffix}"
        text += f"  - {{name: {step}, needs: [{before}], train: examples/{name}/{step}.yaml{processes}}}\n"
        mine = "" if shared and stage != "sqa" else label
        adapter = f"runs/{name}/{variant}/{stage}".replace("//", "/")
        text += evaluation(name, f"eval_{step}", step, step, mine, stage if suffix else "", adapter=adapter)
        before = step
    return text


def pipelines(name: str, model: Model) -> dict[str, str]:
    """Return the pipelines: the recipe with its merges and discounts, and the paper's other variants."""
    text = "Everything in order, measured after every stage: base, stages with replay, export, merges, discounts"
    main = pipeline_start(name, model, "pipeline.yaml", text, "results") + train_steps(name, model, "", shared=True)
    main += f"  - {{name: model, needs: [sqa], export: examples/{name}/export.yaml}}\n"
    for method in ("linear", "ties", "dare"):
        step = f"merge_{method}"
        main += f"  - {{name: {step}, needs: [sqa], export: examples/{name}/{step}.yaml}}\n"
        label = {"linear": "linear merge", "ties": "TIES merge", "dare": "DARE merge"}[method]
        main += evaluation(name, f"eval_{step}", step, step, label, "sqa", model=f"runs/{name}/{step}")
    main += f"  - {{name: discount, needs: [sqa], export: examples/{name}/discount.yaml}}\n"
    for factor in DISCOUNTS:
        step = f"discount_{factor}"
        folder = f"runs/{name}/discount/lora_scale_{factor}"
        main += evaluation(name, f"eval_{step}", "discount", step, f"discount {factor}", "sqa", model=folder)
    text = "The paper's other variants beside pipeline.yaml: no replay, and the L2 anchor instead of it"
    others = pipeline_start(name, model, "pipeline_variants.yaml", text, "results_variants")
    others += train_steps(name, model, "no_replay", shared=False) + train_steps(name, model, "l2", shared=False)
    return {"pipeline.yaml": main, "pipeline_variants.yaml": others}


def experts_file(name: str, model: Model) -> str:
    """Return the average of domain experts: the stages side by side instead of one after the other."""
    text = "Average of domain experts: the three stages trained side by side from the units base, and averaged with it"
    processes = f", processes: {model.gpus}" if model.gpus > 1 else ""
    experts = "".join(
        f"  - {{name: {stage}, train: examples/{name}/{stage}_no_replay.yaml{processes}}}\n" for stage in DATA
    )
    return (
        header(name, "experts.yaml", "slm experts", text)
        + f"parent: runs/{name}/units_base    # llamafactory-cli export examples/{name}/units_base.yaml\n"
        + f"output: runs/{name}/experts\nrounds: 1\nparent_weight: 1    # 0 leaves the parent out\n"
        + f"dtype: bfloat16\n\nexperts:\n{experts}\n{SKILLS}"
    )


def deepspeed_file(stage: int) -> str:
    """Return a DeepSpeed configuration; the host fills in what is ``auto``."""
    zero = {
        2: {"overlap_comm": False, "contiguous_gradients": True, "round_robin_gradients": True},
        3: {
            "overlap_comm": False,
            "contiguous_gradients": True,
            "reduce_bucket_size": "auto",
            "stage3_prefetch_bucket_size": "auto",
            "stage3_param_persistence_threshold": "auto",
            "stage3_gather_16bit_weights_on_model_save": True,
        },
    }[stage]
    content = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": "auto"},
        "zero_optimization": {"stage": stage, **zero},
    }
    return json.dumps(content, indent=2) + "\n"


def files_of(name: str, model: Model) -> dict[str, str]:
    """Return the content of every file of a model's folder by name."""
    files = export_files(name, model) | pipelines(name, model) | {"experts.yaml": experts_file(name, model)}
    for variant in VARIANTS:
        for stage in DATA:
            file = f"{stage}_{variant}.yaml" if variant else f"{stage}.yaml"
            files[file] = train_file(name, model, stage, variant)
    if model.deepspeed is not None:
        files |= {f"deepspeed_zero{stage}.json": deepspeed_file(stage) for stage in (2, 3)}
    return {**files, "README.md": readme(name, model)}


def main() -> int:
    """Write or compare every file; 1 where some differ."""
    parser = argparse.ArgumentParser(description="Write the recipes for real models.")
    parser.add_argument("--check", action="store_true", help="write nothing, name the files that differ")
    options = parser.parse_args()
    differing = []
    for name, model in MODELS.items():
        folder, wanted = HERE / name, files_of(name, model)
        folder.mkdir(exist_ok=True)
        held = {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if path.is_file()}
        for file in sorted(wanted.keys() | held.keys()):
            if held.get(file) == wanted.get(file):
                continue
            differing.append(f"examples/{name}/{file}")
            if options.check:
                continue
            if file not in wanted:
                print(f"examples/{name}/{file} is no file of a recipe; left as it is")
                continue
            temporary = folder / f".{file}.partial"
            temporary.write_text(wanted[file], encoding="utf-8")
            temporary.replace(folder / file)
    if differing and options.check:
        sys.stderr.write(f"differ from examples/recipes.py, run it to write them: {', '.join(differing)}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
