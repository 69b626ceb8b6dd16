"""The server: OpenAI's client and ``llm`` talk to it, it answers as chat does, and it is checked before it listens."""

from __future__ import annotations

import asyncio
import io
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import openai
import pytest
import urllib3

from support import TESTS
from support.gguf_folder import write_gguf
from support.serving_process import ENVIRONMENT, all_gone, children, refused, served
from support.tuned_run import SYSTEM_PROMPT, make_tuned_run
from tunewright.commands.chat import chat
from tunewright.commands.serve import serve, start_engine, tuned_gguf
from tunewright.errors import ModelError, RunFolderError, StageError, UserError
from tunewright.models.student import student_tokenizer
from tunewright.recipe import load_recipe
from tunewright.records import Answer, Question
from tunewright.run_folder import RunFolder
from tunewright.serving.app import application
from tunewright.serving.canary import Canary, require_tuned
from tunewright.serving.engine import WAITING, Completions, Piece
from tunewright.serving.listen import start_listening, take_port
from tunewright.serving.requests import RequestError, read_request

TOKEN = "a token of twenty-eight char"


@pytest.fixture(scope="module")
def server(run):
    with served(run.path, "--dtype", "f32") as (address, process):
        yield address, process


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=server[0], api_key="unused", max_retries=0)


def exam(run, arm="tuned"):
    """Return (question, answer) of an arm."""
    texts = {a.question: a.text for a in run.read_records("answers.jsonl", Answer) if a.arm == arm}
    return [(question.question, texts[question.id]) for question in run.read_records("exam.jsonl", Question)]


def ask(client, text, **options):
    turns = [{"role": "user", "content": text}]
    return client.chat.completions.create(model="tuned", messages=turns, **{"max_tokens": 12, **options})


def post(address, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **{name.replace("_", "-"): text for name, text in headers.items()}}
    return urllib3.request("POST", f"{address}/chat/completions", body=content, headers=headers)


def test_every_served_answer_is_that_of_the_exam_whole_and_streamed(run, client):
    for question, answer in exam(run):
        whole = ask(client, question)
        assert whole.choices[0].message.content.strip() == answer
        assert whole.choices[0].finish_reason == "length"
        assert whole.usage.completion_tokens == 12
        stream = list(ask(client, question, stream=True, stream_options={"include_usage": True}))
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert "".join(pieces).strip() == answer
        assert sum(bool(piece) for piece in pieces) > 3
        assert stream[-1].usage == whole.usage


