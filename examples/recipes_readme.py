"""The pages of the recipes for real models; ``examples/recipes.py`` writes them."""

from __future__ import annotations

from string import Template

from recipes_models import CUTOFF, EPOCHS, RANK, UNITS, Estimate, Model, estimate, memory, plain_weights

HOURS, UNIT_RATE, N_UTTERANCES = 960, 50, 281_241
TEXT_SHARE = 1.1
UTILISATION = 0.35
SQA_ROWS = 100_000
GB = 1e9

PAGE = Template("""# $title

<!-- Written by examples/recipes.py; edit that. -->

$introduction

```bash
slm run examples/$name/pipeline.yaml     # the same command resumes it
```

$extracts the units base, trains the three stages, exports the model, makes the merges and discounts, and
evaluates each of them. `slm run --dry-run` prints the steps that would run. To run the files one by one with
LLaMA-Factory's own command:

```bash
${alone}llamafactory-cli export examples/$name/units_base.yaml
${torchrun}llamafactory-cli train examples/$name/asr.yaml     # then tts.yaml, sqa.yaml
llamafactory-cli export examples/$name/export.yaml
```

| file | what |
|---|---|
| `units_base.yaml` | the text LLM with $units unit tokens; the same seed gives the same bytes |
| `asr.yaml`, `tts.yaml`, `sqa.yaml` | the stages, each replaying 5 % of every earlier task |
| `*_no_replay.yaml` | the same without any mitigation |
| `*_l2.yaml` | the same with the L2 anchor, lambda 1e-3, instead of replay |
| `export.yaml` | the model for the server, in `runs/$name/model` |
| `merge_linear.yaml`, `merge_ties.yaml`, `merge_dare.yaml` | the paper's merges of the three stages |
| `discount.yaml` | the last adapter scaled by 0.9, 0.7 and 0.5 |
| `pipeline.yaml` | all of the above but the variants of the stages |
| `pipeline_variants.yaml` | these variants: no replay, and L2 |
| `experts.yaml` | the stages trained in parallel and averaged, for `slm experts` |
$deepspeed
The hyperparameters are those of arXiv 2505.17496$tuned. Data sets are those of
[dataset_info](../../dataset_info/README.md) and are downloaded from the hub when a run first needs them (`magpie_text`
alone is 9.9 GB). The model's own licence applies to its weights.

## Evaluation sets

Provide your own evaluation sets in `data/eval/`, as JSON lines with the columns of the data sets:

| file | columns | skills |
|---|---|---|
| `text.jsonl` | `input`, `output` (a word or a name that a right answer contains) | `text_qa` |
| `speech.jsonl` | `discrete_unit`, `transcription`, `interleaf`, `instruction` | `asr_wer`, `tts_*` |
| `sqa.jsonl` | `input_unit`, `input_pseudo`, `answer` (a word or a name that a right answer contains) | `sqa` |

Units must come from the codec of the training data. Use speech that is not in the training sets, such as
LibriSpeech's test-clean. Scores on rows of the training sets measure memorisation.

## Hardware, memory and time

**Calculated, not measured.** Written for $gpus x $gpu with $gpu_gb GB.

| what | formula | here |
|---|---|---|
| rows of embedding and head | tokens + units, up to a multiple of 64 | $rows |
| weights of the units base, N | layers, $embeddings | $frozen G |
| trained weights, M | LoRA r $rank on q, k, v; $embeddings in full | $trained G |
| weights, plain | 2 N + 18 M bytes: bf16; fp32 weight, gradient, two Adam moments, bf16 copy | $plain GB |
| logits | 12 bytes x batch x $cutoff x rows: bf16, fp32, gradient | $logits GB |
| activations | batch x $cutoff x width x (4 layers + 34) bytes, with checkpointing | $activations GB |
$memory| L2 anchor, in addition | 4 M bytes (`store: cpu` keeps them off the GPU) | $anchor GB |
| disk for a units base, a model or a merge | 2 N bytes | $folder GB |
| disk for a checkpoint of a stage (two are kept) | 12 M bytes | $checkpoint GB |

One recomputed layer needs 34 bytes per value (arXiv 2205.05198, section 4.1, without attention scores), and each layer
keeps 4: trained embeddings are fp32, and so are the activations between layers.
Fragmentation and the CUDA context add a few GB.

$time

## How to read the result

`runs/$name/results/summary.txt` and `matrix.json` contain the stage x skill matrix. Each row has the scores
of the model after one stage; `base` is the text LLM. Read a column from top to bottom: a fall of `text_qa` from `base`
to `sqa` is forgetting, and so is a rise of `asr_wer` after `asr`. First check that each stage learned its own skill,
because a skill that was never learned cannot be forgotten. Merges and discounts are variants that share all rows but
the last. Differences within two standard errors, or between single seeds, mean little: run a second seed (`seed: 7`)
to confirm them.

$expectation

`slm report runs/$name/results` writes all results on one page, with curves, drift of the weights and the commands.

First make the codec from its published weights with
[`slm codec convert`](../../docs/codecs.md#from-published-files). The weights are CC-BY-NC 4.0 and not for commercial
use. Then serve the model with `slm serve --model runs/$name/model --codec xlsr-10k`.
""")


