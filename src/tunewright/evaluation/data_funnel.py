"""What became of the samples: the funnel by task, refusals both ways, what the teacher was asked."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunewright.answers import is_refusal
from tunewright.records import Rejection, Sample, StageSummary

WRITING = "synth"
OWN = "own"  # the task of the user's own data
UNKNOWN = "unknown"  # of a rejection from before rejections named their task
# The stages whose rejections are no samples: documents, questions, pairs, or samples that were kept and then too long.
_OTHER = frozenset({"ingest", "split", "exam", "pairs", "train", "evaluate", "report"})
_LABEL = re.compile(r"^\s*(?:question|q)\s*:[ \t]*(?=\S)", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True)
class TaskFunnel:
    """One task's way: tried = kept + rejected + unaccounted, rejected by (stage, reason).

    ``unaccounted`` is 0 unless the files are of different runs: then the rejections or the kept samples are not those
    of the written ones. ``kept`` is None before curation.
    """

    task: str
    tried: int
    written: int
    kept: int | None
    rejected: Mapping[tuple[str, str], int] = field(default_factory=dict)

    @property
    def unaccounted(self) -> int:
        """What neither left with a reason nor was kept (below 0: left twice)."""
        passed = self.written if self.kept is None else self.kept
        return self.tried - sum(self.rejected.values()) - passed

    @property
    def share(self) -> float | None:
        """The yield: kept over tried."""
        return None if self.kept is None or not self.tried else self.kept / self.tried


def funnel(
    written: Sequence[Sample], rejections: Iterable[Rejection], kept: Sequence[Sample] | None
) -> list[TaskFunnel]:
    """Return the funnel of each task, in the order of their first sample.

    Tried is what the synth stage wrote and what it rejected; of the user's own data, all that was read.

    Args:
        written: of samples.jsonl.
        rejections: of all stages; those of documents, questions and pairs are left out.
        kept: of train.jsonl, None before curation.
    """
    task_of = {sample.id: sample.task for sample in written}
    rejected: dict[str, Counter[tuple[str, str]]] = {}
    for rejection in rejections:
        if rejection.stage in _OTHER or (kept is None and rejection.stage != WRITING):
            continue
        older = UNKNOWN if rejection.stage == WRITING else task_of.get(rejection.id, OWN)
        counts = rejected.setdefault(rejection.task or older, Counter())
        counts[rejection.stage, rejection.reason] += 1
    wrote = Counter(sample.task for sample in written)
    stayed = Counter(sample.task for sample in kept or ())
    found = []
    for task in dict.fromkeys([*wrote, *stayed, *rejected]):
        drops = rejected.get(task, Counter())
        left = stayed[task] if kept is not None else None
        came = stayed[task] + sum(count for (stage, _), count in drops.items() if stage != WRITING)
        num = wrote[task] or came  # the user's own data comes in at the curation
        tried = num + sum(count for (stage, _), count in drops.items() if stage == WRITING)
        found.append(TaskFunnel(task, tried, num, left, dict(drops)))
    return found


def total(rows: Sequence[TaskFunnel]) -> TaskFunnel:
    """Return the sum of the tasks' funnels."""
    drops: Counter[tuple[str, str]] = Counter()
    for row in rows:
        drops.update(row.rejected)
    known = [row.kept for row in rows if row.kept is not None]
    kept = sum(known) if len(known) == len(rows) else None
    return TaskFunnel("all", sum(r.tried for r in rows), sum(r.written for r in rows), kept, dict(drops))


def split_turn(turn: str) -> tuple[str, str]:
    """Return (what is shown, what is asked) of a user turn: it asks in its last paragraph, or after "Question:"."""
    turn = turn.strip()
    label = next(reversed(list(_LABEL.finditer(turn))), None)
    if label:
        return turn[: label.start()].strip(), turn[label.end() :].strip()
    shown, _, asked = turn.rpartition("\n\n")
    return shown.strip(), asked.strip()


@dataclass(frozen=True)
class Refusals:
    """Counts of samples: with a passage and without, and how many of each decline to answer."""

    with_passage: int
    with_passage_declined: int
    without: int
    without_declined: int

    @property
    def rows(self) -> list[tuple[str, int, int]]:
        """Return (what is counted, of how many, how many)."""
        num, declined = self.with_passage + self.without, self.with_passage_declined + self.without_declined
        return [
            ("all samples: decline", num, declined),
            ("show a passage: decline", self.with_passage, self.with_passage_declined),
            ("show a passage: answer", self.with_passage, self.with_passage - self.with_passage_declined),
            ("show no passage: decline", self.without, self.without_declined),
        ]


def declines(refusal: str) -> Callable[[Sample], bool]:
    """Return the test whether a sample teaches to decline, by its task or its answer's beginning."""
    known: dict[str, bool] = {}

    def test(sample: Sample) -> bool:
        if sample.task == "refusal":
            return True
        if sample.answer not in known:
            known[sample.answer] = is_refusal(sample.answer[:500], refusal)
        return known[sample.answer]

    return test


def refusals(samples: Iterable[Sample], refusal: str) -> Refusals:
    """Count the samples that decline, with a passage and without; ``refusal`` is the recipe's sentence."""
    test = declines(refusal)
    counts = Counter((bool(split_turn(sample.question)[0]), test(sample)) for sample in samples)
    return Refusals(
        with_passage=counts[True, True] + counts[True, False],
        with_passage_declined=counts[True, True],
        without=counts[False, True] + counts[False, False],
        without_declined=counts[False, True],
    )


def teacher_use(journal: Path) -> dict[str, dict[str, float]]:
    """Return calls, prompt tokens, written tokens and seconds by stage, of every reply on record.

    Replies to earlier settings of the run count too: they were paid for. A damaged line is passed over.
    """
    found: dict[str, dict[str, float]] = {}
    fields = {"prompt tokens": "num_prompt_tokens", "written tokens": "num_tokens", "seconds": "seconds"}
    fields |= {"US dollars": "cost"}
    with journal.open("rb") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
                values = {name: float(entry.get(key) or 0) for name, key in fields.items()}
                stage = str(entry.get("stage") or UNKNOWN)
            except (ValueError, TypeError, AttributeError):
                continue
            use = found.setdefault(stage, {"calls": 0.0, **dict.fromkeys(fields, 0.0)})
            use["calls"] += 1
            for name, value in values.items():
                use[name] += value
    if not any(use["US dollars"] for use in found.values()):
        for use in found.values():
            del use["US dollars"]  # nothing has a price
    return found


def named_figures(summaries: Mapping[str, StageSummary], *prefixes: str) -> list[tuple[str, str, float | int | str]]:
    """Return (stage, name, value) of the stages' figures whose name starts with one of the prefixes."""
    return [
        (stage, name, value)
        for stage, summary in summaries.items()
        for name, value in summary.figures.items()
        if name.startswith(prefixes)
    ]
