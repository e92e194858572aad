"""What a training needs, calculated from shapes.

N are weights that do not train, M those that do, t the tokens of a micro-batch, h the width. On a GPU:

- Weights of one process: the base in its type; of a trained weight the fp32 weight, its gradient and two
  Adam moments (16 bytes), and with autocast a copy in 16 bits (18).
- Logits: 12 bytes for each of t x rows: 16 bits, fp32, gradient.
- Activations: with checkpointing t h (4 layers + 34) bytes, without t h 34 layers.
- Work of a token: 6 operations for each weight that it meets.

On a CPU weights are the same, and the rest is fitted to the runs of ``benchmarks/plan.py``, whose error the plan
states:

- The process with its libraries: :data:`PROCESS_BYTES`.
- Logits: :data:`CPU_LOGIT_BYTES` for each of t x rows.
- Activations: :data:`CPU_SHARE` times their values, in 4 bytes or with autocast 2. A layer keeps 14 h + 2 kv + 4 inner
  values of a token: norms 6 h, rotations 2 h + 2 kv, attention 5 h, feed-forward h + 4 inner. With checkpointing a
  layer keeps h values, and one layer all.
- Work of a token: 2 operations for each weight that it meets forwards, 2 backwards, 2 more if the weight trains, and 2
  more in a layer that is calculated again.

Source: 34 bytes a value is the share of one layer without attention scores (arXiv 2205.05198, section 4.1).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slm_plugin.doctor.shapes import Shapes

UTILISATION = 0.35
"""Share of a GPU's peak that a training of this kind reaches; assumed."""

PROCESS_BYTES = 1.06e9
"""Memory of a process with torch, transformers and LLaMA-Factory; fitted."""

CPU_LOGIT_BYTES = 20.0
"""Bytes of a logit on a CPU: in the type of the model, in fp32, its softmax and the gradients; fitted."""

CPU_SHARE = 1.38
"""Activations on a CPU over the values that are counted, because memory is freed late and in pieces; fitted."""

ALL_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Training:
    """What of a train YAML decides size and work.

    Attributes:
        shapes: The model, units included.
        finetuning: ``lora`` or ``full``.
        rank: LoRA's rank.
        targets: Linear layers with LoRA.
        embeddings: What of embedding and head trains: ``modules`` all of it, ``rows`` the units' rows, ``none``.
        units: Units in the vocabulary.
        batch: Rows of a micro-batch on one process.
        accumulation: Micro-batches per update.
        cutoff: Tokens of a row at most.
        processes: Processes that train together.
        zero: ZeRO stage; 0 for none.
        base_bytes: Bytes of a weight that does not train: 4, 2, 1 or 0.5.
        autocast: Whether trained fp32 weights are copied to 16 bits.
        checkpointing: Whether activations are calculated again.
        anchored: Whether the L2 anchor keeps a copy of the trained weights on the device.
        cpu: Whether it trains on a CPU.
    """

    shapes: Shapes
    finetuning: str
    rank: int
    targets: Sequence[str]
    embeddings: str
    units: int
    batch: int
    accumulation: int
    cutoff: int
    processes: int
    zero: int
    base_bytes: float
    autocast: bool
    checkpointing: bool
    anchored: bool
    cpu: bool = False


@dataclass(frozen=True)
class Needs:
    """What a training needs.

    Attributes:
        frozen: Weights that do not train, N.
        trained: Weights that do, M.
        weights: Bytes of weights, gradients and optimizer on one process.
        logits: Bytes of logits and their gradients.
        activations: Bytes of activations.
        gathered: Bytes of the largest matrix, which ZeRO-3 gathers.
        anchor: Bytes of the L2 anchor.
        checkpoint: Bytes of one checkpoint on disk: trained weights and two moments in fp32.
        model: Bytes of a model of this shape on disk, in 16 bits.
        operations: Operations of one token.
        process: Bytes of the process itself; 0 on a GPU, where only device memory counts.
    """

    frozen: float
    trained: float
    weights: float
    logits: float
    activations: float
    gathered: float
    anchor: float
    checkpoint: float
    model: float
    operations: float
    process: float = 0.0

    @property
    def memory(self) -> float:
        """Bytes on one device."""
        return self.process + self.weights + self.logits + self.activations + self.gathered + self.anchor


def needs(training: Training) -> Needs:
    """Calculate what a training needs."""
    shapes = training.shapes
    h, kv = shapes.hidden, shapes.key_width
    layer = 2 * h * h + 2 * h * kv + 3 * h * shapes.inner + 2 * h
    embeddings = shapes.rows * h * (1 if shapes.tied else 2)
    base = shapes.layers * layer + embeddings + h
    if training.finetuning == "full":
        trained, frozen = float(base), 0.0
    else:
        widths = {
            "q_proj": h + h, "k_proj": h + kv, "v_proj": h + kv, "o_proj": h + h,
            "gate_proj": h + shapes.inner, "up_proj": h + shapes.inner, "down_proj": h + shapes.inner,
        }  # fmt: skip
        lora = shapes.layers * training.rank * sum(widths[target] for target in training.targets)
        unit_rows = training.units * h * (1 if shapes.tied else 2)
        trained = lora + {"modules": embeddings, "rows": unit_rows, "none": 0}[training.embeddings]
        frozen = float(base)
    tokens = training.batch * training.cutoff
    per_layer = 4 * shapes.layers + 34 if training.checkpointing else 34 * shapes.layers
    activations = float(tokens * h * per_layer)
    operations = 6.0 * (shapes.layers * layer + shapes.rows * h)
    if training.cpu:
        kept = 14 * h + 2 * kv + 4 * shapes.inner
        values = shapes.layers * h + kept if training.checkpointing else shapes.layers * kept
        activations = CPU_SHARE * tokens * values * (2.0 if training.autocast else 4.0)
        full = training.finetuning == "full"
        of_layers = (6.0 if full else 4.0) + (2.0 if training.checkpointing else 0.0)
        of_head = 6.0 if full or training.embeddings == "modules" else 4.0
        operations = of_layers * shapes.layers * layer + of_head * shapes.rows * h
    return Needs(
        frozen=frozen,
        trained=trained,
        weights=_weights(training, frozen, trained),
        logits=(CPU_LOGIT_BYTES if training.cpu else 12.0) * tokens * shapes.rows,
        activations=activations,
        gathered=2.0 * shapes.rows * h if training.zero == 3 else 0.0,
        anchor=4.0 * trained / (training.processes if training.zero else 1) if training.anchored else 0.0,
        checkpoint=12.0 * trained,
        model=2.0 * base,
        operations=operations,
        process=PROCESS_BYTES if training.cpu else 0.0,
    )


def _weights(training: Training, frozen: float, trained: float) -> float:
    base, n = training.base_bytes * frozen, training.processes
    copy = 2.0 if training.autocast else 0.0
    if training.zero == 3:
        return (base + 16.0 * trained) / n
    if training.zero == 2:
        return base + (2.0 + 14.0 / n) * trained
    return base + (16.0 + copy) * trained
