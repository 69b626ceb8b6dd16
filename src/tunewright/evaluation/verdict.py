"""The verdict: a rule that is fixed and hashed before any answer exists, and what it says of the results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Literal

from tunewright.evaluation.results import (
    BASE,
    FEW_SHOT,
    RAG,
    TUNED,
    TUNED_RAG,
    Difference,
    Guard,
    Results,
    measure,
)
from tunewright.evaluation.statistics import questions_needed
from tunewright.evaluation.wording import plain
from tunewright.metrics import METRICS_VERSION
from tunewright.records import Answer, Record, Score

VerdictName = Literal["INVALID", "WORSE", "SHIP", "SHIP WITH RAG", "USE RAG", "PROMPT INSTEAD", "NOT PROVEN"]

_STEPS = (
    "INVALID: a leak; fewer than min_questions or min_documents; base or tuned missing, an arm incomplete; "
    "more than max_cut of the answers of one of max_cut_arms truncated or empty",
    "WORSE: upper(tuned - base) < 0, or the interval of a guard on tuned lies wholly beyond its margin",
    "SHIP: lower(tuned - k) > 0 for every k in base, few-shot, rag, and the interval of every guard on tuned "
    "lies inside its margin",
    "SHIP WITH RAG: the same for tuned+rag against rag, few-shot, tuned",
    "USE RAG / PROMPT INSTEAD: upper(tuned - cheap) < 0, or lower(tuned - base) > 0 and "
    "upper(tuned - cheap) < margin, for a cheap in rag, few-shot",
    "NOT PROVEN: otherwise",
)
_ADVICE: dict[VerdictName, str] = {
    "INVALID": "No conclusion can be drawn until this is mended.",
    "WORSE": "Do not use this adapter.",
    "SHIP": "The fine-tune was worth it on this exam.",
    "SHIP WITH RAG": "Use the adapter together with retrieval.",
    "USE RAG": "Retrieval does the job without training.",
    "PROMPT INSTEAD": "A few examples in the prompt do the job without training.",
    "NOT PROVEN": "The exam does not settle whether the fine-tune was worth it.",
}
_UNMEASURED = (
    "human marks: fill the empty winner column of comparison.csv",
    "a judge model's opinion",
    "forgetting: what the model could do before, outside these documents",
    "style against knowledge: no placebo adapter (shuffled answers)",
    "variation between training seeds: one seed, greedy answers",
)


_UNCHANGED = 0.95  # share of equal answers from which on it is told; a remark only, so it is no part of the rule


class Verdict(Record):
    """The verdict, why, what it rests on, and what was not measured.

    ``questions_needed`` is n * (MDE / margin)^2, only when NOT PROVEN; ``promising`` says that the gold
    answers of the learned questions became likelier (the whole interval above zero), which alone never ships.
    """

    name: VerdictName
    why: tuple[str, ...]
    results: Results
    leaks: int
    promising: bool
    questions_needed: int | None
    not_measured: tuple[str, ...]
    rule: dict[str, Any]
    rule_digest: str


def rule(margin: float, arms: Sequence[str]) -> dict[str, Any]:
    """Return the verdict rule with all its constants, JSON-able, to be written before answers are generated.

    Truncated and empty answers invalidate only the arms whose claim is judged (tuned, tuned+rag). A small
    base model that rambles to the token limit is a real behavior of that rival, not a fault of the exam: it
    is scored as it is and reported.

    Args:
        margin: delta, the smallest difference worth having, in primary score.
        arms: the arms that will sit the exam.
    """
    return {
        "version": 1,
        "metrics_version": METRICS_VERSION,
        "primary": "label match (JSON gold) or token-F1 if answered; 1 for declining the unanswerable; else 0",
        "interval": "cluster-robust t (CR1) on G - 1 degrees of freedom; clusters are documents",
        "margin": margin,
        "alpha": 0.05,
        "arms": list(arms),
        "min_questions": 10,
        "min_documents": 5,
        "max_cut": 0.05,
        "max_cut_arms": [TUNED, TUNED_RAG],
        "max_leaks": 0,
        "guards": {"false_refusal": 0.10},
        "steps": list(_STEPS),
    }


def rule_digest(rule: dict[str, Any]) -> str:
    """Return the SHA-256 of a rule, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(rule, sort_keys=True).encode()).hexdigest()


