"""The verdict's rule: fixed, with all its constants, and hashed before any answer exists."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

from tunewright.evaluation.results import CROSS_ENTROPY_MARGIN
from tunewright.evaluation.retention import ACCURACY, CROSS_ENTROPY
from tunewright.metrics import METRICS_VERSION
from tunewright.run_folder import Journal
from tunewright.settings import Arm
from tunewright.statistics.power import LEAST_DOCUMENTS, LEAST_QUESTIONS

RULE_VERSION = 5

_STEPS = (
    "INVALID: a leak; fewer than min_questions or min_documents; base or tuned missing, an arm incomplete; "
    "more than max_cut of the answers of one of max_cut_arms cut short; a kept guard without its measure",
    "WORSE: upper(tuned - base) < 0, or the interval of a guard on tuned lies wholly beyond its margin",
    "SHIP: lower(tuned - k) > 0 for every k in {rivals}, and every guard is measured and its interval on tuned "
    "lies inside its margin",
    "SHIP WITH RAG: the same for tuned+rag against {rivals_with_rag}; the kept guards, on tuned, count here too",
    "NOT PROVEN: tuned gives the base's answer to at least max_same of the questions, or the likelihood of the gold "
    "answers moved by less than min_change, in nats per token on average: the training changed next to nothing",
    "USE RAG / PROMPT INSTEAD: for a cheap in {cheap} whose mean is above base's: upper(tuned - cheap) < 0, or "
    "lower(tuned - base) > 0 and upper(tuned - cheap) < margin",
    "NOT PROVEN: otherwise",
)
_RETENTION = (
    "general items, each its own cluster, tuned - base: a loss of accuracy (choices by log-likelihood per character of "
    "the options, formats by their checks), which decides where the adapter replaces its base, and a rise of "
    "cross-entropy (passages, nats per token), which is a drift and decides nothing"
)
_INTERVAL = (
    "cluster-robust t (CR1) on G - 1 degrees of freedom; clusters are documents; Wilson's on the "
    "effective number of questions for a share, and where t leaves [-1, 1]"
)
_CUT_SHORT = (
    "at the token limit, before the answer was twice as long as the gold answer, by which it could still be right"
)
_ANSWERS = {
    "max_cut": 0.05,
    "max_cut_arms": [Arm.TUNED, Arm.TUNED_RAG],
    "cut_short": _CUT_SHORT,
    "max_same": 0.95,
    "min_change": 0.05,
}
# Arms that learned form and nothing else: rivals where they ran.
_OF_FORM: dict[str, str] = {
    Arm.MAJORITY: "the most frequent labels of the training data as every answer",
    Arm.PLACEBO: "the same training on the same prompts, with their answers shuffled within each task",
}
_PRIMARY = (
    "by the kind of question: label match (JSON gold, listed options), 1 where the right option is the "
    "likeliest per character (options that are not listed), 1 for the right value (short), F1 over items (list), "
    "token-F1 (free) if answered; 1 for declining the unanswerable; else 0"
)

LEAST_MARKS = 30  # shared practice; below, marks and a judge's agreement with them say too little
_MARKS = {
    "min_marks": LEAST_MARKS,
    "preference": "mean over the questions of 1 where people prefer tuned, -1 the rival, 0 neither, from blind marks "
    "of a random sample and the judge's preferences on all questions (prediction-powered; without a judge, or where "
    "lambda is 0, the marks alone); jackknife over documents, t on their effective number - 1",
    "looks": "marks count in their order at min_marks, at each doubling, and when all are made; each look has one half "
    "of what is left of alpha, the last one all of it",
    "steps": "tuned - k is this preference for every rival k with min_marks marks, or with all questions marked where "
    "fewer have different answers, and the score for the others; NOT PROVEN, after the harms of the guards, while the "
    "rival with the highest score has fewer; SHIP WITH RAG is out of reach",
}

_OVER_SEEDS = (
    "tuned - k is the mean over all trainings, with the error of the exam and of the seed (Cochran & Cox 1957); the "
    "guards are held against the first, which is exported"
)

CHEAP = (Arm.FEW_SHOT, Arm.SIMILAR_SHOT, Arm.RAG)  # rivals that need no training


def rivals(rule: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the arms that tuned has to beat. Before version 4: base, few-shot and RAG, and the placebo if it ran."""
    if "rivals" in rule:
        return tuple(rule["rivals"])
    return (Arm.BASE, Arm.FEW_SHOT, Arm.RAG, *([Arm.PLACEBO] if Arm.PLACEBO in rule["arms"] else []))


