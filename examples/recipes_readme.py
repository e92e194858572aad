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
slm run examples/$name/pipeline.yaml     # again after a stop: goes on where it was
```

$extracts the units base, trains the three stages, exports the model, merges and discounts, and
measures after each. `slm run --dry-run` says what would run. One by one, with the stock command:

```bash
${alone}llamafactory-cli export examples/$name/units_base.yaml
${torchrun}llamafactory-cli train examples/$name/asr.yaml     # then tts.yaml, sqa.yaml
llamafactory-cli export examples/$name/export.yaml
```

| file | what |
|---|---|
| `units_base.yaml` | the text LLM with $units unit tokens; the same seed gives the same bytes |
| `asr.yaml`, `tts.yaml`, `sqa.yaml` | the stages, each replaying 5 % of every earlier task |
| `*_no_replay.yaml` | the same with nothing against forgetting |
| `*_l2.yaml` | the same with the L2 anchor, lambda 1e-3, instead of replay |
| `export.yaml` | the model that is served, in `runs/$name/model` |
| `merge_linear.yaml`, `merge_ties.yaml`, `merge_dare.yaml` | the paper's merges of the three stages |
| `discount.yaml` | the last adapter counted by .9, .7 and .5 |
| `pipeline.yaml` | all of the above but the variants of the stages |
| `pipeline_variants.yaml` | those: no replay, and L2 |
| `experts.yaml` | the stages trained side by side and averaged, for `slm experts` |
$deepspeed
The hyperparameters are those of arXiv 2505.17496$tuned. Data sets are those of
[dataset_info](../../dataset_info/README.md) and come from the hub when a run first needs them (`magpie_text` alone
is 9.9 GB). The model's weights come under its own licence.

## Evaluation sets

They are yours to bring, in `data/eval/`, as JSON lines with the columns of the data sets:

| file | columns | skills |
|---|---|---|
| `text.jsonl` | `input`, `output` (a word or a name that a right answer contains) | `text_qa` |
| `speech.jsonl` | `discrete_unit`, `transcription`, `interleaf`, `instruction` | `asr_wer`, `tts_*` |
| `sqa.jsonl` | `input_unit`, `input_pseudo`, `answer` (a word or a name that a right answer contains) | `sqa` |

Units must come from the codec that made the training data. Take speech that is not in the training sets, such as
LibriSpeech's test-clean: rows of the training sets show what was learned by heart.

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

34 bytes a value is one recomputed layer's share (arXiv 2205.05198, section 4.1, without attention scores), 4 what is
kept of each layer: trained embeddings are fp32, and so is what flows from layer to layer.
Fragmentation and the CUDA context add a few GB.

$time

## How to read the result

`runs/$name/results/summary.txt` and `matrix.json` hold the stage x skill matrix. A row is what the model can
do after a stage; `base` is the text LLM. Read a column downwards: `text_qa` that falls from `base` to `sqa` was
forgotten, and so was `asr_wer` that rises after `asr`. A skill that its own stage did not teach cannot be forgotten:
look at that number first. Merges and discounts are variants that share all rows but the last. Differences within
two standard errors, or between single seeds, mean little: run a second seed (`seed: 7`) before believing them.

$expectation

The whole as one page, with curves, drift of the weights and the commands: `slm report runs/$name/results`.

Serve it with `slm serve --model runs/$name/model --codec xlsr-10k`, after
[`slm codec convert`](../../docs/codecs.md#from-published-files) has made that codec from its published weights, which
are CC-BY-NC 4.0: no commercial use.
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
        tuned="" if model.extract else ", which are for an 11B model; nobody has tuned them for this one",
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
        than = "" if batch == 6 else ", the paper's is 6"
        return (
            f"`{model.hub}` learns to hear, to speak and to answer spoken questions aloud, by the\n"
            f"recipe of arXiv 2505.17496, on {where}. A batch is {batch} rows{than}."
        )
    return """The paper's own recipe (arXiv 2505.17496): LoRA r 64, alpha 16, dropout 0.1 on q, k and v; embeddings and
head in full; lr 5e-5 with cosine decay and 10 % warm-up; batch 1 x 6; 1,200 tokens; 5, 5 and 1 epochs; seed 1126.

What differs: the paper trains the whole vision-language model; here its text decoder trains alone, as a plain Llama,
because vLLM dropped Mllama after 0.10.2. No image is ever shown, and without one both calculate the same. The paper
also trains some q, k and v of the base in full; here they have LoRA alone. Its LoRA may also sit on layers that
attend to images, which text never reaches."""


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
        return "No result of this recipe has been measured here."
    return """The paper's numbers for LLaMA-Questions, asked and answered aloud: 28.7 % right with replay, 16.7 % with
replay and the linear merge; replay is its strongest single method. No result of this recipe has been measured here,
and `sqa` asks for equality in writing, so it is another number than the paper's."""
