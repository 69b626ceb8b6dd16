"""The server for agents, by the library's own client: reading in process and by stdio, runs started and polled."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import anyio
import jsonschema
import pytest
from mcp import Client, MCPError, StdioServerParameters

from support import ABSTRACTS, ROOT, finished_run
from support.faulty_server import fake_teacher
from support.json_output import SCHEMAS
from support.whole_path import asks
from tunewright.commands.mcp import server

WRITING = {"init", "preview", "run", "stop"}


async def call(client, tool, **arguments):
    """Return what a tool answers, checked against its schema where it names one."""
    result = await client.call_tool(tool, arguments)
    document = result.structured_content
    assert json.loads(result.content[0].text) == document
    if "schema" in document:
        jsonschema.validate(document, SCHEMAS[document["schema"]])
    assert result.is_error == (document.get("schema") == "tunewright/error/1")
    return document


async def end_of(client, job, pause_s=0.2):
    """Poll a job until it ends; return it."""
    while job["state"] == "running":
        await anyio.sleep(pause_s)
        job = await call(client, "job", job=job["job"])
    return job


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return finished_run.write(tmp_path_factory.mktemp("runs") / "run")[0]


def test_without_the_flag_an_agent_can_only_read(finished):
    async def session():
        async with Client(server(allow_runs=False)) as client:
            tools = (await client.list_tools()).tools
            assert not WRITING & {tool.name for tool in tools}
            assert all(tool.annotations.read_only_hint for tool in tools)
            assert "--allow-runs" in client.instructions
            before = {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")}
            assert (await call(client, "status", folder=str(finished.path)))["verdict"]
            damaged = await call(client, "verdict", folder=str(finished.path))  # the records of its stages are no run's
            assert "not as it was made" in damaged["headline"]
            some = await call(client, "answers", folder=str(finished.path), first=2, number=3)
            rows = [json.loads(line) for line in finished.file("exam.jsonl").read_text().splitlines()]
            assert [row["question"] for row in some["answers"]] == [row["question"] for row in rows[2:5]]
            assert all(0 <= row["score"] <= 1 for row in some["answers"])
            assert some["total"] == len(rows)
            assert {path: path.stat().st_mtime_ns for path in finished.path.rglob("*")} == before

    anyio.run(session)


def test_failures_are_documents_with_the_next_step(finished, tmp_path):
    async def session():
        async with Client(server(allow_runs=True)) as client:
            folder = str(finished.path)
            assert (await call(client, "status", folder=str(tmp_path)))["code"] == "run-folder"
            assert "1 to 100" in (await call(client, "samples", folder=folder, number=1000))["cause"]
            assert "tuned" in (await call(client, "answers", folder=folder, arm="Tuned"))["cause"]
            assert "no job" in (await call(client, "job", job="7"))["headline"]
            option = await call(client, "plan", recipe="--prove")  # a model's words are never options
            assert "no recipe at --prove" in option["headline"]
            text = finished.file("exam.jsonl").read_text()
            finished.file("exam.jsonl").write_text(text.replace('"gold":"', '"gold":"not ', 1))
            assert "seal" in (await call(client, "verdict", folder=folder))["headline"]
            finished.file("exam.jsonl").write_text(text)

    anyio.run(session)


def test_over_stdio_a_run_returns_at_once_is_polled_and_can_be_stopped(tmp_path):
    stdio = StdioServerParameters(
        command=sys.executable,
        args=["-m", "tunewright", "mcp", "--allow-runs"],
        cwd=str(tmp_path),
        env=dict(os.environ),
    )
    (tmp_path / "recipe.toml").write_text(f'[documents]\npaths = ["{ABSTRACTS}"]\n')

    async def session():
        async with Client(stdio) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} >= WRITING
            job = await call(client, "run", recipe="recipe.toml", until="ingest")
            assert job["state"] == "running"
            assert "still running" in (await call(client, "run", recipe="recipe.toml"))["headline"]
            job = await end_of(client, job)
            assert (job["state"], job["exit_code"]) == ("done", 0)
            assert any("ingest" in line for line in job["messages"])
            states = {
                row["stage"]: row["state"] for row in (await call(client, "status", folder="runs/recipe"))["stages"]
            }
            assert states["ingest"] == "fresh"
            assert states["exam"] == "new"
            failed = await end_of(client, await call(client, "run", recipe="none.toml"))
            assert (failed["state"], failed["exit_code"]) == ("failed", 1)
            assert any("hint: write one" in line for line in failed["messages"])

    anyio.run(session)


def servers():
    """Return the servers that this process started."""
    children = [path.read_text().split() for path in Path("/proc/self/task").glob("*/children")]
    commands = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for own in children for child in own}
    return [process for process, command in commands.items() if b"\0mcp\0" in command]


@pytest.mark.slow  # the same client reads a verdict and polls a run above
def test_an_agent_reaches_a_verdict_through_the_server_alone(tmp_path, tiny_model):
    stdio = StdioServerParameters(
        command=sys.executable,
        args=["-m", "tunewright", "mcp", "--allow-runs"],
        cwd=str(tmp_path),
        env=dict(os.environ),
    )

    async def session(url):
        settings = [
            f'model.base="{tiny_model}"', 'model.quantization="none"', f'teacher.url="{url}"', 'teacher.model="fake"',
            "exam.learned_per_document=1", "exam.unseen_per_document=2", "exam.retention_items=24",
            "exam.kinds=['free']", "synthesis.samples_per_document=4", "training.epochs=1", "training.rank=4",
            'retrieval.model=""', "evaluation.max_new_tokens=8",
        ]  # fmt: skip
        async with Client(stdio) as client:
            written = await call(client, "init", documents=[str(ABSTRACTS)], recipe="mine.toml")
            assert written["exit_code"] == 0, written
            recipe = {"recipe": "mine.toml", "settings": settings}
            plan = await call(client, "plan", **recipe)
            assert plan["memory"]["total"] > 0
            preview = await end_of(client, await call(client, "preview", **recipe), 1.0)
            assert preview["document"]["preview"]["advice"], preview
            started = time.monotonic()
            await call(client, "run", **recipe)
            assert time.monotonic() - started < 5  # at once, whatever the run takes
            for process in servers():
                os.kill(process, signal.SIGKILL)
            with pytest.raises(MCPError):
                await call(client, "status", folder="runs/mine")
        async with Client(stdio) as client:  # the run went on, and a new server sees its end
            with anyio.fail_after(300):
                while not (await call(client, "status", folder="runs/mine")).get("verdict"):
                    await anyio.sleep(1.0)
            job = await end_of(client, await call(client, "run", **recipe), 1.0)
            assert job["exit_code"] == 0
            report = await call(client, "verdict", folder="runs/mine")
            assert report["verdict"]["why"]
            assert (await call(client, "samples", folder="runs/mine", number=1))["total"] > 0
            exam = await call(client, "exam", folder="runs/mine", number=2)
            assert len(exam["questions"]) == 2

    with fake_teacher(asks) as teacher:
        anyio.run(session, teacher.url)
    assert (tmp_path / "runs" / "mine" / "report.html").exists()


def test_the_page_for_agents_names_every_tool():
    page = (ROOT / "docs" / "agents.md").read_text(encoding="utf-8")

    async def session():
        async with Client(server(allow_runs=True)) as client:
            return [tool.name for tool in (await client.list_tools()).tools]

    for name in anyio.run(session):
        assert f"| `{name}` |" in page
