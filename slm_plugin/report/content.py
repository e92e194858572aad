"""The nouns of a report: everything that its page shows, as records that become ``report.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

OTHER = "other"
"""Layer of weights that are in no layer: embeddings, head, last norm."""


@dataclass(frozen=True)
class Cell:
    """One score of a matrix.

    Attributes:
        value: The score.
        n: Items behind it.
        standard_error: Its standard error; None where it has no meaning.
        notes: Further numbers to read it by.
        shade: 0 for the worst to 1 for the best score of the skill's scale, for the colour.
    """

    value: float
    n: int
    standard_error: float | None
    notes: Mapping[str, float]
    shade: float


@dataclass(frozen=True)
class Learned:
    """After which row a skill counts as learned, and why: ``given``, ``gate`` or ``first measured``."""

    stage: str
    rule: str


@dataclass(frozen=True)
class Forgetting:
    """Forgetting in numbers; None where a number is not defined.

    Attributes:
        acc: Mean score after the last stage.
        bwt: Backward transfer.
        forgetting: Mean drop from the best earlier score.
        fwt: Forward transfer; needs the score of chance.
        forget_percent: Growth of the error rates, in percent.
    """

    acc: float | None
    bwt: float | None
    forgetting: float | None
    fwt: float | None
    forget_percent: float | None


@dataclass(frozen=True)
class Variant:
    """A matrix.

    Attributes:
        name: Name of the variant; that of the run where there is only one.
        stages: Rows.
        evaluations: Names of the files of scores, row by row.
        skills: Columns.
        cells: ``cells[i][j]`` is skill j after stage i; None where it was not measured.
        learned: Row in which each skill is learned.
        forgetting: The numbers from the matrix.
        finished: Whether its last planned row is there.
        labelled: Whether the pipeline gives its last row a label of its own.
        trained: Stage that the last model was trained in, by its ``slm.json``; empty if it is not known.
        other_scales: Skills that ``forgetting`` leaves out, because they are no rates: perplexities, BLEU.
    """

    name: str
    stages: Sequence[str]
    evaluations: Sequence[str]
    skills: Sequence[str]
    cells: Sequence[Sequence[Cell | None]]
    learned: Mapping[str, Learned]
    forgetting: Forgetting
    finished: bool = True
    labelled: bool = False
    trained: str = ""
    other_scales: Sequence[str] = ()

    @property
    def title(self) -> str:
        """Its name, with the stage that it has reached if it is not finished."""
        return self.name if self.finished else f"{self.name} (unfinished, after {self.stages[-1]})"


@dataclass(frozen=True)
class Verdict:
    """A gate and whether it is passed; ``passed`` is None where the score was not measured."""

    stage: str
    skill: str
    bound: str
    value: float | None
    passed: bool | None


@dataclass(frozen=True)
class Curve:
    """One number over the steps of a training."""

    name: str
    steps: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True)
class Training:
    """A training and what it logged.

    Attributes:
        name: Its folder, relative to the run's.
        curves: Loss and whatever else was logged.
        total_steps: Steps it was to take; None where not logged.
    """

    name: str
    curves: Sequence[Curve]
    total_steps: int | None


@dataclass(frozen=True)
class DriftCell:
    """How far the weights of one kind in one layer moved: ``|W - W0| / |W0|``, Frobenius norms."""

    layer: str
    kind: str
    relative: float


@dataclass(frozen=True)
class Drift:
    """How far the weights of a model moved from those it was made from.

    Attributes:
        name: The model or adapter, relative to the run's folder.
        base: What it is compared with.
        whole: ``|W - W0| / |W0|`` over the weights that changed.
        layers: The same per layer.
        cells: The same per layer and kind.
    """

    name: str
    base: str
    whole: float
    layers: Mapping[str, float]
    cells: Sequence[DriftCell]


@dataclass(frozen=True)
class Example:
    """A generation.

    Attributes:
        prompt: What the model was given.
        expected: What it should have said.
        answer: What it said, unit tokens as text.
        units: How many units the answer holds.
        seconds: Length of the audio of them on the page; None where there is none.
        audio: Key of that audio in :attr:`Report.audio`.
    """

    prompt: str
    expected: str
    answer: str
    units: int
    seconds: float | None = None
    audio: str | None = None


@dataclass(frozen=True)
class Samples:
    """Generations of one evaluation for one skill."""

    stage: str
    skill: str
    examples: Sequence[Example]


@dataclass(frozen=True)
class StepLine:
    """A step of the pipeline.

    Attributes:
        name: Its name.
        kind: ``train``, ``export``, ``evaluate`` or ``command``; empty where it was not recorded.
        seconds: How long it took; None for one that is not finished.
        cpu_seconds: Processor time; None where it was not measured.
        fingerprint: What it was made from.
        seed: Seed of a training.
        command: The command line.
        config: The YAML that it ran with, as text.
    """

    name: str
    kind: str
    seconds: float | None
    cpu_seconds: float | None
    fingerprint: str | None
    seed: int | None
    command: str
    config: str


@dataclass(frozen=True)
class RunReport:
    """Everything about one run.

    Attributes:
        name: Name of the folder.
        folder: The folder as given.
        pipeline: The pipeline file; None where it is not known.
        better: ``higher`` or ``lower`` by skill.
        variants: A matrix for each variant.
        gates: Scores that must be reached.
        replay: Rows replayed by stage and data set.
        trainings: What the trainings logged.
        drifts: How far weights moved.
        samples: Generations.
        spoken: Recordings of the run and what is said in them.
        transcript: Text beside those recordings.
        steps: The steps.
        versions: Versions of the software.
        notes: What is missing or could not be read.
    """

    name: str
    folder: str
    pipeline: str | None
    better: Mapping[str, str]
    variants: Sequence[Variant]
    gates: Sequence[Verdict]
    replay: Mapping[str, Mapping[str, int]]
    trainings: Sequence[Training]
    drifts: Sequence[Drift]
    samples: Sequence[Samples]
    spoken: Mapping[str, str]
    transcript: str
    steps: Sequence[StepLine]
    versions: Mapping[str, str]
    notes: Sequence[str]


@dataclass(frozen=True)
class Bar:
    """The last score of a variant: ``low`` and ``high`` are the ends of its 95 % interval.

    Attributes:
        variant: The variant, with its run where there are several.
        stage: Its last row that has scores.
        value: The score.
        n: Items behind it.
        low: Lower end; None where nothing is known.
        high: Upper end.
        difference: Score minus that of ``reference``, item by item; None without a reference or items.
        difference_low: Lower end of its 95 % interval.
        difference_high: Upper end.
        differs: Whether zero lies outside that interval.
        finished: Whether the variant has reached its last planned row.
        reference: The first variant that ended at the same stage and was scored in the same way; None for that
            variant itself.
    """

    variant: str
    stage: str
    value: float
    n: int
    low: float | None
    high: float | None
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    differs: bool | None = None
    finished: bool = True
    reference: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The variants side by side on one skill."""

    skill: str
    better: str
    bars: Sequence[Bar]