@pytest.mark.slow
def test_without_a_limit_it_answers_as_chat_does(run, client, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", io.StringIO("Which group had it ?\nAnd why ?\n"))
    chat(run, ("tuned",), None)
    first, second = capsys.readouterr().out.split("\n")[:2]
    turns = [{"role": "user", "content": "Which group had it ?"}]
    reply = client.chat.completions.create(model="tuned", messages=turns)
    # Random weights come to a near tie sooner or later, and then two programs' roundings part.
    assert reply.choices[0].message.content[:300] == first[:300]
    assert reply.usage.completion_tokens == 512
    turns += [{"role": "assistant", "content": first}, {"role": "user", "content": "And why ?"}]
    reply = client.chat.completions.create(model="tuned", messages=turns)
    assert reply.choices[0].message.content[:100] == second[:100]


def test_the_system_prompt_of_training_is_put_in_where_a_chat_has_none(client):
    bare = ask(client, "Which group had it ?")
    turns = [{"role": "system", "content": SYSTEM_PROMPT}, {"role": "user", "content": "Which group had it ?"}]
    reply = client.chat.completions.create(model="tuned", messages=turns, max_tokens=12)
    assert (reply.choices[0].message.content, reply.usage) == (bare.choices[0].message.content, bare.usage)
    turns[0] = {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}
    other = client.chat.completions.create(model="tuned", messages=turns, max_tokens=12)
    assert other.usage.prompt_tokens != bare.usage.prompt_tokens


def test_sampling_stop_and_the_list_of_models(client):
    drawn = {
        ask(client, "Which group had it ?", temperature=2, seed=seed).choices[0].message.content for seed in (1, 2)
    }
    assert len(drawn) == 2
    again = [ask(client, "Which group had it ?", temperature=2, seed=1).choices[0].message.content for _ in range(2)]
    assert again[0] == again[1]
    whole = ask(client, "Which group had it ?").choices[0].message.content
    word = whole.split()[3]
    stopped = ask(client, "Which group had it ?", stop=word).choices[0]
    assert stopped.message.content.strip() == whole.partition(word)[0].strip()
    assert stopped.finish_reason == "stop"
    assert [model.id for model in client.models.list()] == ["tuned"]
    assert client.models.retrieve("tuned").owned_by == "tunewright"


@pytest.mark.parametrize(
    ("options", "code", "word"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 400, "tools"),
        ({"n": 2}, 400, "n is not supported"),
        ({"extra_body": {"top_k": 40}}, 400, "top_k is not supported"),
        ({"extra_body": {"repetition_penalty": 1.1}}, 400, "repetition_penalty is not supported"),
        ({"extra_body": {"best_of": 3}}, 400, "best_of is not supported"),
        ({"function_call": {"name": "f"}}, 400, "function_call is not supported"),
        ({"audio": {"voice": "alloy", "format": "wav"}}, 400, "audio is not supported"),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{}]}]}, 400, "messages: tool_calls"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format"),
        ({"temperature": 3}, 400, "temperature"),
        ({"extra_body": {"seed": 10**23}}, 400, "seed"),
        ({"extra_body": {"max_tokens": 10**30}}, 400, "max_tokens"),
        ({"extra_body": {"max_completion_tokens": -1}}, 400, "max_completion_tokens"),
        ({"stop": "x" * 7_000_000}, 400, "stop"),
        ({"stop": ["x"] * 1000}, 400, "stop"),
        ({"stop": [""]}, 400, "stop"),
        ({"stream_options": {str(n): n for n in range(100)}}, 400, "stream_options"),
        ({"model": "x" * 7_000_000}, 400, "model"),
        ({"messages": [{"role": "user", "content": "a"}] * 5000}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "a" * 3_000_000}]}, 400, "content"),
        ({"extra_body": {"temperature": "1e999"}}, 400, "temperature"),
        ({"model": "base"}, 404, "there is 'tuned'"),
    ],
)
def test_what_is_not_supported_is_refused_not_ignored(client, options, code, word):
    turns = [{"role": "user", "content": "Which ?"}]
    with pytest.raises(openai.APIStatusError, match=word) as reply:
        client.chat.completions.create(**{"model": "tuned", "messages": turns, **options})
    assert reply.value.status_code == code


def test_odd_requests_get_an_answer_that_names_the_fault(server):
    address, process = server
    good = {"messages": [{"role": "user", "content": "Which ?"}], "max_tokens": 2}
    assert post(address, good).status == 200
    assert post(address, b"{").status == 400
    digits = b"1" * 5000
    assert post(address, json.dumps(good).encode()[:-1] + b', "seed": ' + digits + b"}").status == 400
    assert post(address, json.dumps(good).encode()[:-1] + b', "user": ' + digits + b"}").status == 400
    assert (
        post(address, json.dumps(good).encode()[:-1] + b', "user": ' + b"[" * 5000 + b"]" * 5000 + b"}").status == 400
    )
    assert post(address, {"messages": []}).status == 400
    assert post(address, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}).status == 400
    long = post(address, {"messages": [{"role": "user", "content": "found " * 5000}]})
    assert (long.status, long.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert post(address, b"x" * (9 << 20)).status == 413
    assert post(address, good, Content_Type="text/plain").status == 415
    assert post(address, good, Host="evil.example").status == 403
    assert post(address, good, Host="localhost:1").status == 200
    for origin in (
        "http://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://evil.example:80",
        "file://",
        "",
    ):
        reply = post(address, good, Origin=origin)
        assert (reply.status, reply.json()["error"]["code"]) == (403, "wrong_origin")
        assert not any("access-control" in name.lower() for name in reply.headers)
    for origin in ("http://localhost:3000", "https://127.0.0.1", "http://[::1]:8080"):
        assert post(address, good, Origin=origin).status == 200
    asked = urllib3.request("OPTIONS", f"{address}/chat/completions", headers={"Origin": "http://evil.example"})
    assert asked.status == 403
    missing = urllib3.request("GET", f"{address}/embeddings")
    assert (missing.status, "there is GET /health" in missing.json()["error"]["message"]) == (404, True)
    health = urllib3.request("GET", f"{address.removesuffix('/v1')}/health")
    assert health.json() == {"status": "ok", "model": "tuned", "engine": "llama.cpp"}
    assert process.poll() is None


def test_what_changes_no_answer_is_let_in(client):
    plain = ask(client, "Which group had it ?")
    idle = {"user": "me", "store": False, "metadata": {"a": "b"}, "service_tier": "auto", "parallel_tool_calls": True}
    same = {"n": 1, "tools": [], "logprobs": False, "tool_choice": "auto", "extra_body": {"top_k": -1, "best_of": 1}}
    reply = ask(client, "Which group had it ?", **idle, **same)
    assert reply.choices[0].message.content == plain.choices[0].message.content
    turns = [{"role": "user", "content": "Which group had it ?", "name": "me"}, plain.choices[0].message.model_dump()]
    turns.append({"role": "user", "content": "Why ?"})
    assert client.chat.completions.create(model="tuned", messages=turns, max_tokens=2).usage.completion_tokens == 2


def test_a_client_that_leaves_lets_the_next_one_in(client):
    with ask(client, "Which group had it ?", stream=True, max_tokens=3000) as stream:
        next(iter(stream))
    assert ask(client, "Which group had it ?").choices[0].finish_reason == "length"


def test_the_engine_itself_asks_for_a_key_too(server):
    _, process = server
    lines = subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True).stdout.splitlines()
    inner = [line.split()[3] for line in lines if any(f"pid={pid}," in line for pid in children(process.pid))]
    assert len(inner) == 1
    body = {"prompt": [1, 2], "max_tokens": 1}
    assert urllib3.request("POST", f"http://{inner[0]}/v1/completions", json=body).status == 401


