"""The results of an exam, and the guards: harms that must be shown to stay within their margins."""

from __future__ import annotations

from typing import Literal, NamedTuple

from tunewright.evaluation.recovery import Recovery
from tunewright.records import Record, RetentionKind
from tunewright.settings import Arm
from tunewright.statistics.agreement import ExactShare
from tunewright.statistics.intervals import Interval, plain
from tunewright.statistics.seeds import SeedSpread

RETENTION_PREFIX = "kept_"  # of the names of the retention suite's measures


class ArmResult(Record):
    """One arm's exam: primary score, also by ring, and means of the metrics, of the gold NLL and of the cost.

    ``gold_nll`` is in nats per token over the answerable questions; tokens and seconds are per answer.
    ``length_correlation`` is Spearman's between an answer's tokens and its score: far above zero, answers may score
    for their length.
    """

    arm: str
    primary: Interval
    rings: dict[str, Interval]
    metrics: dict[str, float]
    gold_nll: float | None
    num_prompt_tokens: float
    num_tokens: float
    duration_s: float
    length_correlation: float | None = None


class Difference(Record):
    """First arm minus second on one measure: the t interval, and the cluster sign-flip test beside it.

    ``p_holm``: only where several are explored together.
    """

    first: str
    second: str
    measure: str
    interval: Interval
    sign_flip_p: float
    p_holm: float | None = None


class MarkedDifference(Record):
    """Tuned against a rival by blind marks of a random sample and a judge's preferences: a preference in [-1, 1].

    Over all ``num_questions``: the ``num_same`` to which both arms gave the same answer are ties. ``alone`` is the
    interval of the marks without the judge, ``weight`` the judge's weight (lambda), ``agreed`` how often it agrees with
    the marks. ``num_missing``: the marks that the rule still asks for. ``num_marks`` are those that count so far;
    ``next_look`` is the number at which more of them will, None where all questions are marked.
    """

    first: str
    second: str
    interval: Interval
    alone: Interval
    weight: float
    num_marks: int
    num_same: int
    num_questions: int
    num_missing: int
    next_look: int | None
    agreed: ExactShare


class GuardResult(Record):
    """A harm that must stay within its margin: inside, beyond, or unclear by its whole interval.

    ``interval`` is of the measure itself, first arm minus second; ``harm_of`` returns which way it does harm. A guard
    that does not decide is shown and changes no verdict.
    """

    measure: str
    first: str
    second: str
    interval: Interval
    margin: float
    state: Literal["inside", "beyond", "unclear"]
    decides: bool = True


class RetentionGroup(Record):
    """Means of base and tuned over a kind of retention items or, with a ``topic``, over a part of it.

    Of choices and formats: the share right. Of passages: nats per token.
    """

    kind: RetentionKind
    topic: str
    num: int
    base: float
    tuned: float


class RetentionResult(Record):
    """The change of general ability, tuned minus base: a loss of accuracy and a rise of cross-entropy do harm.

    ``num_lost`` and ``num_gained`` count the choices and formats that only base, or only tuned, has right.
    """

    accuracy: Difference | None
    cross_entropy: Difference | None
    groups: tuple[RetentionGroup, ...]
    num_lost: int
    num_gained: int


class RetrievalResult(Record):
    """How often the search returns the passage that holds the answer.

    ``recall`` is the share of the ``num_questions`` closed-book questions with evidence whose passage is among the
    first so many, by that number; ``passages`` of them are in the prompt of the rag arms.
    """

    num_questions: int
    num_passages: int
    passages: int
    model: str
    recall: dict[int, float]


