"""The parity certificate: an artifact's prompts, distributions and exam answers against the evaluated model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunewright import console
from tunewright.errors import ExportError
from tunewright.export.comparison import Closeness, PromptParity, compare_distributions, compare_prompts
from tunewright.export.reference import Reference
from tunewright.export.target import Base, ExportRequest, Runner
from tunewright.metrics import score
from tunewright.models.chat_template import encode_prompt, exam_prompt
from tunewright.records import Answer, Question, Record, digest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NUM_QUESTIONS = 24


class Floor(Record):
    """The least agreement for a certificate; tokens within ``tie_nats`` count as tied, since rounding decides there."""

    agreement: float
    tie_nats: float


class ExamParity(Record):
    """The exam's primary score of the artifact and of the evaluated model on the same questions, in [0, 1]."""

    questions: int
    examined: float
    exported: float


class Certificate(Record):
    """What was compared, and how close the artifact is; ``examined`` and ``exported`` say what computed the two models.

    ``original_base`` compares the evaluated model with its adapter on the unquantized base, where the two differ.
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
        """Why the artifact differs from the evaluated model; empty where it does not."""
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


def floor_of(quantization: str, dtype: str, base: Base) -> Floor:
    """Return the floor for a type of number; merging into another base than the trained one lowers it."""
    floor = FLOORS[dtype]
    if base == "original" and quantization != "none":
        floor = min(floor, ANOTHER_BASE[quantization], key=lambda floor: floor.agreement)
    elif quantization == "int8":  # LLM.int8 rounds activations too, which no merged weight can repeat
        floor = min(floor, FLOORS["q8_0"], key=lambda floor: floor.agreement)
    return floor


def certify(
    request: ExportRequest, target: str, runner: Runner, reference: Reference, tuned_scores: Mapping[str, float]
) -> Certificate:
    """Return the certificate of a loaded artifact.

    Args:
        request: what the artifact was made of.
        target: its target's name.
        runner: the artifact.
        reference: the evaluated model's distributions.
        tuned_scores: the evaluated model's primary score by question; empty where it has not answered the exam.

    Raises:
        ExportError: prompts differ, or the agreement is below the floor; it says where the two first differ.
    """
    dtype, base, tokenizer = request.dtype, request.base, reference.tokenizer
    console.line(f"comparing {target} {dtype} with the evaluated model")
    floor = floor_of(request.recipe.model.quantization, dtype, base)
    tie_nats = max(floor.tie_nats, STEPS[reference.computed.partition(" ")[0]])
    exported = list(runner.log_probs(reference.prompts))
    closeness = compare_distributions(tokenizer, reference.prompts, reference.log_probs, exported, tie_nats)
    original = None
    if reference.original is not None:
        original = compare_distributions(
            tokenizer, reference.prompts, reference.log_probs, list(reference.original), tie_nats
        )
    certificate = Certificate(
        target=target,
        dtype=dtype,
        base=base,
        examined=f"base as evaluated with the adapter beside it: transformers, {reference.computed}",
        exported=runner.name,
        floor=floor.agreement,
        prompts=compare_prompts(tokenizer, runner),
        distributions=closeness,
        original_base=original,
    )
    if certificate.fault:
        raise ExportError(
            f"the {target} export differs from the evaluated model",
            certificate.fault,
            "the earlier export, if there is one, is kept",
        )
    return certificate.model_copy(update={"exam": _exam_parity(request, runner, tokenizer, tuned_scores)})


def _exam_parity(
    request: ExportRequest, runner: Runner, tokenizer: PreTrainedTokenizerBase, tuned_scores: Mapping[str, float]
) -> ExamParity | None:
    """Return the artifact's score on some of the exam's questions; None where the tuned model has no score."""
    recipe = request.recipe
    scored = [question for question in request.questions if question.id in tuned_scores]
    if not scored:
        return None
    questions = sorted(scored, key=lambda question: digest("exported", recipe.seed, question.id))[:NUM_QUESTIONS]
    prompts = [encode_prompt(tokenizer, exam_prompt(recipe.system_prompt, question)) for question in questions]
    texts = runner.answers(prompts, recipe.evaluation.max_new_tokens)
    scores = [_primary(recipe.refusal, question, text) for question, text in zip(questions, texts, strict=True)]
    return ExamParity(
        questions=len(questions),
        examined=sum(tuned_scores[question.id] for question in questions) / len(questions),
        exported=sum(scores) / len(questions),
    )


def _primary(refusal: str, question: Question, text: str) -> float:
    """Return the primary score of an answer."""
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
    return score(question, answer, refusal).primary


def write_certificate(folder: Path, certificate: Certificate) -> None:
    """Write the certificate into the export, as JSON for programs and as Markdown for people."""
    (folder / "certificate.json").write_text(certificate.model_dump_json(indent=2) + "\n", encoding="utf-8")
    (folder / "certificate.md").write_text("\n".join(_lines(certificate)) + "\n", encoding="utf-8")


def show_certificate(folder: Path) -> None:
    """Print an export's certificate and its folder."""
    for line in (folder / "certificate.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("- "):
            console.line(f"  {line[2:]}")
    console.line(f"\n  {folder.absolute()}")


def _lines(certificate: Certificate) -> Sequence[str]:
    """Return the lines of certificate.md; the model card repeats those that begin with a dash."""
    prompts, distributions, exam = certificate.prompts, certificate.distributions, certificate.exam
    lines = [
        f"# Parity certificate: {certificate.target} {certificate.dtype}".rstrip(),
        "",
        "Measured on this artifact before it got its name. `certificate.json` holds the same for programs.",
        "",
        f"- evaluated: {certificate.examined}",
        f"- exported: {certificate.exported}, merged into the {certificate.base} base"
        if certificate.target not in ("adapter", "gguf-adapter")
        else f"- exported: {certificate.exported}, on the {certificate.base} base",
        f"- prompts: {prompts.identical} of {prompts.conversations} conversations give the same tokens in training, "
        "in chat and here",
        f"- likeliest next token: the same at {distributions.same} of {distributions.positions} positions of the exam, "
        f"tied at {distributions.ties} more (within {distributions.tie_nats:g} nats); floor {certificate.floor:.1%}",
        f"- KL(evaluated ‖ exported): mean {distributions.mean_kl:.2e}, largest {distributions.max_kl:.2e} nats",
    ]
    if prompts.limited:
        lines.append(
            f"- prompts of {prompts.limited} more are the same once their text avoids what the program cannot do:"
        )
        lines[-1] += f" {'; '.join(prompts.limits)}"
    if certificate.original_base is not None:
        other = certificate.original_base
        lines.append(
            f"- the adapter on the unquantized base, instead of the base of its training: the same likeliest token "
            f"at {other.same} of {other.positions} positions, KL mean {other.mean_kl:.2e}, largest {other.max_kl:.2e}"
        )
    if exam is not None:
        lines.append(
            f"- exam: {exam.exported:.3f} here, {exam.examined:.3f} in the evaluation (primary score, the same "
            f"{exam.questions} questions)"
        )
    return lines


# The adapter on the unquantized base is another model, by the quantization of the training. Its distance from the
# evaluated model is reported and not judged; the floor only catches a wrong merge, which agrees at chance level.
ANOTHER_BASE: Mapping[str, Floor] = {
    "nf4": Floor(agreement=0.5, tie_nats=0.05),
    "nf4-double": Floor(agreement=0.5, tie_nats=0.05),
    "int8": Floor(agreement=0.8, tie_nats=0.05),
}

# The step between two logits of 16 to 32 in the type that computed the evaluated model: tokens within it are tied.
STEPS: Mapping[str, float] = {"float32": 1e-3, "float16": 0.0157, "bfloat16": 0.1251}

FLOORS: Mapping[str, Floor] = {
    "": Floor(agreement=1.0, tie_nats=1e-3),  # the adapter as it was trained
    "fp32": Floor(agreement=1.0, tie_nats=1e-3),
    "bf16": Floor(agreement=0.995, tie_nats=0.1251),
    "fp16": Floor(agreement=0.995, tie_nats=0.02),
    "f16": Floor(agreement=0.995, tie_nats=0.02),  # GGUF's name of fp16
    "q8_0": Floor(agreement=0.98, tie_nats=0.05),
    "q4_0": Floor(agreement=0.80, tie_nats=0.05),
    "q4_k_m": Floor(agreement=0.85, tie_nats=0.05),
    "q5_k_m": Floor(agreement=0.90, tie_nats=0.05),
    "q6_k": Floor(agreement=0.95, tie_nats=0.05),
}