def rivals_with_rag(rule: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the arms that tuned+rag has to beat."""
    others = (arm for arm in rivals(rule) if arm in (*CHEAP, Arm.MAJORITY) and arm != Arm.RAG)
    return (Arm.RAG, *others, Arm.TUNED)


def rule(
    margin: float,
    arms: Sequence[str],
    forgetting_margin: float | None = None,
    compared: Sequence[str] = (),
    use: Literal["task", "assistant"] = "task",
    impossible: Mapping[str, str] = MappingProxyType({}),
    primary: Literal["score", "marks"] = "score",
    seeds: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the verdict rule with all its constants, JSON-able, to be written before answers are generated.

    Answers that are cut short invalidate only the arms whose claim is judged (tuned, tuned+rag). An answer that rambles
    on, or says nothing, is no fault of the exam: it counts as it is, or a ruined adapter would never be WORSE.

    Args:
        margin: delta, the smallest difference worth having, in primary score.
        arms: the arms that will answer the exam.
        forgetting_margin: the largest harmless loss of accuracy in the retention suite; None where the suite is not
            used, and forgetting is not measured.
        compared: the names of the arms compared on request; no step names them.
        use: "task": the adapter serves beside its base, and a loss of general ability is shown; "assistant": in place
            of its base, and the loss decides.
        impossible: the rivals that this data cannot have, each with the reason. All others have to be beaten.
        primary: what compares tuned with a rival: the score, or marks by people.
        seeds: the arms of further trainings from other seeds.
    """
    guards, shown = _guards(forgetting_margin, use)
    of_form = {arm: text for arm, text in _OF_FORM.items() if arm in arms}
    required = [arm for arm in (Arm.BASE, *CHEAP, *of_form) if arm not in impossible]
    named = {
        "{rivals}": required,
        "{rivals_with_rag}": rivals_with_rag({"rivals": required}),
        "{cheap}": [arm for arm in CHEAP if arm in required],
    }
    return {
        "version": RULE_VERSION,
        "metrics_version": METRICS_VERSION,
        "primary": _PRIMARY,
        "interval": _INTERVAL,
        "margin": margin,
        "alpha": 0.05,
        "use": use,
        "arms": list(arms),
        "rivals": required,
        "impossible": dict(impossible),
        "min_questions": LEAST_QUESTIONS,
        "min_documents": LEAST_DOCUMENTS,
        **_ANSWERS,
        "max_leaks": 0,
        "guards": guards,
        "shown": shown,
        "kept": _RETENTION if shown else "",
        "steps": [_filled(step, named) for step in _STEPS],
        **of_form,
        **({"compared": list(compared)} if compared else {}),
        **({"marks": _MARKS} if primary == "marks" else {}),
        **({"seeds": list(seeds), "over_seeds": _OVER_SEEDS} if seeds else {}),
    }


def _guards(forgetting_margin: float | None, use: str) -> tuple[dict[str, float], dict[str, float]]:
    """Return the margins of the guards that decide, and of the losses that are only shown."""
    guards, shown = {"false_refusal": 0.10}, dict[str, float]()
    if forgetting_margin is not None:
        (guards if use == "assistant" else shown)[ACCURACY] = forgetting_margin
        shown[CROSS_ENTROPY] = CROSS_ENTROPY_MARGIN
    return guards, shown


def _filled(step: str, named: Mapping[str, Sequence[str]]) -> str:
    for name, arms in named.items():
        step = step.replace(name, ", ".join(arms))
    return step


def rule_digest(rule: dict[str, Any]) -> str:
    """Return the SHA-256 of a rule, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(rule, sort_keys=True).encode()).hexdigest()


_HARMLESS = frozenset({"compared"})  # no step of the rule names the arms compared on request
_DERIVED = frozenset({"steps", "kept"})  # texts that follow from the other entries


def note_rule(journal: Journal, rule: dict[str, Any], answered: bool) -> tuple[str, ...]:
    """Note the rule before it is applied; return what differs from the rule that was fixed before the first answer.

    A change made before any answer existed counts for nothing, nor does a change that no step of the rule names.

    Args:
        journal: the rules noted so far; the rule is appended where it is not the last.
        rule: as ``rule`` returned it.
        answered: whether any answer exists already.
    """
    last = journal.entries[-1] if journal.entries else None
    if last is None or last["digest"] != rule_digest(rule):
        journal.append({"digest": rule_digest(rule), "rule": rule, "answered": answered})
    entries = journal.entries
    if entries[0]["answered"]:
        return ("When the rule was first noted, answers existed already.",)
    before = next((past["rule"] for past in reversed(entries) if not past["answered"]), entries[0]["rule"])
    # What an older version of the rule did not state was not changed by anyone.
    unstated = set() if before.get("version") == rule.get("version") else set(rule) - set(before)
    return tuple(
        f"The rule was changed after answers existed: {key} was {before.get(key)!r} and is {rule.get(key)!r}."
        for key in sorted({*before, *rule} - _HARMLESS - _DERIVED - unstated)
        if before.get(key) != rule.get(key)
    )
