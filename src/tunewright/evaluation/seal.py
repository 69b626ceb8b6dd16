"""The seal: whether exam, rule, answers and verdict still are what they were when the verdict was given."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tunewright.evaluation.rule import rule_digest
from tunewright.recipe import Recipe
from tunewright.run_folder import RunFile, RunFolder
from tunewright.storage import file_digest

_SETTINGS = ("seed", "system_prompt", "refusal", "evaluation")
_JUDGED = (RunFile.JUDGMENTS, RunFile.JUDGE)
_MARGIN = "evaluation.margin"
_SHOWN = 60  # characters of a value that is told


def exam_faults(run: RunFolder) -> list[str]:
    """Return what is wrong with the exam and its seal; nothing where both stand as made, or none was sealed."""
    faults = list(_changed_outputs(run, "exam", (RunFile.SEAL,)))
    if not run.file(RunFile.SEAL).is_file():
        return faults
    seal = run.json_if_any(RunFile.SEAL)
    for name in ("exam", *(["kept"] if "kept" in seal else [])):  # seals of before the third ring have none
        file = run.file(f"{name}.jsonl")
        if not file.is_file():
            faults.append(f"{file.name} is missing, and the seal names it")
        elif not is_sealed(run, name):
            faults.append(
                f"{file.name} was changed after it was sealed: it has not the digest that stands in seal.json"
            )
    return faults


def is_sealed(run: RunFolder, name: str) -> bool:
    """Return whether a part of the exam ("exam" or "kept") has the digest that stands in seal.json."""
    file = run.file(f"{name}.jsonl")
    return file.is_file() and run.json_if_any(RunFile.SEAL).get(name) == file_digest(file)


def seal_faults(run: RunFolder, recipe: Recipe) -> list[str]:
    """Return a sentence for each file or setting that is not the one that the verdict was given on.

    Args:
        run: a run folder with a verdict.
        recipe: the recipe of the run folder.
    """
    faults = [*_missing_records(run), *exam_faults(run), *_rule_faults(run, recipe), *_changed_settings(run, recipe)]
    known = " ".join(faults)
    outputs = (
        RunFile.RULE,
        RunFile.RULE_HISTORY,
        RunFile.ANSWERS,
        RunFile.RETENTION_ANSWERS,
        RunFile.SCORES,
        RunFile.VERDICT,
    )
    changed = [*_changed_outputs(run, "evaluate", outputs), *_changed_outputs(run, "judge", _JUDGED)]
    return faults + [fault for fault in changed if fault.split()[0] not in known]


def _missing_records(run: RunFolder) -> list[str]:
    """Return which records are gone: without them nobody can say what was changed."""
    return [
        f"stages/{stage}.json is missing or damaged"
        for stage in ("exam", "evaluate")
        if not run.stage_record(stage).get("outputs")
    ]


def _rule_faults(run: RunFolder, recipe: Recipe) -> list[str]:
    """Return what differs between the hashed rule, the one in verdict.json, rule.json, and the recipe's margin."""
    verdict = run.json_if_any(RunFile.VERDICT)
    hashed, told, written = verdict.get("rule_digest"), verdict.get("rule"), run.json_if_any(RunFile.RULE)
    if not isinstance(told, dict):
        return []
    faults = []
    if rule_digest(told) != hashed:
        before = written if rule_digest(written) == hashed else {}
        faults += _differences("verdict.json was changed after its rule was hashed", before, told)
    elif written and rule_digest(written) != hashed:
        faults += _differences("rule.json was changed after it was hashed", told, written)
    rule = written if rule_digest(written) == hashed else told
    return faults + _differences(
        "recipe.toml was changed after the rule was hashed",
        {_MARGIN: rule.get("margin")},
        {_MARGIN: recipe.evaluation.margin},
    )


def _changed_outputs(run: RunFolder, stage: str, names: tuple[str, ...]) -> Iterator[str]:
    """Yield the files that have not the digest that their stage recorded."""
    recorded = run.stage_record(stage).get("outputs", {})
    for name in names:
        if name in recorded and not run.file(name).is_file():
            yield f"{name} is missing"
        elif name in recorded and recorded[name] != file_digest(run.file(name)):
            yield f"{name} was changed after the stage {stage} wrote it"


def _changed_settings(run: RunFolder, recipe: Recipe) -> list[str]:
    """Return the settings of asking and scoring that are not those that the evaluate stage recorded."""
    recorded = _flat({k: v for k, v in _ingredients(run).items() if k in _SETTINGS or k.startswith("model.")})
    now = _flat(recipe.model_dump(mode="json", include={*_SETTINGS, "model"}))
    common = [key for key in recorded if key in now and key != _MARGIN]  # the rule holds it
    return _differences(
        "recipe.toml was changed after the verdict",
        {key: recorded[key] for key in common},
        {key: now[key] for key in common},
    )


def _ingredients(run: RunFolder) -> dict[str, Any]:
    found = run.stage_record("evaluate").get("ingredients")
    return found if isinstance(found, dict) else {}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def _differences(what: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = _flat(before), _flat(now)
    return [
        f"{what}: {key} was {_told(old, key)} and is {_told(new, key)}"
        for key in dict.fromkeys([*old, *new])
        if _told(old, key, None) != _told(new, key, None)
    ]


def _told(values: Mapping[str, Any], key: str, most: int | None = _SHOWN) -> str:
    text = json.dumps(values[key], ensure_ascii=False) if key in values else "absent"
    return text if most is None or len(text) <= most else f"{text[:most]}…"
