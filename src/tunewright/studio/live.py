"""The live view of a run: stages with progress, losses as figures, numbers of the last step, memory, and the log."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunewright.html import figures
from tunewright.run_folder import RunFile
from tunewright.stages import STAGE_NAMES
from tunewright.studio.home import fault_of
from tunewright.studio.jobs import Job, Jobs, log_tail
from tunewright.studio.runs import (
    KnownRun,
    finished_stages,
    json_of,
    lines_from,
    regular_file,
    running_stage,
    stamp,
    state_of,
)

_PROGRESS = re.compile(r"^  (\S.{0,60}?) (\d+)/(\d+) ([\d.]+)/s eta (\d+)s ?(.*)$", re.MULTILINE)
_LISTED = re.compile(r"^\[(\d+)/(\d+)\] ([\w-]+)", re.MULTILINE)
_TAIL_BYTES = 12_000
_CURVES = (
    ("loss", "Loss", (("loss", "training", ""), ("held_out_loss", "held-out", "second"))),
    ("learning_rate", "Learning rate", (("learning_rate", "rate", ""),)),
    ("tokens_per_s", "Tokens per second", (("tokens_per_s", "tokens/s", ""),)),
)


@dataclass
class Metrics:
    """The rows of a growing metrics.jsonl, read once each; all again when the file became shorter or another one."""

    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    _read_to: int = 0
    _file: tuple[int, int] = (0, 0)

    def update(self) -> None:
        """Read the new lines."""
        try:
            info = self.path.stat()
        except OSError:
            self.rows, self._read_to = [], 0
            return
        if (info.st_dev, info.st_ino) != self._file or info.st_size < self._read_to:
            self.rows, self._read_to, self._file = [], 0, (info.st_dev, info.st_ino)
        lines, self._read_to = lines_from(self.path, self._read_to)
        for line in lines:
            with suppress(ValueError, TypeError, KeyError):
                row = json.loads(line)
                self.rows.append({**row, "step": float(row["step"])})


def live_stamp(run: KnownRun, job: Job | None, jobs: Jobs) -> tuple[object, ...]:
    """Return what changes whenever the live view may look different."""
    names = (RunFile.METRICS, RunFile.JOURNAL, "stages", RunFile.VERDICT, RunFile.PREVIEW)
    log = jobs.log_path(job.id) if job else run.path / "no log"
    return (*stamp(*(run.path / name for name in names), log), job.state if job else "", job.stops if job else 0)


def live_view(run: KnownRun, job: Job | None, jobs: Jobs, metrics: Metrics) -> dict[str, Any]:
    """Return the view of the live part of a run's page."""
    metrics.update()
    log = log_tail(jobs.log_path(job.id), _TAIL_BYTES) if job else ""
    stages = finished_stages(run)
    verdict = json_of(run, RunFile.VERDICT)
    state, what = state_of(run, job, verdict, stages)
    ended_badly = job is not None and job.state == "ended" and job.exit_code != 0
    return {
        "run": run,
        "job": job,
        "state": state,
        "what": what,
        "verdict": str(verdict.get("name", "")),
        "why": [str(sentence) for sentence in verdict.get("why", ()) if isinstance(sentence, str)],
        "stages": _stage_rows(run, stages, log, job),
        "curves": _curves(metrics.rows),
        "last": _last(metrics.rows),
        "memory": _memory(job),
        "fault": fault_of(log) if ended_badly else None,
        "warnings": [line.removeprefix("warning: ") for line in log.splitlines() if line.startswith("warning: ")][-3:],
        "advice": _advice(stages),
    }


def _stage_rows(
    run: KnownRun, stages: Mapping[str, Mapping[str, Any]], log: str, job: Job | None
) -> list[dict[str, Any]]:
    current = running_stage(run)
    is_running = job is not None and job.state == "running"
    listed = {name for _, _, name in _LISTED.findall(log)}
    rows = []
    for name in STAGE_NAMES:
        record = stages.get(name)
        if record is None and name != current and name not in listed:
            continue
        busy = name == current
        summary = record.get("summary", {}) if record else {}
        rows.append(
            {
                "name": name,
                "state": ("running" if is_running else "stopped") if busy else "done" if record else "waiting",
                "took": float(record.get("duration_s") or 0.0) if record and not busy else None,
                "num_in": summary.get("num_in"),
                "num_out": summary.get("num_out"),
                "rejected": summary.get("rejected") or {},
                "progress": _progress(log) if busy and is_running else None,
            }
        )
    return rows


def _progress(log: str) -> dict[str, Any] | None:
    """Return the progress that a command printed last in its present stage; None before the first such line."""
    start = max((match.start() for match in _LISTED.finditer(log)), default=0)
    lines = list(_PROGRESS.finditer(log, start))
    if not lines:
        return None
    label, done, total, rate, left, note = lines[-1].groups()
    return {
        "label": label,
        "done": int(done),
        "total": max(1, int(total)),
        "rate": float(rate),
        "eta": int(left),
        "note": note,
    }


def _curves(rows: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    phases = list(dict.fromkeys(str(row.get("phase", "sft")) for row in rows))
    own = [row for row in rows if row.get("phase", "sft") == phases[-1]] if phases else []
    drawn = []
    for _, title, lines in _CURVES:
        parts = [
            figures.Line(name, points, kind, marked=bool(kind))
            for key, name, kind in lines
            if (points := [(row["step"], float(row[key])) for row in own if isinstance(row.get(key), int | float)])
        ]
        if parts:
            ends = "; ".join(f"{line.name} {line.points[-1][1]:.4g}" for line in parts)
            drawn.append((title, figures.curve(parts, f"{title} by step, at the last one: {ends}", "step")))
    return drawn


def _last(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the numbers of the last step, and of the last that was held out."""
    steps = [row for row in rows if "loss" in row]
    held_out = [row["held_out_loss"] for row in rows if "held_out_loss" in row]
    last = steps[-1] if steps else {}
    return {
        "step": int(last["step"]) if last else None,
        "loss": last.get("loss"),
        "held_out": held_out[-1] if held_out else None,
        "learning_rate": last.get("learning_rate"),
        "tokens_per_s": last.get("tokens_per_s"),
    }


def _memory(job: Job | None) -> int:
    """Return the resident memory of a job's command in bytes; 0 where it does not run or the system does not say."""
    if job is None or job.state != "running" or not job.child:
        return 0
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{job.child}/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmRSS:"):
                return 1024 * int(line.split()[1])
    return 0


def _advice(stages: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what the stages advise."""
    return [
        str(value)
        for record in stages.values()
        for name, value in (record.get("summary", {}).get("figures") or {}).items()
        if name.startswith("advice_")
    ]


def metrics_of(run: KnownRun) -> Metrics:
    """Return the metrics of a run, not read yet."""
    return Metrics(regular_file(run, RunFile.METRICS) or run.path / RunFile.METRICS)