def _cut(results: Results, arm: str) -> float:
    found = results.arm(arm)
    return found.metrics.get("cut_or_empty", 0.0) if found else 0.0


def _faults(results: Results, rule: dict[str, Any], leaks: int) -> list[str]:
    """Step 1: whatever forbids a conclusion."""
    faults = []
    if leaks > rule["max_leaks"]:
        faults.append(f"{leaks} training sample(s) leak exam questions.")
    for key, count, label in (
        ("min_questions", results.num_questions, "question(s)"),
        ("min_documents", results.num_documents, "document(s)"),
    ):
        if count < rule[key]:
            faults.append(f"The exam has {count} {label}; the rule asks for at least {rule[key]}.")
    for arm in (BASE, TUNED):
        if results.arm(arm) is None:
            faults.append(f"The {arm} arm did not sit the exam, so there is nothing to compare.")
    for found in results.arms:
        if found.primary.num < results.num_questions:
            faults.append(f"{found.arm} answered {found.primary.num} of {results.num_questions} questions.")
        cut = _cut(results, found.arm)
        if found.arm in rule["max_cut_arms"] and cut > rule["max_cut"]:
            faults.append(
                f"{cut:.0%} of the {found.arm} answers are empty or cut at the token limit; "
                f"the rule allows {rule['max_cut']:.0%} (raise evaluation.max_new_tokens)."
            )
    return faults


def _harms(results: Results) -> list[str]:
    """Step 2: worse than the base, or a guard beyond its margin."""
    harms = []
    against = results.difference(TUNED, BASE)
    if against and against.interval.high < 0:
        harms.append(f"The tuned model scores lower than the base: {plain(against.interval)}.")
    return harms + [_told(guard) for guard in results.guards_of(TUNED) if guard.state == "beyond"]


def _told(guard: Guard) -> str:
    verb = {"inside": "is shown to stay within", "beyond": "lies beyond", "unclear": "may exceed"}[guard.state]
    return (
        f"Declining answerable questions, {guard.first} over {guard.second}: {plain(guard.interval)}; "
        f"that {verb} the margin of {guard.margin:.2f}."
    )


def _against(results: Results, first: str, rivals: Sequence[str]) -> tuple[list[Difference], list[str]]:
    """Return the differences to the rivals that ran, and the names of those that did not."""
    found = {rival: results.difference(first, rival) for rival in rivals}
    return [d for d in found.values() if d], [rival for rival, d in found.items() if d is None]


def _beats(results: Results, first: str, rivals: Sequence[str]) -> list[str]:
    """Steps 3 and 4: why an arm ships, or nothing. All rivals must be beaten, so no correction is needed."""
    differences, missing = _against(results, first, rivals)
    guards = results.guards_of(first)
    won = all(d.interval.low > 0 for d in differences) and all(guard.state == "inside" for guard in guards)
    if missing or not won:
        return []
    return [f"{first} beats {d.second} by {plain(d.interval)}." for d in differences] + [_told(g) for g in guards]


def _cheaper(results: Results, margin: float) -> tuple[str, list[str]] | None:
    """Step 5: the cheap arm to take instead of tuning, the higher-scoring one first, and why."""
    gain = results.difference(TUNED, BASE)
    cheap, _ = _against(results, TUNED, (FEW_SHOT, RAG))
    for difference in sorted(cheap, key=lambda d: d.interval.mean):
        told = plain(difference.interval)
        if difference.interval.high < 0:
            return difference.second, [f"tuned scores lower than {difference.second}: {told}."]
        if gain and gain.interval.low > 0 and difference.interval.high < margin:
            return difference.second, [
                f"tuned beats base by {plain(gain.interval)}, but over {difference.second} it gains "
                f"{told}; the whole interval lies below the {margin:.2f} worth having."
            ]
    return None


