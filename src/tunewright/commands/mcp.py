"""The command mcp: a server of the Model Context Protocol on stdin and stdout, for agents that drive runs."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from tunewright import pipeline
from tunewright.commands.jobs import Job, Jobs, document_of
from tunewright.commands.json_documents import ErrorDocument, content
from tunewright.commands.status import read_report, status_document
from tunewright.console import without_secrets
from tunewright.environment import __version__
from tunewright.errors import TunewrightError, UserError, trouble
from tunewright.records import Answer, Question, Sample, Score
from tunewright.run_folder import RunFile, RunFolder

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer
    from mcp.types import CallToolResult

P = ParamSpec("P")

_MAX_ROWS = 100
_ABOUT = """tunewright turns documents or chats into a fine-tuned adapter and a verdict: was the fine-tune worth it,
against few-shot prompting and retrieval on the same sealed exam?

The usual order: write a recipe (init), look at its plan, preview what a training could bring at most, run it, poll the
job until it ends, then read the verdict. A failure is a tunewright/error document whose "hint" names the next step. A
run takes minutes to hours: run and preview return a job at once. A job continues when this server ends; then status of
its run folder says how far it is. The verdict decides, not the loss: report its sentences as they are, and say so when
it is NOT PROVEN or WORSE.
"""
_READ_ONLY = "\nThis server only reads: it was started without --allow-runs, so it has no init, preview, run or stop.\n"


def serve_mcp(allow_runs: bool) -> None:
    """Answer requests on stdin and stdout until the client ends.

    Raises:
        UserError: the library mcp is not installed.
    """
    # Whoever started this server may ignore Ctrl-C, and a job would inherit that and could not be stopped.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    server(allow_runs).run("stdio")


def server(allow_runs: bool) -> MCPServer:
    """Return the server with its tools; those that write or spend are there with ``allow_runs`` alone.

    Raises:
        UserError: the library mcp is not installed.
    """
    try:
        from mcp.server.mcpserver import MCPServer
        from mcp.types import ToolAnnotations
    except ImportError as error:
        raise UserError(
            "the library mcp is not installed", str(error), "install it: pip install 'tunewright[mcp]'"
        ) from error
    made = MCPServer("tunewright", instructions=_ABOUT + ("" if allow_runs else _READ_ONLY), version=__version__)
    verbs = Verbs()
    for verb in verbs.reading():
        made.tool(annotations=ToolAnnotations(read_only_hint=True))(_reporting(verb))
    if allow_runs:
        for verb in verbs.writing():
            made.tool(annotations=ToolAnnotations(read_only_hint=False, destructive_hint=False))(_reporting(verb))
    return made


def _reporting(verb: Callable[P, dict[str, Any]]) -> Callable[P, CallToolResult]:
    """Return the verb as a tool: its errors become documents, as with ``--json``."""
    from mcp.types import CallToolResult, TextContent

    @wraps(verb)
    def tool(*args: P.args, **kwargs: P.kwargs) -> CallToolResult:
        try:
            document = verb(*args, **kwargs)
        except Exception as error:
            failure = error if isinstance(error, TunewrightError) else trouble(error)
            if failure is None:
                raise
            document = _error(failure)
        is_error = str(document.get("schema", "")).startswith("tunewright/error/")
        text = TextContent(type="text", text=json.dumps(document, ensure_ascii=False))
        return CallToolResult(content=[text], structured_content=document, is_error=is_error)

    return tool


def _error(failure: TunewrightError) -> dict[str, Any]:
    headline, cause, hint = map(without_secrets, (failure.headline, failure.cause, failure.hint))
    return content(
        ErrorDocument(code=failure.code, headline=headline, cause=cause, hint=hint, exit_code=failure.exit_code)
    )


def _options(settings: Sequence[str], folder: str) -> list[str]:
    """Return settings and a run folder as options of a command; both may come from a model, so neither is one."""
    return [*(f"--set={setting}" for setting in settings), *([f"--dir={folder}"] if folder else [])]


def _rows(first: int, number: int) -> slice:
    if first < 0 or not 1 <= number <= _MAX_ROWS:
        raise UserError(
            f"rows {first} to {first + number} cannot be read", f"a call returns 1 to {_MAX_ROWS} rows", "ask for fewer"
        )
    return slice(first, first + number)


class Verbs:
    """The tools. Their docstrings are what an agent reads; relative paths are relative to the server's folder."""

    def __init__(self) -> None:
        self._jobs = Jobs()

    def reading(self) -> list[Callable[..., dict[str, Any]]]:
        """Return the tools that neither write nor spend anything."""
        return [self.plan, self.status, self.verdict, self.exam, self.answers, self.samples, self.compare, self.job]

    def writing(self) -> list[Callable[..., dict[str, Any]]]:
        """Return the tools that write files, call a teacher or train."""
        return [self.init, self.preview, self.run, self.stop]

    def plan(self, recipe: str, settings: list[str] = [], folder: str = "") -> dict[str, Any]:  # noqa: B006
        """Show what each stage of a recipe will do: teacher calls, tokens, memory and time. Starts nothing.

        recipe: path of the .toml file. settings: overrides such as "training.epochs=2". folder: the run folder
        (default: runs/NAME-OF-THE-RECIPE).
        """
        return document_of(["plan", *_options(settings, folder), "--", recipe])

    def status(self, folder: str) -> dict[str, Any]:
        """Show how far a run is: the state of each stage, whether a process is working on it, and its verdict."""
        return content(status_document(RunFolder.open(Path(folder))))

    def verdict(self, folder: str) -> dict[str, Any]:
        """Read the verdict of a finished run with its evidence, after checking its seal."""
        return content(read_report(RunFolder.open(Path(folder))))

    def exam(self, folder: str, first: int = 0, number: int = 20) -> dict[str, Any]:
        """Read the exam of a run, whose seal is checked; number (at most 100) questions from the first on."""
        rows, document = _rows(first, number), document_of(["exam", "--", folder])
        return {**document, "questions": document["questions"][rows]} if "questions" in document else document

    def answers(self, folder: str, arm: str = "tuned", first: int = 0, number: int = 20) -> dict[str, Any]:
        """Read an arm's answers to the exam beside the right ones, each with its score between 0 and 1.

        arm: base, few-shot, similar-shot, rag, oracle, tuned, tuned+rag or placebo, as far as the run has it.
        """
        rows, run = _rows(first, number), RunFolder.open(Path(folder))
        pipeline.require(run, RunFile.EXAM, RunFile.ANSWERS, RunFile.SCORES)
        every = run.read_records(RunFile.ANSWERS, Answer)
        given = {answer.question: answer for answer in every if answer.arm == arm}
        if not given:
            arms = ", ".join(dict.fromkeys(answer.arm for answer in every))
            raise UserError(f"there are no answers of the arm {arm!r}", f"this run has: {arms}", "name one of them")
        scores = {row.question: row.primary for row in run.read_records(RunFile.SCORES, Score) if row.arm == arm}
        questions = [row for row in run.read_records(RunFile.EXAM, Question) if row.id in given]
        return {
            "folder": folder,
            "arm": arm,
            "total": len(questions),
            "first": first,
            "answers": [
                {
                    "id": row.id,
                    "ring": row.ring,
                    "question": row.question,
                    "right": list(row.golds),
                    "answer": given[row.id].text,
                    "score": scores.get(row.id),
                }
                for row in questions[rows]
            ],
        }

    def samples(self, folder: str, first: int = 0, number: int = 20) -> dict[str, Any]:
        """Read the training set of a run: its messages, and the evidence that each answer rests on."""
        rows, run = _rows(first, number), RunFolder.open(Path(folder))
        pipeline.require(run, RunFile.TRAIN)
        samples = run.read_records(RunFile.TRAIN, Sample)
        return {
            "folder": folder,
            "total": len(samples),
            "first": first,
            "samples": [sample.model_dump(mode="json", exclude_defaults=True) for sample in samples[rows]],
        }

    def compare(self, folders: list[str]) -> dict[str, Any]:
        """Compare finished runs on the same exam, such as one for each base model."""
        return document_of(["compare", "--", *folders])

    def job(self, job: str) -> dict[str, Any]:
        """Poll a job that run or preview started: its state, its last messages, and at the end its document."""
        return self._described(self._jobs[job])

    def init(self, documents: list[str], recipe: str = "recipe.toml") -> dict[str, Any]:
        """Write a recipe fitted to documents (texts, or files of chats) and to this machine; it replaces no file."""
        job = self._jobs.start(["init", "-o", recipe, "--", *documents])
        job.process.wait()
        return {**self._described(job), "recipe": recipe}

    def preview(self, recipe: str, settings: list[str] = [], folder: str = "") -> dict[str, Any]:  # noqa: B006
        """Start answering questions without any training: what can a fine-tune bring at most? Returns a job."""
        return self._described(self._jobs.start(["preview", *_options(settings, folder), "--json", "--", recipe]))

    def run(
        self,
        recipe: str,
        settings: list[str] = [],  # noqa: B006
        folder: str = "",
        until: str = "report",
    ) -> dict[str, Any]:
        """Start every stage of a recipe that is not fresh, or continue a stopped run. Returns a job.

        until: the last stage: ingest, split, exam, synth, curate, train, evaluate or report.
        """
        return self._described(self._jobs.start(["run", *_options(settings, folder), f"--until={until}", "--", recipe]))

    def stop(self, job: str) -> dict[str, Any]:
        """Interrupt a job; its finished work is kept, and run continues it."""
        return self._described(self._jobs.stop(job))

    @staticmethod
    def _described(job: Job) -> dict[str, Any]:
        state, code = job.state, job.exit_code
        described: dict[str, Any] = {
            "job": job.identity,
            "command": "tunewright " + " ".join(job.words),
            "state": state,
            "exit_code": code,
            "messages": [without_secrets(line) for line in job.last_messages()],
            "messages_file": str(job.messages),
        }
        return {**described, "document": job.document()} if state != "running" else described