class Results(Record):
    """Everything measured on one exam; NLL differences are base minus tuned, so that above zero is better.

    ``contrast`` is tuned minus base on the contrast margin, NLL(gold with one fact changed) - NLL(gold): style moves
    both alike. ``structured`` is tuned minus base on the metrics of gold answers that are JSON objects. ``compared`` is
    tuned minus each arm compared on request, with Holm's correction; no verdict rests on it. ``marked`` is tuned
    against its rivals by marks, where they decide.
    ``nll_placebo`` is placebo minus tuned on the learned questions, or on all where there are none: the part of the
    gold NLL that is not a matter of form. ``same_as_base`` is the share of the questions to which tuned gives the
    base's answer, word for word, and ``gold_nll_moved`` the mean absolute change of the gold NLL. ``seeds`` is the
    spread of tuned minus base over the trainings from several seeds.
    """

    num_questions: int
    num_documents: int
    arms: tuple[ArmResult, ...]
    differences: tuple[Difference, ...]
    guards: tuple[GuardResult, ...]
    nll_learned: Difference | None
    nll_closed_book: Difference | None
    exploratory: tuple[Difference, ...]
    structured: tuple[Difference, ...] = ()
    contrast: Difference | None = None
    kept: RetentionResult | None = None
    compared: tuple[Difference, ...] = ()
    nll_placebo: Difference | None = None
    same_as_base: float | None = None
    gold_nll_moved: float | None = None
    retrieval: RetrievalResult | None = None
    recovery: Recovery | None = None
    marked: tuple[MarkedDifference, ...] = ()
    seeds: SeedSpread | None = None

    def arm(self, name: str) -> ArmResult | None:
        """Return an arm's result, or None when it did not answer the exam."""
        return next((arm for arm in self.arms if arm.arm == name), None)

    def difference(self, first: str, second: str) -> Difference | None:
        """Return the difference of two arms' primary scores, or None when either did not answer the exam."""
        return next((d for d in self.differences if (d.first, d.second) == (first, second)), None)

    def marks_against(self, second: str) -> MarkedDifference | None:
        """Return tuned against a rival by marks; None without any mark."""
        return next((marked for marked in self.marked if marked.second == second), None)

    def deciding(self, first: str, second: str) -> Difference | MarkedDifference | None:
        """Return the difference that decides between two arms: by marks where they are enough, else by score."""
        marked = self.marks_against(second) if first == Arm.TUNED else None
        return marked if marked and not marked.num_missing else self.difference(first, second)

    def guards_of(self, first: str) -> list[GuardResult]:
        """Return the deciding guards over an arm; forgetting counts against tuned+rag as it does against tuned."""
        return [
            guard
            for guard in self.guards
            if guard.decides
            and (guard.first == first or (first == Arm.TUNED_RAG and guard.measure.startswith(RETENTION_PREFIX)))
        ]


# Nats per token: beyond it, the perplexity of general text rises by more than a tenth (e^0.10 = 1.105), and the
# verdict mentions the drift. Drift decides nothing: every narrow adapter shifts the likelihood of unrelated prose.
CROSS_ENTROPY_MARGIN = 0.10


class _Measure(NamedTuple):
    """A guarded measure: which way it does harm, its name in the report, and the start of its sentence."""

    harm: Literal["increase", "decrease"]
    name: str
    sentence: str


def harm_of(measure: str) -> Literal["increase", "decrease"]:
    """Return which way a guarded measure does harm."""
    return _MEASURES[measure].harm


def guard(difference: Difference, margin: float, decides: bool = True) -> GuardResult:
    """Return a guard's result: its whole interval lies inside the margin, beyond it, or neither (unclear).

    Args:
        difference: the guarded arm minus the arm that it must not fall behind.
        margin: the largest harm allowed, in the measure's own units, above zero.
        decides: whether the rule lets it decide.
    """
    interval = difference.interval
    # As harm: a loss of accuracy counts like a rise of false refusals.
    rises = harm_of(difference.measure) == "increase"
    least, most = (interval.low, interval.high) if rises else (-interval.high, -interval.low)
    state: Literal["inside", "beyond", "unclear"] = "unclear"
    if most < margin:
        state = "inside"
    elif least > margin:
        state = "beyond"
    return GuardResult(
        measure=difference.measure,
        first=difference.first,
        second=difference.second,
        interval=interval,
        margin=margin,
        state=state,
        decides=decides,
    )


def guard_name(measure: str) -> str:
    """Return a guarded measure's name in the report."""
    return _MEASURES[measure].name


def guard_sentence(guard: GuardResult) -> str:
    """Return a sentence on a guard's result."""
    measure = _MEASURES[guard.measure]
    verb = {"inside": "is shown to stay within", "beyond": "lies beyond", "unclear": "may exceed"}[guard.state]
    margin = f"{guard.margin:.2f}" if measure.harm == "increase" else f"a loss of {guard.margin:.2f}"
    sentence = f"{measure.sentence}, {guard.first} over {guard.second}"
    return f"{sentence}: {plain(guard.interval)}; that {verb} the margin of {margin}."


_MEASURES = {
    "false_refusal": _Measure("increase", "declining questions that can be answered", "Declining answerable questions"),
    "kept_accuracy": _Measure(
        "decrease",
        "general questions and formats right",
        "What the model could do before (share of general questions and formats right)",
    ),
    "kept_cross_entropy": _Measure(
        "increase", "cross-entropy of general text, nats per token", "Cross-entropy of general text (nats per token)"
    ),
}
