"""The verdict: the rule, fixed before any answer existed, applied to the results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from tunewright.evaluation.measurement import measure
from tunewright.evaluation.results import (
    RETENTION_PREFIX,
    Difference,
    MarkedDifference,
    Results,
    guard_name,
    guard_sentence,
    harm_of,
)
from tunewright.evaluation.rule import CHEAP, rivals, rivals_with_rag, rule_digest
from tunewright.records import Answer, Record, RetentionAnswer, Score
from tunewright.settings import Arm
from tunewright.statistics.intervals import number, plain, questions_needed, signed

VerdictName = Literal["INVALID", "WORSE", "SHIP", "SHIP WITH RAG", "USE RAG", "PROMPT INSTEAD", "NOT PROVEN"]

# Sentences in verdict.json keep their wording: a run that is evaluated again writes the same verdict.
_ADVICE: dict[VerdictName, str] = {
    "INVALID": "No conclusion can be drawn until this is fixed.",
    "WORSE": "Do not use this adapter.",
    "SHIP": "The fine-tune was worth it on this exam.",
    "SHIP WITH RAG": "Use the adapter together with retrieval.",
    "USE RAG": "Retrieval does the job without training.",
    "PROMPT INSTEAD": "A few examples in the prompt do the job without training.",
    "NOT PROVEN": "The exam does not settle whether the fine-tune was worth it.",
}
NO_MARKS = "human marks: tunewright mark DIR, or the empty winner column of comparison.csv"
NO_JUDGE = "a judge model's opinion"
_NO_PLACEBO = "style against knowledge: no placebo adapter (shuffled answers)"
_UNMEASURED = (
    NO_MARKS,
    NO_JUDGE,
)
_SEED_VARIATION = "variation between training seeds: one seed, greedy answers (training.seeds)"
_FORGETTING = {
    False: "forgetting: what the model could do before, outside these documents (exam.retention_items)",
    True: "forgetting of what the retention suite does not cover, such as long dialogues and long texts",
}

_SHOWN = {
    "decrease": 'This decides nothing, since the adapter serves beside its base (evaluation.use = "task"): send other '
    "requests to the base. To lose less, add general chats to the training data, or lower training.learning_rate or "
    'training.epochs. Where the adapter replaces its base, set evaluation.use = "assistant".',
    "increase": "This is a drift of likelihood and decides nothing; the share of general questions and formats right "
    "measures ability.",
}
_CUT = "cut_or_empty"  # the metric
_MAX_SAME = 0.95  # of rules before version 5, where an unchanged model was a remark alone


class Verdict(Record):
    """The verdict, why, what it rests on, and what was not measured.

    ``questions_needed`` is n * (MDE / margin)^2, only when NOT PROVEN. ``promising``: the gold answers of the learned
    questions became likelier (the whole interval above zero), and likelier than with the placebo where it is an arm;
    this alone never ships.
    """

    name: VerdictName
    why: tuple[str, ...]
    results: Results
    leaks: int | None
    promising: bool
    questions_needed: int | None
    not_measured: tuple[str, ...]
    rule: dict[str, Any]
    rule_digest: str
    rule_changes: tuple[str, ...] = ()


def _share(results: Results, arm: str, metric: str) -> float:
    result = results.arm(arm)
    return result.metrics.get(metric, 0.0) if result else 0.0


def _faults(results: Results, rule: dict[str, Any], leaks: int | None) -> list[str]:
    """Step 1: whatever forbids a conclusion."""
    faults = []
    if leaks is not None and leaks > rule["max_leaks"]:
        faults.append(f"{leaks} training sample(s) leak exam questions.")
    for key, count, label in (
        ("min_questions", results.num_questions, "question(s)"),
        ("min_documents", results.num_documents, "document(s)"),
    ):
        if count < rule[key]:
            faults.append(f"The exam has {count} {label}; the rule asks for at least {rule[key]}.")
    for arm in (Arm.BASE, Arm.TUNED):
        if results.arm(arm) is None:
            faults.append(f"The {arm} arm did not answer the exam, so there is nothing to compare.")
    measured = {guard.measure for guard in results.guards}
    unmeasured = [name for name in rule["guards"] if name.startswith(RETENTION_PREFIX) and name not in measured]
    if unmeasured and results.arm(Arm.BASE) and results.arm(Arm.TUNED):
        names = " and ".join(map(guard_name, unmeasured))
        faults.append(f"The retention suite gave no measure of {names} (raise exam.retention_items).")
    for result in results.arms:
        num = result.primary.num
        if result.arm in rule["arms"] and num < results.num_questions:
            faults.append(f"{result.arm} answered {num} of {results.num_questions} questions.")
        # Before version 5, answers that ramble on to the limit and empty answers counted too.
        metric, what = ("cut_short", "cut short") if "cut_short" in rule else (_CUT, "empty or cut")
        cut = _share(results, result.arm, metric)
        if result.arm in rule["max_cut_arms"] and cut > rule["max_cut"]:
            faults.append(
                f"{round(cut * num)} of {num} answers of {result.arm} ({cut:.1%}) are {what} at the token limit; "
                f"the rule allows {rule['max_cut']:.0%} (raise evaluation.max_new_tokens)."
            )
    return faults


def _harms(results: Results, compares: bool) -> list[str]:
    """Step 2: worse than the base, where the arms can be compared yet, or a guard beyond its margin."""
    harms = []
    against = results.deciding(Arm.TUNED, Arm.BASE) if compares else None
    if against and against.interval.high < 0:
        if isinstance(against, MarkedDifference):
            harms.append(f"People prefer the base to the tuned model: {plain(against.interval)}.")
        else:
            harms.append(f"The tuned model scores lower than the base: {plain(against.interval)}.")
    return harms + [guard_sentence(guard) for guard in results.guards_of(Arm.TUNED) if guard.state == "beyond"]


def _missing_marks(results: Results, rule: dict[str, Any]) -> list[str]:
    """Return what is missing where marks decide: marks of tuned and the rival with the highest score."""
    ran = [result for rival in rivals(rule) if (result := results.arm(rival))]
    if "marks" not in rule or not ran or results.arm(Arm.TUNED) is None:
        return []
    best = max(ran, key=lambda result: result.primary.mean).arm
    marked = results.marks_against(best)
    missing, has = (marked.num_missing, marked.num_marks) if marked else (rule["marks"]["min_marks"], 0)
    if not missing:
        return []
    return [
        f'Marks by people decide (evaluation.primary = "marks"), first against {best}, the rival with the highest '
        f"score: {has + missing} blind marks are needed, {has} {'is' if has == 1 else 'are'} there, {missing} "
        f"{'is' if missing == 1 else 'are'} missing. Next: tunewright mark DIR --arms {best} {Arm.TUNED}"
    ]


def _against(
    results: Results, first: str, rivals: Sequence[str]
) -> tuple[list[Difference | MarkedDifference], list[str]]:
    """Return the differences to the rivals that ran, and the names of those that did not."""
    by_rival = {rival: results.deciding(first, rival) for rival in rivals}
    return [d for d in by_rival.values() if d], [rival for rival, d in by_rival.items() if d is None]


def _beats(results: Results, first: str, rivals: Sequence[str], guarded: Sequence[str]) -> list[str]:
    """Steps 3 and 4: why an arm ships, or nothing. All rivals must be beaten, so no correction is needed."""
    differences, missing = _against(results, first, rivals)
    guards = results.guards_of(first)
    won = all(d.interval.low > 0 for d in differences) and all(guard.state == "inside" for guard in guards)
    unguarded = set(guarded) - {guard.measure for guard in guards}
    if missing or unguarded or not won:
        return []
    return [f"{first} beats {d.second} by {plain(d.interval)}{_by_marks(d)}." for d in differences] + [
        guard_sentence(g) for g in guards
    ]


def _by_marks(difference: Difference | MarkedDifference) -> str:
    return f", by {difference.num_marks} marks" if isinstance(difference, MarkedDifference) else ""


def _cheaper(results: Results, margin: float) -> tuple[str, list[str]] | None:
    """Step 5: the cheap arm to use instead of tuning, the higher-scoring arm first, and why."""
    gain = results.deciding(Arm.TUNED, Arm.BASE)
    cheap, _ = _against(results, Arm.TUNED, CHEAP)
    for difference in sorted(cheap, key=lambda d: d.interval.mean):
        if gain and gain.interval.mean <= difference.interval.mean:
            continue  # no better than the base: nothing to use instead of tuning
        interval = plain(difference.interval)
        if difference.interval.high < 0:
            what = "is preferred less" if _by_marks(difference) else "scores lower"
            return difference.second, [f"tuned {what} than {difference.second}: {interval}."]
        if gain and gain.interval.low > 0 and difference.interval.high < margin:
            return difference.second, [
                f"tuned beats base by {plain(gain.interval)}, but over {difference.second} it gains "
                f"{interval}; the whole interval lies below the {margin:.2f} worth having."
            ]
    return None


def _open_questions(results: Results, rule: dict[str, Any], promising: bool) -> tuple[list[str], int | None]:
    """Step 6: what stays open, and how many questions would settle it."""
    differences, missing = _against(results, Arm.TUNED, rivals(rule))
    why, needs = [], []
    for difference in differences:
        settled = difference.interval.low > 0
        why.append(
            f"tuned against {difference.second}: {plain(difference.interval)}{_by_marks(difference)}"
            + (", ahead." if settled else ".")
        )
        if isinstance(difference, MarkedDifference):
            if not settled and difference.next_look:
                why.append(
                    f"More marks narrow it, and count again at {difference.next_look}: "
                    f"tunewright mark DIR --arms {difference.second} {Arm.TUNED}"
                )
        elif not settled:
            needs.append(questions_needed(difference.interval, rule["margin"], 1 - rule["alpha"]))
    for guard in results.guards_of(Arm.TUNED):
        if guard.state == "unclear":
            why.append(guard_sentence(guard))
            if not guard.measure.startswith(RETENTION_PREFIX):  # more questions add no retention items
                # The guard counts answerable questions, a share of the exam.
                answerable = questions_needed(guard.interval, guard.margin, 1 - rule["alpha"])
                needs.append(answerable and math.ceil(answerable * results.num_questions / guard.interval.num))
    unguarded = set(rule["guards"]) - {guard.measure for guard in results.guards_of(Arm.TUNED)}
    if unguarded:
        why.append(
            f"No question measures {' and '.join(map(guard_name, sorted(unguarded)))}: without it nothing ships."
        )
    if missing:
        why.append(f"Rivals not run: {', '.join(missing)}; without them the rule cannot say SHIP (evaluation.arms).")
    needed = max((n for n in needs if n is not None), default=None)
    if needed is not None and needed > results.num_questions:
        why.append(
            f"To show what is open at the margins of the rule, the exam needs about {needed:,} questions in "
            f"place of {results.num_questions}, on more documents in the same proportion."
        )
    elif needed is not None:
        why.append("The exam was large enough for the margins of the rule; more questions alone may not help.")
    if promising:
        why.append(
            "Promising: the gold answers of the learned questions became likelier, "
            "which alone does not prove better answers."
        )
    return why, needed


def apply_rule(
    results: Results, rule: dict[str, Any], leaks: int | None, promising: bool
) -> tuple[VerdictName, list[str], int | None]:
    """Return the verdict of the first step of the rule that holds, why, and the questions needed."""
    if faults := _faults(results, rule, leaks):
        return "INVALID", faults, None
    missing_marks = _missing_marks(results, rule)
    if harms := _harms(results, compares=not missing_marks):
        return "WORSE", harms, None
    if missing_marks:
        return "NOT PROVEN", missing_marks, None
    if wins := _beats(results, Arm.TUNED, rivals(rule), list(rule["guards"])):
        return "SHIP", wins, None
    by_score = "marks" not in rule  # no marks compare tuned+rag
    if by_score and (wins := _beats(results, Arm.TUNED_RAG, rivals_with_rag(rule), list(rule["guards"]))):
        return "SHIP WITH RAG", wins, None
    # Of a training that changed nothing, a cheaper arm cannot be said to replace what training can do.
    unchanged = "max_same" in rule and _unchanged(results, rule)
    if not unchanged and (cheaper := _cheaper(results, rule["margin"])):
        return ("USE RAG" if cheaper[0] == Arm.RAG else "PROMPT INSTEAD"), cheaper[1], None
    why, needed = _open_questions(results, rule, promising)
    return "NOT PROVEN", why, needed


def _remarks(results: Results, rule: dict[str, Any]) -> list[str]:
    """Return remarks beside the rule: impossible rivals, losses that decide nothing, style, cut or empty answers."""
    cut = [
        f"{_share(results, result.arm, _CUT):.0%} of the {result.arm} answers are empty or cut at the token limit; "
        "they count as they are."
        for result in results.arms
        if _share(results, result.arm, _CUT) > rule["max_cut"]
    ]
    impossible = [f"{arm} is no rival here: {reason}." for arm, reason in rule.get("impossible", {}).items()]
    return [*_of_seeds(results), *impossible, *_shown_losses(results), *_style(results), *cut]


def _of_seeds(results: Results) -> list[str]:
    """Return a sentence on the trainings from several seeds: their gains, and what the two errors come from."""
    if results.seeds is None:
        return []
    means, exam_error, seed_error = results.seeds.means, results.seeds.exam_error, results.seeds.seed_error
    return [
        f"Over {len(means)} trainings from as many seeds, tuned against base is {', '.join(map(signed, means))}: the "
        f"mean's standard error is {number(exam_error)} from the exam and {number(seed_error)} from the seeds."
    ]


def _shown_losses(results: Results) -> list[str]:
    """Return a sentence for each loss that is shown and decides nothing: of general ability, and of likelihood."""
    return [
        f"{guard_name(guard.measure).capitalize()}, {guard.first} over {guard.second}: {plain(guard.interval)}. "
        f"{_SHOWN[harm_of(guard.measure)]}"
        for guard in results.guards
        if not guard.decides
        and (guard.interval.high < 0 if harm_of(guard.measure) == "decrease" else guard.state == "beyond")
    ]


def _style(results: Results) -> list[str]:
    """Return a sentence that separates form learned from answers learned, where the placebo is an arm."""
    form, knowledge = results.difference(Arm.PLACEBO, Arm.BASE), results.difference(Arm.TUNED, Arm.PLACEBO)
    if form is None or knowledge is None:
        return []
    return [
        f"Style against knowledge: the same training on shuffled answers changes the base's score by "
        f"{plain(form.interval)}; the right answers add {plain(knowledge.interval)}."
    ]


def _unchanged(results: Results, rule: dict[str, Any]) -> list[str]:
    """Return a sentence when the tuned model is still the base, by its answers or by its likelihoods, else nothing."""
    same, moved = results.same_as_base, results.gold_nll_moved
    nothing = "the training changed next to nothing. Raise training.learning_rate or training.epochs."
    if same is not None and same >= rule.get("max_same", _MAX_SAME):
        num = results.num_questions
        return [f"The tuned model gives the same answer as the base to {same * num:.0f} of {num} questions: {nothing}"]
    if moved is not None and moved < rule.get("min_change", 0.0):
        return [f"The likelihood of the gold answers moved by {moved:.2f} nats per token from base to tuned: {nothing}"]
    return []


def _not_measured(results: Results, leaks: int | None, other_bases: Sequence[str]) -> tuple[str, ...]:
    return (
        *[
            f"the {arm} arm did not run"
            for arm in Arm
            if arm not in (Arm.MAJORITY, Arm.PLACEBO) and results.arm(arm) is None
        ],
        *(["leaks: no training sample was curated"] if leaks is None else []),
        _FORGETTING[results.kept is not None],
        *[
            f"gold-answer likelihood of {name}: it is per token, and another base's tokens are others"
            for name in other_bases
        ],
        *([_NO_PLACEBO] if results.arm(Arm.PLACEBO) is None else []),
        *_UNMEASURED,
        *([_SEED_VARIATION] if results.seeds is None else []),
    )


def decide(
    scores: Sequence[Score],
    answers: Sequence[Answer],
    rule: dict[str, Any],
    leaks: int | None,
    retention_answers: Sequence[RetentionAnswer] = (),
    rule_changes: Sequence[str] = (),
    other_bases: Sequence[str] = (),
    marked: Sequence[MarkedDifference] = (),
) -> Verdict:
    """Return the verdict that the rule gives.

    The rule holds every constant; none is taken from today's code. Where a rival that the data allows is not among the
    arms, SHIP is out of reach: the bar is the best cheap arm, not the bare base.

    Args:
        scores: of every arm and question.
        answers: the answers behind them.
        rule: as ``rule`` returned it before the answers were generated.
        leaks: number of training samples that hold evidence of the unseen ring; None where no sample was curated.
        retention_answers: of base and tuned to the retention items, where the rule guards them.
        rule_changes: how the rule was changed after answers existed.
        other_bases: compared arms with another base, whose likelihoods are of other tokens.
        marked: tuned against its rivals by marks, where the rule lets them decide.

    Raises:
        StageError: there are no scores.
    """
    compared = rule.get("compared", ())
    level = 1 - rule["alpha"]
    results = measure(
        scores,
        answers,
        rule["arms"],
        rule["guards"],
        level,
        retention_answers,
        compared,
        other_bases,
        rule.get("shown", {}),
        rule.get("seeds", ()),
    )
    results = results.model_copy(update={"marked": tuple(marked)})
    likelier = [d for d in (results.nll_learned, results.nll_placebo) if d is not None]
    promising = results.nll_learned is not None and all(d.interval.low > 0 for d in likelier)
    name, why, needed = apply_rule(results, rule, leaks, promising)
    return Verdict(
        name=name,
        why=(_ADVICE[name], *_unchanged(results, rule), *why, *rule_changes, *_remarks(results, rule)),
        results=results,
        leaks=leaks,
        promising=promising,
        questions_needed=needed,
        not_measured=_not_measured(results, leaks, other_bases),
        rule=rule,
        rule_digest=rule_digest(rule),
        rule_changes=tuple(rule_changes),
    )
