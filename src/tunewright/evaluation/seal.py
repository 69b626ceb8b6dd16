"""The seal: whether exam, rule, answers and verdict are still those that the verdict was given on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tunewright.evaluation.rule import rule_digest
from tunewright.recipe import Recipe
from tunewright.run_folder import RunFile

SEALED = {"exam": RunFile.EXAM, "kept": RunFile.RETENTION}  # key in seal.json → the file whose digest it holds
CHECKED = {  # stage → those of its outputs whose digests are compared with its record
    "exam": (RunFile.SEAL,),
    "evaluate": (
        RunFile.RULE,
        RunFile.RULE_HISTORY,
        RunFile.ANSWERS,
        RunFile.RETENTION_ANSWERS,
        RunFile.SCORES,
        RunFile.VERDICT,
    ),
    "judge": (RunFile.JUDGMENTS, RunFile.JUDGE),
    "verdict": (RunFile.VERDICT,),  # where marks decide, and not in "evaluate" then
}
_SETTINGS = ("seed", "system_prompt", "refusal", "evaluation")
_MARGIN = "evaluation.margin"
_MOST_SHOWN = 60  # characters of a value in a sentence


@dataclass(frozen=True)
class SealState:
    """A run's seal and the files that it vouches for; empty where a file is missing or damaged.

    Attributes:
        seal: the content of seal.json.
        rule: the content of rule.json.
        verdict: the content of verdict.json.
        records: stage → its record.
        digests: name → SHA-256 of each sealed or checked file that exists.
    """

    seal: Mapping[str, Any]
    rule: dict[str, Any]
    verdict: Mapping[str, Any]
    records: Mapping[str, Mapping[str, Any]]
    digests: Mapping[str, str]


def exam_faults(state: SealState) -> list[str]:
    """Return what is wrong with the exam and its seal; nothing where both are unchanged, or none was sealed."""
    faults = list(_changed_outputs(state, "exam"))
    if RunFile.SEAL not in state.digests:
        return faults
    for key, name in SEALED.items():
        if key != "exam" and key not in state.seal:
            continue  # a seal from before the retention suite
        if name not in state.digests:
            faults.append(f"{name} is missing, and the seal names it")
        elif state.seal.get(key) != state.digests[name]:
            faults.append(f"{name} was changed after it was sealed: its digest is not the one in seal.json")
    return faults


def seal_faults(state: SealState, recipe: Recipe) -> list[str]:
    """Return a sentence for each file or setting that is not the one that the verdict was given on.

    Args:
        state: of a run with a verdict.
        recipe: the recipe of the run folder.
    """
    faults = [
        *_missing_records(state),
        *exam_faults(state),
        *_rule_faults(state, recipe),
        *_changed_settings(state, recipe),
    ]
    named = " ".join(faults)
    changed = [*_changed_outputs(state, "evaluate"), *_changed_outputs(state, "judge")]
    if "marks" in state.rule:
        changed += _changed_outputs(state, "verdict")
    return faults + [fault for fault in changed if fault.split()[0] not in named]


def _missing_records(state: SealState) -> list[str]:
    """Return which records are gone: without them, a change cannot be seen."""
    return [
        f"stages/{stage}.json is missing or damaged"
        for stage in ("exam", "evaluate")
        if not state.records[stage].get("outputs")
    ]


def _rule_faults(state: SealState, recipe: Recipe) -> list[str]:
    """Return what differs between the hashed rule, the one in verdict.json, rule.json, and the recipe's margin."""
    hashed, stated, written = state.verdict.get("rule_digest"), state.verdict.get("rule"), state.rule
    if not isinstance(stated, dict):
        return []
    faults = []
    if rule_digest(stated) != hashed:
        before = written if rule_digest(written) == hashed else {}
        faults += _differences("verdict.json was changed after its rule was hashed", before, stated)
    elif written and rule_digest(written) != hashed:
        faults += _differences("rule.json was changed after it was hashed", stated, written)
    rule = written if rule_digest(written) == hashed else stated
    return faults + _differences(
        "recipe.toml was changed after the rule was hashed",
        {_MARGIN: rule.get("margin")},
        {_MARGIN: recipe.evaluation.margin},
    )


def _changed_outputs(state: SealState, stage: str) -> Iterator[str]:
    """Yield the checked files whose digest is not the one that their stage recorded."""
    recorded = state.records[stage].get("outputs", {})
    for name in CHECKED[stage]:
        if name in recorded and name not in state.digests:
            yield f"{name} is missing"
        elif name in recorded and recorded[name] != state.digests[name]:
            yield f"{name} was changed after the stage {stage} wrote it"


def _changed_settings(state: SealState, recipe: Recipe) -> list[str]:
    """Return the settings of prompts and scores that are not those that the evaluate stage recorded."""
    ingredients = state.records["evaluate"].get("ingredients")
    ingredients = ingredients if isinstance(ingredients, dict) else {}
    recorded = _flat({k: v for k, v in ingredients.items() if k in _SETTINGS or k.startswith("model.")})
    now = _flat(recipe.model_dump(mode="json", include={*_SETTINGS, "model"}))
    common = [key for key in recorded if key in now and key != _MARGIN]  # the rule holds the margin
    return _differences(
        "recipe.toml was changed after the verdict",
        {key: recorded[key] for key in common},
        {key: now[key] for key in common},
    )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _differences(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = _flat(before), _flat(now)
    return [
        f"{what}: {key} was {_shown(old, key)} and is {_shown(new, key)}"
        for key in dict.fromkeys([*old, *new])
        if _value_text(old, key) != _value_text(new, key)
    ]


def _value_text(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False) if key in values else "absent"


def _shown(values: Mapping[str, Any], key: str) -> str:
    text = _value_text(values, key)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"