@dataclass(frozen=True)
class SeedSpread:
    """The last score of one variant over runs that differ in their seeds.

    Attributes:
        variant: Name of the variant; that of its last row where runs have only one.
        skill: The skill.
        mean: Mean of the scores.
        deviation: Their sample standard deviation; None where only one run has it.
        noise_floor: Difference between two such means that seeds alone may make: ``2 * deviation * sqrt(2 / n)``.
        values: The scores, one for each run.
    """

    variant: str
    skill: str
    mean: float
    deviation: float | None
    noise_floor: float | None
    values: Sequence[float]


@dataclass(frozen=True)
class Report:
    """Everything on the page.

    Attributes:
        title: Its heading.
        version: Version of this package.
        seed: Seed of the bootstrap.
        resamples: Its resamples.
        first: The first variant, to which those that ended at the same stage are compared.
        comparisons: A comparison per skill.
        runs: The runs.
        seeds: Spread over runs, where they are one pipeline under several seeds.
        audio: WAV files as data URIs, by key; not part of ``report.json``.
    """

    title: str
    version: str
    seed: int
    resamples: int
    first: str
    comparisons: Sequence[Comparison]
    runs: Sequence[RunReport]
    seeds: Sequence[SeedSpread] = ()
    audio: Mapping[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the content of ``report.json``: all but the audio."""
        from dataclasses import asdict

        content = asdict(self)
        del content["audio"]
        return content
