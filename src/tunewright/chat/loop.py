"""A chat: questions from the keyboard or a pipe, answers streamed, and the commands that begin with a slash."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from tunewright import console
from tunewright.chat.models import ChatModels, Turn, append_to, as_markdown
from tunewright.chat.sources import Sources
from tunewright.chat.terminal import lines, stoppable
from tunewright.errors import TunewrightError
from tunewright.recipe import at_home
from tunewright.settings import Arm
from tunewright.text.normalization import replace_lone_surrogates


@dataclass
class Chat:
    """A conversation in progress.

    Attributes:
        title: of the Markdown that /copy writes.
        models: base and tuned.
        arms: the models that answer.
        keyboard: whether a person types, in contrast to a pipe or a single prompt.
        read_sources: reads the training data for /why.
        turns: so far.
    """

    title: str
    models: ChatModels
    arms: tuple[str, ...]
    keyboard: bool
    read_sources: Callable[[], Sources]
    turns: list[Turn] = field(default_factory=list)
    _sources: Sources | None = None

    @property
    def sources(self) -> Sources:
        """The training data, read at the first use."""
        self._sources = self._sources or self.read_sources()
        return self._sources


def converse(chat: Chat, prompt: str | None) -> None:
    """Answer one prompt, or each line of standard input until it ends; every answer sees the conversation so far.

    Answers go to stdout, everything else to stderr. A line that begins with a slash is a command.
    """
    for arm in chat.arms:
        chat.models.load(arm)
    if prompt is not None:
        _ask(chat, replace_lone_surrogates(prompt))  # of bytes that are no UTF-8, which no tokenizer takes
        return
    if chat.keyboard:
        console.line("ask a question; /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves", "dim")
    for line in lines():
        if line == "/quit":
            return
        try:
            _run_command(chat, line) if line.startswith("/") else _ask(chat, line)
        except TunewrightError as error:
            if not chat.keyboard:
                raise
            console.error(error)


def _ask(chat: Chat, question: str) -> None:
    """Let every arm answer, and add the turn to the conversation; of a stopped answer the part so far."""
    prompts = {arm: chat.models.prompt_ids(arm, question, chat.turns) for arm in chat.arms}
    pieces = {arm: chat.models.answer(arm, ids) for arm, ids in prompts.items()}
    answers = dict.fromkeys(chat.arms, "")
    if chat.keyboard:
        with stoppable() as stopped:
            _show(pieces, answers, stopped)
            if stopped():
                console.line("stopped; the conversation continues", "dim")
    else:
        _show(pieces, answers, lambda: False)
    chat.turns.append(Turn(question, answers))


def _show(pieces: Mapping[str, Iterator[str]], answers: dict[str, str], stopped: Callable[[], bool]) -> None:
    """Stream the answers into ``answers`` and to stdout: side by side on a terminal that is wide enough."""
    if len(pieces) > 1 and console.has_columns():
        with console.Columns(tuple(pieces)) as columns:
            left = dict(pieces)
            while left and not stopped():
                for arm in list(left):
                    piece = next(left[arm], None)
                    if piece is None:
                        del left[arm]
                        continue
                    answers[arm] += piece
                    columns.add(arm, piece)
        return
    for arm, stream in pieces.items():
        if stopped():
            return
        if len(pieces) > 1:
            console.stream(f"{arm}: ")
        for piece in stream:
            answers[arm] += piece
            console.stream(piece)
            if stopped():
                break
        console.stream("\n")


def _run_command(chat: Chat, line: str) -> None:
    """Run a command; for an unknown one, list the choices."""
    name, _, rest = line.partition(" ")
    if name not in COMMANDS:
        console.line(f"there is no {name}; there is {', '.join(COMMANDS)}, /quit")
        return
    COMMANDS[name][1](chat, rest.strip())


def _answer_with(*arms: str) -> Callable[[Chat, str], None]:
    def switch(chat: Chat, _: str) -> None:
        for arm in arms:
            chat.models.load(arm)
        chat.arms = arms
        console.line(f"{' and '.join(arms)} will answer", "dim")

    return switch


def _why(chat: Chat, _: str) -> None:
    if not chat.turns:
        console.line("there is no answer yet")
        return
    last = chat.turns[-1]
    arm = Arm.TUNED if Arm.TUNED in last.answers else next(iter(last.answers))
    console.line(f"nearest to the last question and {arm}'s answer:", "bold")
    for line in chat.sources.nearest(f"{last.question}\n{last.answers[arm]}"):
        console.line(line)


def _copy(chat: Chat, name: str) -> None:
    if not name or not chat.turns:
        console.line("/copy FILE appends the conversation to FILE" if not name else "there is no answer yet")
        return
    path = at_home(name)
    try:
        existed = append_to(path, as_markdown(chat.title, chat.turns))
    except (OSError, ValueError) as error:  # ValueError: a null byte
        console.line(f"cannot write {path}: {getattr(error, 'strerror', None) or error}")
        return
    console.line(f"{path} exists: the conversation was appended" if existed else f"written to {path}")


def _reset(chat: Chat, _: str) -> None:
    chat.turns.clear()
    console.line("cleared; the next question begins a new conversation", "dim")


def _help(chat: Chat, _: str) -> None:
    for name, (text, _command) in COMMANDS.items():
        console.line(f"  {name.ljust(8)}{text}")
    console.line("  /quit   leave (so does Ctrl-D); Ctrl-C stops an answer")


COMMANDS: Mapping[str, tuple[str, Callable[[Chat, str], None]]] = {
    "/base": ("the base model answers from now on", _answer_with(Arm.BASE)),
    "/tuned": ("the tuned model answers from now on", _answer_with(Arm.TUNED)),
    "/both": ("both answer, side by side", _answer_with(Arm.BASE, Arm.TUNED)),
    "/why": ("training samples and source passages nearest to the last answer", _why),
    "/copy": ("FILE: append the conversation to a file, as Markdown", _copy),
    "/reset": ("forget the conversation", _reset),
    "/help": ("this list", _help),
}