def test_the_llm_command_talks_to_it(run, server, tmp_path):
    address, _ = server
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: mine\n  model_name: tuned\n  api_base: {address}\n  api_key_name: mine\n"
    )
    question, answer = exam(run)[0]
    environment = {**ENVIRONMENT, "LLM_USER_PATH": str(tmp_path)}
    for options in ([], ["--no-stream"]):
        words = [sys.executable, "-m", "llm", "-m", "mine", "--key", "unused", "-o", "max_tokens", "12", *options]
        reply = subprocess.run([*words, question], capture_output=True, text=True, env=environment, timeout=120)
        assert reply.stdout.strip() == answer, reply.stderr


def test_the_file_is_written_once_and_again_for_another_adapter(run, server, monkeypatch):
    recipe = load_recipe(run.file("recipe.toml"))
    before = run.file("serving/f32/model.gguf").stat().st_mtime_ns
    assert tuned_gguf(run, recipe, "f32").stat().st_mtime_ns == before
    copy = RunFolder.create(run.path.parent / "copy")
    for name in ("adapter", "serving"):
        shutil.copytree(run.file(name), copy.file(name))
    config = json.loads(copy.file("adapter/adapter_config.json").read_text())
    copy.write_json("adapter/adapter_config.json", {**config, "lora_alpha": 1})
    old = copy.file("serving/f32/model.gguf").read_bytes()
    assert tuned_gguf(copy, recipe, "f32").read_bytes() != old
    assert {path.name for path in copy.file("serving").rglob("*")} == {"f32", "model.gguf", "made-from"}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_however_it_ends_no_child_is_left(run, number):
    with served(run.path, "--dtype", "f32") as (address, process):
        engine = children(process.pid)
        assert engine
        with openai.OpenAI(base_url=address, api_key="unused").chat.completions.create(
            model="tuned", messages=[{"role": "user", "content": "Which ?"}], stream=True, max_tokens=3000
        ) as stream:
            next(iter(stream))
            process.send_signal(number)
            assert process.wait(timeout=60) == 0
        assert all_gone(engine)
        reply = process.stderr.read()
        assert "stopped" in reply
        assert "Traceback" not in reply


