"""Chat: one question, a pipe, a real terminal; models that alternate, commands, Ctrl-C and the sources of an answer."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest

from support.tuned_run import make_speaking_model, make_tuned_run
from tunewright.chat.loop import COMMANDS
from tunewright.chat.models import ChatModels, Turn, prompt_for
from tunewright.commands.chat import chat
from tunewright.commands.trace import show_trace
from tunewright.errors import UserError
from tunewright.recipe import load_recipe
from tunewright.run_folder import RunFolder

ENVIRONMENT = {**os.environ, "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "120", "LINES": "40", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chat")
    return make_tuned_run(folder / "my run", make_speaking_model(folder / "student"))


@pytest.fixture
def piped(run, monkeypatch, capsys):
    """A function from piped lines to what chat writes to (stdout, stderr)."""
    monkeypatch.setattr("tunewright.chat.models.MAX_NEW_TOKENS", 12)

    def chat_with(*lines, arms=("tuned",)):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        chat(run, arms, None)
        return capsys.readouterr()

    return chat_with


def answers(run, *arms):
    from tunewright.records import Answer

    return [a.text for arm in arms for a in run.read_records("answers.jsonl", Answer) if a.arm == arm]


def test_the_answer_is_the_one_of_the_exam(run, piped):
    assert piped("Which group had it ?").out.strip() == answers(run, "tuned")[0]
    assert piped("Which group had it ?", arms=("base",)).out.strip() == answers(run, "base")[0]
    assert answers(run, "tuned")[0] != answers(run, "base")[0]


def test_a_prompt_in_another_encoding_is_answered(run, capsys, monkeypatch):
    monkeypatch.setattr("tunewright.chat.models.MAX_NEW_TOKENS", 12)
    chat(run, ("tuned",), "Which group had it\udcff ?")
    assert capsys.readouterr().out.strip()


def test_models_switch_and_both_answer_by_name(run, piped):
    base, tuned = answers(run, "base")[0], answers(run, "tuned")[0]
    shown = piped("/base", "Which group had it ?", "/reset", "/tuned", "Which group had it ?")
    assert [line.strip() for line in shown.out.splitlines()] == [base, tuned]
    shown = piped("/both", "Which group had it ?")
    assert [line.split() for line in shown.out.splitlines()] == [["base:", *base.split()], ["tuned:", *tuned.split()]]


def test_alternating_models_answer_as_each_does_alone(run):
    models = ChatModels(load_recipe(run.file("recipe.toml")), run.file("adapter"))
    for arm in ("base", "tuned"):
        models.load(arm)
    ids = models.prompt_ids("base", "Which group had it ?", [])

    def alone(arm):
        pieces = models.answer(arm, ids)
        return [next(pieces) for _ in range(10)]

    expected = {arm: alone(arm) for arm in ("base", "tuned")}
    streams = {arm: models.answer(arm, ids) for arm in ("base", "tuned")}
    mixed = {"base": [], "tuned": []}
    for _ in range(10):
        for arm, stream in streams.items():
            mixed[arm].append(next(stream))
    assert mixed == expected
    assert expected["base"] != expected["tuned"]


def test_a_prompt_has_the_models_own_answers_and_others_in_their_place():
    turns = [Turn("one", {"base": "b1", "tuned": "t1"}), Turn("two", {"tuned": "t2"})]
    assert [m.content for m in prompt_for("base", "three", turns, "be brief")] == [
        "be brief",
        "one",
        "b1",
        "two",
        "t2",
        "three",
    ]
    assert [m.role for m in prompt_for("base", "three", (), "")] == ["user"]


def test_the_oldest_turns_go_where_all_do_not_fit(run, capsys):
    models = ChatModels(load_recipe(run.file("recipe.toml")), run.file("adapter"))
    turns = [Turn(f"question {n} " + "found " * 600, {"tuned": "found"}) for n in range(8)]
    ids = models.prompt_ids("tuned", "and now ?", turns)
    assert len(ids) <= 4096 - 512
    shown = capsys.readouterr().err
    kept = int(re.search(r"room for the last (\d) of 8 turns", shown)[1])
    text = models.tokenizer.decode(ids)
    assert f"question {8 - kept} " in text
    assert f"question {7 - kept} " not in text
    with pytest.raises(UserError, match="too long"):
        models.prompt_ids("tuned", "found " * 4000, [])


def test_why_names_samples_and_passages_that_trace_takes(run, piped, capsys):
    shown = piped("Did owls keep away from street lamps?", "/why")
    sources = re.findall(r"^(sample|passage) (\w+) ", shown.err, re.MULTILINE)
    assert sources[0] == ("sample", "s2")
    assert ("passage", "c2") in sources
    assert "evidence characters 37–97: Fewer owls were heard" in shown.err
    assert "Owls" in shown.err
    assert "sample" not in shown.out
    for _, identifier in sources:
        show_trace(run, identifier)
    assert "there is no answer yet" in piped("/why").err


def test_copy_appends_and_reports_it(run, piped, tmp_path):
    page = tmp_path / "a page.md"
    page.write_text("mine\n")
    shown = piped("Which group had it ?", f"/copy {page}", f"/copy {tmp_path}", "/copy", f"/copy {tmp_path}/new.md")
    assert page.read_text().startswith("mine\n\n# A conversation with my run")
    assert f"**tuned**\n\n{shown.out.splitlines()[0]}" in page.read_text()
    assert f"{page} exists" in shown.err
    assert f"cannot write {tmp_path}" in shown.err
    assert "/copy FILE" in shown.err
    assert "**you**\n\nWhich group had it ?" in (tmp_path / "new.md").read_text()


def test_copy_to_a_home_that_is_not_there_ends_no_chat(piped):
    shown = piped("Which group had it ?", "/copy ~nobody-here/x.md", "/copy a\0b", "/quit")
    assert "cannot write ~nobody-here/x.md" in shown.err
    assert shown.err.count("cannot write") == 2


def test_help_and_unknown_commands_list_all_and_answer_nothing(piped):
    shown = piped("/help", "/frobnicate now", "/quit", "never asked")
    assert shown.out == ""
    assert all(shown.err.count(name) >= 2 for name in (*COMMANDS, "/quit"))
    assert "there is no /frobnicate" in shown.err


def test_reset_forgets(piped):
    again = piped("Which group had it ?", "/reset", "Which group had it ?").out.splitlines()
    assert again[0] == again[1]
    assert len(set(piped("Which group had it ?", "Which group had it ?").out.splitlines())) == 2


def test_base_alone_needs_no_adapter_and_the_error_for_tuned_has_a_hint(run, tmp_path, monkeypatch, capsys):
    bare = RunFolder.create(tmp_path / "bare")
    bare.write("recipe.toml", run.file("recipe.toml").read_bytes())
    monkeypatch.setattr(sys, "stdin", io.StringIO("/tuned\n"))
    with pytest.raises(UserError, match="has no adapter yet"):
        chat(bare, ("base",), None)


class Terminal:
    """The command at a terminal of its own: what it shows, what is typed, and Ctrl-C."""

    def __init__(self, *arguments, **environment):
        self.shown = ""
        self.pid, self.handle = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [sys.executable, "-m", "tunewright", *arguments], {**ENVIRONMENT, **environment})
        subprocess.run(["stty", "cols", "120", "rows", "40", "-F", os.ttyname(self.handle)], check=False)

    def until(self, word, within_s=120):
        """Return what is shown up to a word; what comes behind it waits for the next call."""
        deadline = time.monotonic() + within_s
        while word not in self.shown:
            if not select.select([self.handle], [], [], max(0, deadline - time.monotonic()))[0]:
                raise AssertionError(f"no {word!r} within {within_s} s: {self.shown[-2000:]!r}")
            try:
                self.shown += os.read(self.handle, 65536).decode(errors="replace")
            except OSError as end:
                raise AssertionError(f"ended without {word!r}: {self.shown[-2000:]!r}") from end
        shown, _, self.shown = self.shown.partition(word)
        return shown

    def type(self, text):
        os.write(self.handle, text.encode())

    def ends(self):
        """Return the exit code."""
        with contextlib.suppress(OSError):
            while os.read(self.handle, 65536):
                pass
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.mark.slow
def test_at_a_terminal_two_columns_grow_ctrl_c_keeps_the_conversation_and_ctrl_d_leaves(run, tmp_path):
    terminal = Terminal("chat", str(run.path), "--side-by-side")
    terminal.until("> ")
    terminal.type("Which group had it ?\r")
    terminal.until("collection ")  # a line of an answer, under its name
    terminal.type("\x03")
    shown = terminal.until("the conversation continues")
    assert re.search(r"base {40,}.*tuned", shown)
    assert "base: " not in shown
    assert "Traceback" not in shown
    terminal.until("> ")
    page = tmp_path / "kept.md"
    terminal.type(f"/copy {page}\r")
    terminal.until("written to")
    terminal.until("> ")
    kept = page.read_text()
    assert "Which group had it ?" in kept
    assert re.search(r"\*\*base\*\*\n\n ?collection", kept)
    assert len(kept.split()) < 1000
    time.sleep(1)  # readline looks for signals only once it waits for keys
    terminal.type("\x03")
    terminal.until("Ctrl-D leaves")
    terminal.until("> ")
    terminal.type("\x04")
    assert terminal.ends() == 0


@pytest.mark.slow
def test_ctrl_c_through_a_pipe_ends_with_130(run):
    command = [sys.executable, "-m", "tunewright", "chat", str(run.path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    ) as chat:
        chat.stdin.write("Which group had it ?\n")
        chat.stdin.flush()
        assert chat.stdout.read(1)
        chat.send_signal(signal.SIGINT)
        assert chat.wait(timeout=60) == 130  # with stdin open: it waits for a question even if the answer has ended
        shown = chat.stderr.read()
        assert "Traceback" not in shown
        assert "finished work is kept" not in shown  # a chat is not
