"""The parity certificate: an artifact asked for prompts, distributions and exam answers beside the examined model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tunewright import console
from tunewright.errors import ExportError
from tunewright.export.comparison import Closeness, PromptParity, compare_distributions, compare_prompts
from tunewright.export.reference import Reference, exam_questions
from tunewright.export.target import Base, Runner
from tunewright.metrics import score
from tunewright.models.chat_template import encode_prompt, exam_prompt
from tunewright.recipe import Recipe
from tunewright.records import Answer, Question, Record, Score, digest
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm

NUM_QUESTIONS = 24


class Floor(Record):
    """The least agreement that an artifact is blessed with; ``tie_nats`` is what its rounding cannot tell apart."""

    agreement: float
    tie_nats: float


class ExamParity(Record):
    """The exam's primary score of the artifact and of the examined model on the same questions, in [0, 1]."""

    questions: int
    examined: float
    exported: float


class Certificate(Record):
    """What was compared, and how near the artifact is; ``examined`` and ``exported`` say what computed them.

    ``original_base`` compares the examined model with its adapter on the unquantized base, where that is another.
    """

    target: str
    dtype: str
    base: Base
    examined: str
    exported: str
    floor: float
    prompts: PromptParity
    distributions: Closeness
    original_base: Closeness | None = None
    exam: ExamParity | None = None

    @property
    def fault(self) -> str:
        """Why the artifact is not what was examined; nothing where it is."""
        differ = self.prompts.conversations - self.prompts.identical - self.prompts.limited
        if differ:
            return f"{differ} of {self.prompts.conversations} prompts differ; the first in {self.prompts.first}"
        if self.distributions.agreement < self.floor:
            return (
                f"the likeliest next token is the same at {self.distributions.agreement:.1%} of "
                f"{self.distributions.positions} positions, the floor is {self.floor:.1%}; first at "
                f"{self.distributions.first}"
            )
        return ""


def floor_of(recipe: Recipe, dtype: str, base: Base) -> Floor:
    """Return the floor for a type of number; merging into another base than the trained one lowers it."""
    floor = FLOORS[dtype]
    if base == "original" and recipe.model.quantization != "none":
        floor = min(floor, ANOTHER_BASE[recipe.model.quantization], key=lambda one: one.agreement)
    elif recipe.model.quantization == "int8":  # LLM.int8 rounds activations too, which no merged weight can repeat
        floor = min(floor, FLOORS["q8_0"], key=lambda one: one.agreement)
    return floor


def certify(
    run: RunFolder, recipe: Recipe, runner: Runner, examined: Reference, target: str, dtype: str, base: Base
) -> Certificate:
    """Compare a loaded artifact with the examined model.

    Raises:
        ExportError: prompts differ, or the agreement is under the floor; it says where they first part.
    """
    console.line(f"comparing {target} {dtype} with the examined model")
    floor = floor_of(recipe, dtype, base)
    tie_nats = max(floor.tie_nats, STEPS[examined.computed.partition(" ")[0]])
    found = list(runner.log_probs(examined.prompts))
    closeness = compare_distributions(examined.tokenizer, examined.prompts, examined.log_probs, found, tie_nats)
    original = None
    if examined.original is not None:
        original = compare_distributions(
            examined.tokenizer, examined.prompts, examined.log_probs, list(examined.original), tie_nats
        )
    certificate = Certificate(
        target=target,
        dtype=dtype,
        base=base,
        examined=f"base as evaluated with the adapter beside it: transformers, {examined.computed}",
        exported=runner.name,
        floor=floor.agreement,
        prompts=compare_prompts(examined.tokenizer, runner),
        distributions=closeness,
        original_base=original,
    )
    if certificate.fault:
        raise ExportError(
            f"the {target} export is not what was examined", certificate.fault, "the earlier export, if any, stands"
        )
    return certificate.model_copy(update={"exam": _sit_exam(run, recipe, runner, examined)})


def _sit_exam(run: RunFolder, recipe: Recipe, runner: Runner, examined: Reference) -> ExamParity | None:
    """Let the artifact answer some of the exam's questions; None where the tuned model never sat the exam."""
    if not run.file(RunFile.SCORES).is_file():
        return None
    known = {one.question: one.primary for one in run.read_records(RunFile.SCORES, Score) if one.arm == Arm.TUNED}
    questions = [question for question in exam_questions(run) if question.id in known]
    if not questions:
        return None
    questions = sorted(questions, key=lambda one: digest("exported", recipe.seed, one.id))[:NUM_QUESTIONS]
    prompts = [encode_prompt(examined.tokenizer, exam_prompt(recipe.system_prompt, question)) for question in questions]
    texts = runner.answers(prompts, recipe.evaluation.max_new_tokens)
    scores = [_primary(recipe, *pair) for pair in zip(questions, texts, strict=True)]
    return ExamParity(
        questions=len(questions),
        examined=sum(known[question.id] for question in questions) / len(questions),
        exported=sum(scores) / len(questions),
    )