def test_with_the_adapter_withheld_it_refuses_to_start(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    file = copy / "serving" / "f32" / "model.gguf"
    student = run.path.parent / "student"
    write_gguf(student, file, "f32")
    code, reply = refused(copy, "--dtype", "f32")
    assert code == 3
    assert "the adapter is not applied" in reply
    assert "it answers 0 word for word as tuned did, 6 as the base" in reply


def test_a_run_whose_tune_changed_nothing_is_refused(run, tmp_path):
    same = make_tuned_run(tmp_path / "same", run.path.parent / "student", change=0.0)
    with pytest.raises(RunFolderError, match="both gave the same answer to all 6 exam questions"):
        serve(same, "127.0.0.1", 0, "llama.cpp", "f32")


def test_an_adapter_that_was_not_evaluated_is_refused(run, tmp_path, capsys):
    from safetensors.torch import load_file, save_file

    copy = tmp_path / "run"
    shutil.copytree(run.path, copy)
    file = copy / "adapter" / "adapter_model.safetensors"
    save_file({name: value.flip(0) for name, value in load_file(file).items()}, file, metadata={"format": "pt"})
    with pytest.raises(StageError, match="not the evaluated one"):
        serve(RunFolder(copy), "127.0.0.1", 0, "llama.cpp", "f16")
    assert capsys.readouterr().out == ""


def test_a_family_that_llama_cpp_does_not_know_is_served_by_transformers(run, monkeypatch, capsys):
    def unknown(*arguments):
        raise ModelError("no GGUF is written of this family")

    monkeypatch.setattr("tunewright.serving.llama_cpp.write_model_file", unknown)
    recipe = load_recipe(run.file("recipe.toml"))
    tokenizer = student_tokenizer(recipe)
    with start_engine(run, recipe, "auto", "q8_0", tokenizer) as engine:
        assert engine.name == "transformers"
    assert "llama.cpp cannot (no GGUF is written of this family)" in capsys.readouterr().err
    with (
        pytest.raises(ModelError, match=r"llama\.cpp cannot serve this model"),
        start_engine(run, recipe, "llama.cpp", "q8_0", tokenizer),
    ):
        pass
    with (
        pytest.raises(UserError, match="vLLM cannot serve this run"),
        start_engine(run, recipe, "vllm", "q8_0", tokenizer),
    ):
        pass


def test_what_is_missing_is_an_error_before_anything_is_loaded(run, tmp_path, monkeypatch):
    def failure(folder, host="127.0.0.1", port=0):
        with pytest.raises(UserError) as error:
            serve(folder, host, port, "auto", "f32")
        assert error.value.hint
        return str(error.value)

    assert "no token protects 0.0.0.0" in failure(run, "0.0.0.0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "in use" in failure(run, port=taken.getsockname()[1])
    bare = RunFolder.create(tmp_path / "bare")
    bare.write("recipe.toml", run.file("recipe.toml").read_bytes())
    assert "has no adapter yet" in failure(bare)
    shutil.copytree(run.file("adapter"), bare.file("adapter"))
    assert "has no exam.jsonl yet" in failure(bare)
    bare.write("exam.jsonl", run.file("exam.jsonl").read_bytes())
    alone = [a for a in run.read_records("answers.jsonl", Answer) if a.arm == "tuned"]
    bare.write_records("answers.jsonl", alone)
    assert "no question answered by both base and tuned" in failure(bare)
    monkeypatch.setenv("TUNEWRIGHT_SERVE_TOKEN", "a short one")
    short = failure(run, "0.0.0.0")
    assert "too short" in short
    assert "a short one" not in short
    monkeypatch.setenv("TUNEWRIGHT_SERVE_TOKEN", TOKEN)
    assert "cannot listen on 203.0.113.7" in failure(run, "203.0.113.7")


def test_every_endpoint_needs_the_token(run):
    with served(run.path, "--dtype", "f32", "--host", "0.0.0.0", TUNEWRIGHT_SERVE_TOKEN=TOKEN) as (address, _):
        address = address.replace("0.0.0.0", "127.0.0.1")
        root = address.removesuffix("/v1")
        for path in ("/health", "/v1/models", "/v1/models/tuned", "/v1/chat/completions", "/", "/nowhere"):
            for method in ("GET", "POST", "OPTIONS"):
                assert urllib3.request(method, root + path).status == 401
                wrong = urllib3.request(method, root + path, headers={"Authorization": f"Bearer {TOKEN}x"})
                assert (wrong.status, wrong.headers["WWW-Authenticate"]) == (401, "Bearer")
        with pytest.raises(openai.AuthenticationError, match="token"):
            ask(openai.OpenAI(base_url=address, api_key="wrong", max_retries=0), "Which ?")
        reply = ask(openai.OpenAI(base_url=address, api_key=TOKEN, max_retries=0), exam(run)[0][0])
        assert reply.choices[0].message.content.strip() == exam(run)[0][1]


@pytest.fixture
def vllm(tmp_path):
    """A folder whose ``vllm`` is the stand-in."""
    script = tmp_path / "bin" / "vllm"
    script.parent.mkdir()
    stand_in = shlex.join([sys.executable, str(TESTS / "support" / "stand_in_vllm.py")])
    script.write_text(f'#!/bin/sh\nexec {stand_in} "$@"\n', encoding="utf-8")  # no first line holds a path with spaces
    script.chmod(0o755)
    return f"{script.parent}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.slow
def test_vllm_serves_where_it_is_and_ends_with_us(run, vllm):
    with served(run.path, cuda=True, PATH=vllm) as (address, process):
        health = urllib3.request("GET", f"{address.removesuffix('/v1')}/health")
        assert health.json()["engine"] == "vLLM"
        reply = ask(openai.OpenAI(base_url=address, api_key="unused"), exam(run)[1][0]).choices[0]
        assert reply.message.content.strip() == exam(run)[1][1]
        engine = children(process.pid)
        assert engine
        process.kill()
        process.wait(timeout=30)
        assert all_gone(engine)


@pytest.mark.slow
def test_vllm_without_the_adapter_is_refused_and_one_that_fails_gives_its_reason(run, vllm):
    code, reply = refused(run.path, cuda=True, PATH=vllm, WITHHOLD_THE_ADAPTER="1")
    assert (code, "the adapter is not applied" in reply) == (3, True)
    Path(vllm.split(os.pathsep)[0], "vllm").write_text("#!/bin/sh\necho no memory left >&2\nexit 1\n")
    code, reply = refused(run.path, "--engine", "vllm", cuda=True, PATH=vllm)
    assert (code, "vLLM does not start" in reply, "no memory left" in reply) == (3, True, True)


def test_where_vllm_does_not_start_the_next_engine_serves(run, tmp_path, monkeypatch, capsys):
    script = tmp_path / "bin" / "vllm"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho no memory left >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("tunewright.serving.vllm.vllm_missing", lambda: "")
    recipe = load_recipe(run.file("recipe.toml"))
    with start_engine(run, recipe, "auto", "f32", student_tokenizer(recipe)) as engine:
        assert engine.name == "llama.cpp"
    printed = " ".join(capsys.readouterr().err.split())
    assert "vLLM does not start (no memory left)" in printed
    with (
        pytest.raises(StageError, match="vLLM does not start"),
        start_engine(run, recipe, "vllm", "f32", student_tokenizer(recipe)),
    ):
        pass


@pytest.mark.parametrize(("base", "tuned"), [("Yes. It is.", "Yes."), ("Yes.", ""), ("Yes.", "Yes. It is.")])
def test_the_tuned_answer_leans_to_tuned_wherever_the_base_differs(base, tuned):
    canary = Canary([1], base, tuned)
    assert (canary.leans(tuned), canary.leans(base)) == ("tuned", "base")
    assert require_tuned([canary] * 4, [tuned] * 4, "") == (
        "of 4 exam questions, it answers 4 word for word as tuned did, 0 as the base"
    )


def test_a_second_server_fails_before_it_loads_anything():
    with take_port("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match="cannot listen on 127.0.0.1"):
            take_port("127.0.0.1", port)
        start_listening(listener)
        with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0] as ours:
            ours.close()  # ours first, so that it is our end that lingers
            assert client.recv(1) == b""
    # At once, though the ended connection still bears the port; only then can two be bound to it.
    with take_port("127.0.0.1", port) as again, take_port("127.0.0.1", port) as other:
        start_listening(again)
        with pytest.raises(UserError, match="cannot listen on 127.0.0.1"):
            start_listening(other)


def test_health_answers_while_many_wait_for_the_engine():
    entered, gate = threading.Semaphore(0), threading.Event()

    def answer(asked):
        entered.release()
        gate.wait(60)
        return 1, iter([Piece("yes"), Piece("", "stop", 1)])

    async def go():
        app = application(Completions("an engine", "http://127.0.0.1:9", "", 64), answer, "", "127.0.0.1")
        asked = {"messages": [{"role": "user", "content": "Which ?"}]}
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1", timeout=60) as client:
            waiting = [asyncio.create_task(client.post("/v1/chat/completions", json=asked)) for _ in range(WAITING + 5)]
            try:
                async with asyncio.timeout(30):
                    for _ in range(WAITING):
                        while not entered.acquire(blocking=False):
                            await asyncio.sleep(0.01)
                    assert (await client.get("/health")).json()["engine"] == "an engine"
            finally:
                gate.set()
            assert {reply.status_code for reply in await asyncio.gather(*waiting)} == {200}

    asyncio.run(go())


@pytest.mark.parametrize(
    "field",
    [
        *(
            '"seed": true',
            '"max_tokens": true',
            '"max_tokens": "5"',
            '"temperature": "1"',
            '"stream": "yes"',
            '"stream": 1',
        ),
        *('"messages": [{"role": "user", "content": [{"type": "text", "text": {"a": 1}}]}]', '"stop": [1]'),
    ],
)
def test_a_value_of_another_type_is_refused(field):
    """Not read as what it is not: true as 1, an object as its text."""
    with pytest.raises(RequestError) as refused:
        read_request(f'{{"messages": [{{"role": "user", "content": "a"}}], {field}}}'.encode())
    assert refused.value.status == 400
    assert field.split('"')[1] in refused.value.message
