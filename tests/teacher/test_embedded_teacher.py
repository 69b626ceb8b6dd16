"""The real embedded server: a few calls."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tunewright.errors import TeacherError
from tunewright.models.llama_cpp_process import num_threads
from tunewright.models.source import gguf_path
from tunewright.records import Message
from tunewright.run_folder import RunFolder
from tunewright.settings import TeacherSettings
from tunewright.teacher import Request, open_teacher
from tunewright.teacher.teacher import serve_embedded


def ask(text: str) -> Request:
    return Request((Message(role="user", content=text),), 8, 0.0, 0)


def test_answers_do_not_depend_on_the_calls_before(tmp_path):
    requests = [ask("Name a color."), ask("Name a color of the sky.")]
    texts = []
    for name, order in (("a", requests), ("b", requests[::-1])):
        run = RunFolder.create(tmp_path / name)
        with open_teacher(run.journal("teacher.jsonl"), TeacherSettings(), "synth") as teacher:
            replies = teacher.ask_all(order, "asking")
            assert teacher.num_calls == 2
            assert teacher.num_tokens > 0
        texts.append([reply.text for reply in (replies if order is requests else replies[::-1])])
    assert texts[0] == texts[1]
    assert all(texts[0])


def test_a_raw_text_is_completed_and_ends_at_a_stop_text(tmp_path):
    raw = "<|im_start|>user\nName three colors of the rainbow.<|im_end|>\n<|im_start|>assistant\n"
    free = Request((), 24, 0.0, 0, raw=raw)
    with open_teacher(
        RunFolder.create(tmp_path / "run").journal("teacher.jsonl"), TeacherSettings(), "synth"
    ) as teacher:
        whole = teacher.ask_all([free], "asking")[0]
        assert whole
        assert len(whole.text) > 8
        mark = whole.text[4:7]
        cut = teacher.ask_all([Request((), 24, 0.0, 0, raw=raw, stop=(mark,))], "asking")[0]
    assert cut
    assert cut.finish == "stop"
    assert cut.text == whole.text[: whole.text.index(mark)]


def test_a_journalled_stage_starts_no_server(tmp_path, monkeypatch):
    run = RunFolder.create(tmp_path / "run")
    request = ask("Name a color.")
    entry = {"key": request.key("m"), "text": "Blue.", "finish": "stop", "num_prompt_tokens": 1, "num_tokens": 1}
    monkeypatch.setattr("tunewright.models.source.IDENTITY", "m")
    monkeypatch.setattr("tunewright.models.source.gguf_path", lambda: pytest.fail("the model is not needed"))
    run.journal("teacher.jsonl").append(entry)
    with open_teacher(run.journal("teacher.jsonl"), TeacherSettings(), "synth") as teacher:
        assert [reply.text for reply in teacher.ask_all([request], "asking")] == ["Blue."]


def test_a_server_that_cannot_start_is_an_error_with_its_cause(tmp_path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"no model")
    with pytest.raises(TeacherError, match="does not start") as caught, serve_embedded(broken):
        pass
    assert caught.value.cause


def _running(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_server_dies_with_a_killed_parent():
    code = (
        "import sys, time; from pathlib import Path; from tunewright.teacher.teacher import serve_embedded\n"
        "with serve_embedded(Path(sys.argv[1])) as address:\n"
        "    children = Path('/proc/self/task').glob('*/children')\n"
        "    print(' '.join(p.read_text() for p in children), flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(gguf_path())], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    (server,) = map(int, parent.stdout.readline().split())
    assert _running(server)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 20
    while _running(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _running(server)


def test_threads_stay_within_what_the_process_may_use():
    assert 1 <= num_threads() <= len(os.sched_getaffinity(0))
