"""A chat: questions from the keyboard or a pipe, answers streamed, and the commands that begin with a slash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tunewright import console
from tunewright.chat.models import Turn, Voices, append_to, as_markdown
from tunewright.chat.sources import Sources
from tunewright.chat.terminal import at_keyboard, lines, stoppable
from tunewright.errors import TunewrightError
from tunewright.pipeline import require
from tunewright.recipe import at_home, load_recipe
from tunewright.run_folder import RunFile, RunFolder
from tunewright.settings import Arm


@dataclass
class Chat:
    """A conversation under way: who speaks, what was said, and whether somebody sits at the keyboard."""

    run: RunFolder
    speakers: Voices
    voices: tuple[str, ...]
    keyboard: bool
    turns: list[Turn] = field(default_factory=list)
    sources: Sources | None = None


def converse(run: RunFolder, voices: Sequence[str], prompt: str | None) -> None:
    """Answer one prompt, or each line of standard input until it ends; the conversation so far is kept.

    Answers go to stdout, all else to stderr. A line that begins with a slash is a command.

    Args:
        run: a run folder.
        voices: "base", "tuned" or both, until a command names others.
        prompt: one question, or None to read lines.
    """
    require(run, RunFile.RECIPE, *((RunFile.ADAPTER,) if Arm.TUNED in voices else ()))
    keyboard = prompt is None and at_keyboard()
    chat = Chat(run, Voices(run, load_recipe(run.file(RunFile.RECIPE))), tuple(voices), keyboard)
    for voice in voices:
        chat.speakers.load(voice)
    if prompt is not None:
        _ask(chat, prompt)
        return
    if keyboard:
        console.line("ask a question; /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves", "dim")
    for line in lines():
        if line == "/quit":
            return
        try:
            _obey(chat, line) if line.startswith("/") else _ask(chat, line)
        except TunewrightError as error:
            if not keyboard:
                raise
            console.error(error)


def _ask(chat: Chat, question: str) -> None:
    """Let every voice answer, and keep what was said; a stopped answer is kept as far as it went."""
    prompts = {voice: chat.speakers.prompt_ids(voice, question, chat.turns) for voice in chat.voices}
    pieces = {voice: chat.speakers.answer(voice, ids) for voice, ids in prompts.items()}
    answers = dict.fromkeys(chat.voices, "")
    if chat.keyboard:
        with stoppable() as stopped:
            _show(pieces, answers, stopped)
            if stopped():
                console.line("stopped; the conversation goes on", "dim")
    else:
        _show(pieces, answers, lambda: False)
    chat.turns.append(Turn(question, answers))


def _show(pieces: Mapping[str, Iterator[str]], answers: dict[str, str], stopped: Callable[[], bool]) -> None:
    """Stream the answers into ``answers`` and to stdout: side by side where a terminal has the width for it."""
    if len(pieces) > 1 and console.has_columns():
        with console.Columns(tuple(pieces)) as columns:
            left = dict(pieces)
            while left and not stopped():
                for voice in list(left):
                    piece = next(left[voice], None)
                    if piece is None:
                        del left[voice]
                        continue
                    answers[voice] += piece
                    columns.add(voice, piece)
        return
    for voice, stream in pieces.items():
        if stopped():
            return
        if len(pieces) > 1:
            console.stream(f"{voice}: ")
        for piece in stream:
            answers[voice] += piece
            console.stream(piece)
            if stopped():
                break
        console.stream("\n")


def _obey(chat: Chat, line: str) -> None:
    """Carry out a command; an unknown one is told the choices."""
    name, _, rest = line.partition(" ")
    if name not in COMMANDS:
        console.line(f"there is no {name}; there is {', '.join(COMMANDS)}, /quit")
        return
    COMMANDS[name][1](chat, rest.strip())


def _speak_as(*voices: str) -> Callable[[Chat, str], None]:
    def switch(chat: Chat, _: str) -> None:
        for voice in voices:
            chat.speakers.load(voice)
        chat.voices = voices
        console.line(f"{' and '.join(voices)} will answer", "dim")

    return switch


def _why(chat: Chat, _: str) -> None:
    if not chat.turns:
        console.line("nothing was answered yet")
        return
    if chat.sources is None:
        chat.sources = Sources(chat.run)
    last = chat.turns[-1]
    voice = Arm.TUNED if Arm.TUNED in last.answers else next(iter(last.answers))
    console.line(f"nearest to the last question and {voice}'s answer:", "bold")
    for line in chat.sources.nearest(f"{last.question}\n{last.answers[voice]}"):
        console.line(line)


def _copy(chat: Chat, name: str) -> None:
    if not name or not chat.turns:
        console.line("/copy FILE writes the conversation to FILE" if not name else "nothing was said yet")
        return
    path = at_home(name)
    try:
        existed = append_to(path, as_markdown(f"A conversation with {chat.run.path.resolve().name}", chat.turns))
    except (OSError, ValueError) as error:  # a null byte is the latter
        console.line(f"cannot write {path}: {getattr(error, 'strerror', None) or error}")
        return
    console.line(f"{path} existed: the conversation was added at its end" if existed else f"written to {path}")


def _reset(chat: Chat, _: str) -> None:
    chat.turns.clear()
    console.line("forgotten; the next question begins a new conversation", "dim")


def _help(chat: Chat, _: str) -> None:
    for name, (text, _command) in COMMANDS.items():
        console.line(f"  {name.ljust(8)}{text}")
    console.line("  /quit   leave (so does Ctrl-D); Ctrl-C stops an answer")


COMMANDS: Mapping[str, tuple[str, Callable[[Chat, str], None]]] = {
    "/base": ("the base model answers from here on", _speak_as(Arm.BASE)),
    "/tuned": ("the tuned model answers from here on", _speak_as(Arm.TUNED)),
    "/both": ("both answer, side by side", _speak_as(Arm.BASE, Arm.TUNED)),
    "/why": ("training samples and source passages nearest to the last answer", _why),
    "/copy": ("FILE: add the conversation, as Markdown, at the end of a file", _copy),
    "/reset": ("forget the conversation", _reset),
    "/help": ("this list", _help),
}