def readme(name: str, model: Model) -> str:
    """Return a recipe's page."""
    found = estimate(model)
    return PAGE.substitute(
        name=name,
        title=model.title,
        introduction=introduction(model),
        extracts="Runs `slm extract-text` ([why](../../docs/text_decoder.md)), exports"
        if model.extract
        else "Exports",
        alone=f"slm extract-text {model.hub} runs/{name}/text_decoder\n" if model.extract else "",
        torchrun=f"FORCE_TORCHRUN=1 NPROC_PER_NODE={model.gpus} " if model.gpus > 1 else "",
        units=f"{UNITS:,}",
        deepspeed=deepspeed_row(model),
        tuned="" if model.extract else ", which are for an 11B model. They are not tuned for this one",
        gpus=model.gpus,
        gpu=model.gpu,
        gpu_gb=model.gpu_gb,
        rows=f"{found.n_rows:,}",
        embeddings="embedding (tied: once)" if model.tied else "embedding and head",
        rank=RANK,
        cutoff=CUTOFF,
        frozen=f"{found.n_frozen / 1e9:.2f}",
        trained=f"{found.n_trained / 1e9:.2f}",
        plain=f"{plain_weights(found) / GB:.1f}",
        logits=f"{found.logits / GB:.1f}",
        activations=f"{found.activations / GB:.1f}",
        memory=memory_rows(model, found),
        anchor=f"{4 * found.n_trained / GB:.1f}",
        folder=f"{2 * found.n_frozen / GB:.1f}",
        checkpoint=f"{12 * found.n_trained / GB:.1f}",
        time=time_section(name, model, found),
        expectation=expectation(model),
    )


def introduction(model: Model) -> str:
    """Return what the recipe is."""
    batch = model.gpus * model.batch * model.accumulation
    if not model.extract:
        where = f"{model.gpus} GPUs" if model.gpus > 1 else "one GPU"
        than = "" if batch == 6 else " (6 in the paper)"
        return (
            f"`{model.hub}` is trained for speech recognition, speech synthesis and spoken question answering,\n"
            f"by the recipe of arXiv 2505.17496, on {where}. A batch has {batch} rows{than}."
        )
    return """The paper's own recipe (arXiv 2505.17496): LoRA r 64, alpha 16, dropout 0.1 on q, k and v; embeddings and
head in full; lr 5e-5 with cosine decay and 10 % warm-up; batch 1 x 6; 1,200 tokens; 5, 5 and 1 epochs; seed 1126.

Differences: the paper trains the whole vision-language model. This recipe trains only its text decoder, as a plain
Llama, because vLLM dropped Mllama after 0.10.2. Without images both compute the same. The paper also trains some q, k
and v of the base in full, but this recipe trains only their LoRA. The paper's LoRA may also include cross-attention
layers, which text does not use."""