def _primary(recipe: Recipe, question: Question, text: str) -> float:
    answer = Answer(
        question=question.id,
        arm="exported",
        text=text,
        finish="stop",
        num_prompt_tokens=0,
        num_tokens=0,
        duration_s=0.0,
        gold_nll=0.0,
    )
    return score(question, answer, recipe.refusal).primary


def write_certificate(folder: Path, certificate: Certificate) -> None:
    """Write the certificate into the export, for programs and for people."""
    (folder / "certificate.json").write_text(certificate.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / "certificate.md").write_text("\n".join(_told(certificate)) + "\n", encoding="utf-8")


def show(folder: Path) -> None:
    """Print an export's certificate and where the export is."""
    for line in (folder / "certificate.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("- "):
            console.line(f"  {line[2:]}")
    console.line(f"\n  {folder.absolute()}")


def _told(certificate: Certificate) -> Sequence[str]:
    prompts, near, exam = certificate.prompts, certificate.distributions, certificate.exam
    lines = [
        f"# Parity certificate: {certificate.target} {certificate.dtype}".rstrip(),
        "",
        "Measured on this artifact before it took its name. `certificate.json` holds the same for programs.",
        "",
        f"- examined: {certificate.examined}",
        f"- exported: {certificate.exported}, merged into the {certificate.base} base"
        if certificate.target not in ("adapter", "gguf-adapter")
        else f"- exported: {certificate.exported}, on the {certificate.base} base",
        f"- prompts: {prompts.identical} of {prompts.conversations} conversations give the same tokens in training, "
        "in chat and here",
        f"- likeliest next token: the same at {near.same} of {near.positions} positions of the exam, tied at "
        f"{near.ties} more (within {near.tie_nats:g} nats); floor {certificate.floor:.1%}",
        f"- KL(examined ‖ exported): mean {near.mean_kl:.2e}, largest {near.max_kl:.2e} nats",
    ]
    if prompts.limited:
        lines.append(f"- prompts of {prompts.limited} more are the same once their text avoids what the program lacks:")
        lines[-1] += f" {'; '.join(prompts.limits)}"
    if certificate.original_base is not None:
        other = certificate.original_base
        lines.append(
            f"- the adapter on the unquantized base, in place of the one it was trained on: the same likeliest token "
            f"at {other.same} of {other.positions} positions, KL mean {other.mean_kl:.2e}, largest {other.max_kl:.2e}"
        )
    if exam is not None:
        lines.append(
            f"- exam: {exam.exported:.3f} here, {exam.examined:.3f} examined (primary score, the same "
            f"{exam.questions} questions)"
        )
    return lines


# The adapter on the unquantized base, by the quantization that it was trained with: another model. How far it is from
# the examined one is told and not judged; the floor only catches a wrong merge, which agrees at chance.
ANOTHER_BASE: Mapping[str, Floor] = {
    "nf4": Floor(agreement=0.5, tie_nats=0.05),
    "nf4-double": Floor(agreement=0.5, tie_nats=0.05),
    "int8": Floor(agreement=0.8, tie_nats=0.05),
}

# One step between logits of 16 to 32, in the type that computed the examined model: it cannot tell such tokens apart.
STEPS: Mapping[str, float] = {"float32": 1e-3, "float16": 0.0157, "bfloat16": 0.1251}

FLOORS: Mapping[str, Floor] = {
    "": Floor(agreement=1.0, tie_nats=1e-3),  # the adapter as it was trained
    "fp32": Floor(agreement=1.0, tie_nats=1e-3),
    "bf16": Floor(agreement=0.995, tie_nats=0.1251),
    "fp16": Floor(agreement=0.995, tie_nats=0.02),
    "f16": Floor(agreement=0.995, tie_nats=0.02),  # GGUF's name for it
    "q8_0": Floor(agreement=0.98, tie_nats=0.05),
    "q4_0": Floor(agreement=0.80, tie_nats=0.05),
}