def _open_questions(results: Results, rule: dict[str, Any], promising: bool) -> tuple[list[str], int | None]:
    """Step 6: what stays open, and how many questions would settle it."""
    differences, missing = _against(results, TUNED, (BASE, FEW_SHOT, RAG))
    why, needs = [], []
    for difference in differences:
        settled = difference.interval.low > 0
        why.append(
            f"tuned against {difference.second}: {plain(difference.interval)}" + (", ahead." if settled else ".")
        )
        if not settled:
            needs.append(questions_needed(difference.interval, rule["margin"], 1 - rule["alpha"]))
    for guard in results.guards_of(TUNED):
        if guard.state == "unclear":
            why.append(_told(guard))
            needs.append(questions_needed(guard.interval, guard.margin, 1 - rule["alpha"]))
    if missing:
        why.append(f"Rivals not run: {', '.join(missing)}; without them the rule cannot say SHIP.")
    needed = max((n for n in needs if n is not None), default=None)
    if needed is not None and needed > results.num_questions:
        why.append(
            f"To show a difference of {rule['margin']:.2f}, the exam needs about {needed:,} questions in "
            f"place of {results.num_questions}, on more documents in the same proportion."
        )
    elif needed is not None:
        why.append(
            f"The exam was large enough to show a difference of {rule['margin']:.2f}; "
            "more questions alone may not help."
        )
    if promising:
        why.append(
            "Promising: the gold answers of the learned questions became likelier, "
            "which alone does not prove better answers."
        )
    return why, needed


def apply_rule(
    results: Results, rule: dict[str, Any], leaks: int, promising: bool
) -> tuple[VerdictName, list[str], int | None]:
    """Go down the steps of the rule; the first that holds is the verdict."""
    if faults := _faults(results, rule, leaks):
        return "INVALID", faults, None
    if harms := _harms(results):
        return "WORSE", harms, None
    if wins := _beats(results, TUNED, (BASE, FEW_SHOT, RAG)):
        return "SHIP", wins, None
    if wins := _beats(results, TUNED_RAG, (RAG, FEW_SHOT, TUNED)):
        return "SHIP WITH RAG", wins, None
    if cheaper := _cheaper(results, rule["margin"]):
        return ("USE RAG" if cheaper[0] == RAG else "PROMPT INSTEAD"), cheaper[1], None
    why, needed = _open_questions(results, rule, promising)
    return "NOT PROVEN", why, needed


def _remarks(results: Results, answers: Sequence[Answer], rule: dict[str, Any]) -> list[str]:
    """What is told beside the rule: cut or empty answers of the rivals, and a tuned model that is still the base."""
    cut = [
        f"{_cut(results, found.arm):.0%} of the {found.arm} answers are empty or cut at the token limit; "
        "they count as they are."
        for found in results.arms
        if found.arm not in rule["max_cut_arms"] and _cut(results, found.arm) > rule["max_cut"]
    ]
    return [*_unchanged(answers), *cut]


def _unchanged(answers: Sequence[Answer]) -> list[str]:
    """Return a sentence when nearly all of the tuned model's answers are the base's, else nothing."""
    texts = {arm: {a.question: a.text.strip() for a in answers if a.arm == arm} for arm in (BASE, TUNED)}
    both = texts[BASE].keys() & texts[TUNED].keys()
    same = sum(texts[BASE][question] == texts[TUNED][question] for question in both)
    if not both or same < _UNCHANGED * len(both):
        return []
    return [
        f"The tuned model gives the same answer as the base to {same} of {len(both)} questions: the training changed "
        "next to nothing. Raise training.learning_rate or training.epochs."
    ]


def decide(scores: Sequence[Score], answers: Sequence[Answer], rule: dict[str, Any], leaks: int) -> Verdict:
    """Return the verdict that the rule gives.

    The rule holds every constant; none is taken from the code of the day. Without few-shot or RAG among the
    arms, SHIP is out of reach: the bar is the best cheap arm, not the naked base.

    Args:
        scores: of every arm and question.
        answers: the answers behind them.
        rule: as ``rule`` returned it before the answers were generated.
        leaks: training samples found to share an exam question or its evidence.

    Raises:
        StageError: there are no scores.
    """
    results = measure(scores, answers, rule["arms"], rule["guards"], 1 - rule["alpha"])
    promising = results.nll_learned is not None and results.nll_learned.interval.low > 0
    name, why, needed = apply_rule(results, rule, leaks, promising)
    absent = [arm for arm in (BASE, FEW_SHOT, RAG, TUNED, TUNED_RAG) if results.arm(arm) is None]
    return Verdict(
        name=name,
        why=(_ADVICE[name], *why, *_remarks(results, answers, rule)),
        results=results,
        leaks=leaks,
        promising=promising,
        questions_needed=needed,
        not_measured=(*[f"the {arm} arm did not run" for arm in absent], *_UNMEASURED),
        rule=rule,
        rule_digest=rule_digest(rule),
    )