def deepspeed_row(model: Model) -> str:
    """Return the row of the file table for DeepSpeed."""
    if model.deepspeed is None:
        return ""
    return "| `deepspeed_zero2.json`, `deepspeed_zero3.json` | for several GPUs; ZeRO-3 for those of 24 GB |\n"


def memory_rows(model: Model, found: Estimate) -> str:
    """Return the rows of total memory: of the recipe, and of the ways to spread it."""
    plain = f"{memory(found, 0, 1) / GB:.0f} of {model.gpu_gb} GB"
    if model.deepspeed is None:
        return f"| **each GPU** | sum | **{plain}** |\n"
    gpus = max(model.gpus, 6)
    one, several = ("**", "") if model.gpus == 1 else ("", "**")
    return (
        f"| {one}one GPU{one} | sum | {one}{plain}{one} |\n"
        f"| {several}each of {gpus} GPUs, ZeRO-2{several} | 2 N + (2 + 14 / {gpus}) M, logits, activations |"
        f" {several}{memory(found, 2, gpus) / GB:.0f} of {model.gpu_gb} GB{several} |\n"
        f"| each of {gpus} GPUs, ZeRO-3 | (2 N + 16 M) / {gpus}, logits, activations, the largest matrix |"
        f" {memory(found, 3, gpus) / GB:.0f} of 24 GB |\n"
    )


def time_section(name: str, model: Model, found: Estimate) -> str:
    """Return the estimate of the time."""
    spoken = HOURS * 3600 * UNIT_RATE
    rate = model.gpus * model.peak * 1e12 * UTILISATION / (6 * found.n_multiplied)
    rows = ""
    for stage, n_replayed in (("asr", 1), ("tts", 2)):
        times = EPOCHS[stage] * (1 + 0.05 * n_replayed)
        updates = N_UTTERANCES * times / (model.gpus * model.batch * model.accumulation)
        tokens = spoken * TEXT_SHARE * times
        rows += f"| {stage}, {EPOCHS[stage]} epochs, {updates:,.0f} updates | {tokens / 1e6:,.0f} M |"
        rows += f" {tokens / rate / 3600:.0f} |\n"
    most = SQA_ROWS * CUTOFF
    rows += f"| sqa, {EPOCHS['sqa']} epoch, each {SQA_ROWS:,} rows of at most {CUTOFF:,} tokens |"
    rows += f" {most / 1e6:.0f} M | {most / rate / 3600:.1f} |"
    several = f"""

On 6 GPUs the batch stays the paper's with one step an update:

```bash
FORCE_TORCHRUN=1 NPROC_PER_NODE=6 llamafactory-cli train examples/{name}/asr.yaml \\
    gradient_accumulation_steps=1 deepspeed=examples/{name}/deepspeed_zero2.json
```"""
    return f"""Tokens: {HOURS} h x 3600 s x {UNIT_RATE} units/s = {spoken / 1e6:.0f} M units an epoch ({N_UTTERANCES:,}
utterances), x {TEXT_SHARE} for text and chat form (assumed), x 1.05 for each replayed task. Work: 6 operations
for each token and each of the {found.n_multiplied / 1e9:.2f} G weights that it meets: forward; forward again (layers)
or gradient of the weights (head); gradient of the activations. At {UTILISATION:.0%} (assumed) of
{model.gpus} x {model.peak} TFLOPS that is {rate:,.0f} tokens/s.

| stage | tokens | hours |
|---|---|---|
{rows}{several if model.extract else ""}"""


def expectation(model: Model) -> str:
    """Return what numbers there are to compare with."""
    if not model.extract:
        return "We have not run this recipe yet."
    return """The paper's numbers for LLaMA-Questions, speech to speech: 28.7 % right with replay, 16.7 % with replay
and the linear merge. Replay is its strongest single method. We have not run this recipe yet. Its `sqa` score compares
written answers, so it is not comparable with the paper's numbers."""
