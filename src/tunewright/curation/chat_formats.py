"""The user's own chat data: the recognized formats, one sample per line."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tunewright.curation.sample_rules import turn_fault
from tunewright.errors import DocumentError, UserError, is_text, reading
from tunewright.models.data_sources import chat_paths, hub_revisions, inner_files
from tunewright.recipe import Recipe
from tunewright.records import OWN, Message, Rejection, Role, Sample, digest
from tunewright.storage import file_digest
from tunewright.text.reasoning import strip_reasoning
from tunewright.text.rows import file_rows
from tunewright.text.tables import TABLES

Parsed = TypeVar("Parsed")

_ROWS_TO_RECOGNIZE = 100
_ROWS_OF_SYSTEM_PROMPT = 1000  # of each file: an unchanged run must stay quick
SAME_SYSTEM = 0.9  # of the chats have the system turn that the exam has
_SUFFIXES = {".jsonl", ".json", *TABLES}
_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
_TOOL_ROLES = ("tool", "function", "function_call", "tool_call", "observation", "tool_response", "ipython")
_LOSS_FLAGS = ("weight", "train", "loss", "training")
_REASONING = ("reasoning_content", "thinking", "reasoning")
# <|im_start|>role, <|start_header_id|>role<|end_header_id|>, the bare <|role|>, and "### Human:"
_ROLE_TOKEN = re.compile(
    r"<\|im_start\|>[ \t]*(\w+)|<\|start_header_id\|>(\w+)<\|end_header_id\|>|<\|(system|user|assistant)\|>"
    r"|###[ \t]*(Human|User|Assistant|System):"
)
_END_TOKEN = re.compile(r"</s>|<\|(?:im_end|end|eot_id|endoftext|end_of_text|begin_of_text)\|>|^\s*<s>")


class Malformed(ValueError):
    """A line that holds no conversation or pair; ``args``: the reason that is counted, and the detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class _Line(NamedTuple):
    """One line of a file: its position (file and line), and its object, or why there is none."""

    position: str
    content: Any
    fault: str = ""
    unit: str = "line"


def _text(value: object) -> str:
    """Return a turn's text; a list of text parts is joined."""
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        value = "".join(str(part.get("text", "")) for part in value)
    if not isinstance(value, str):
        raise Malformed("a turn is not text", f"it is {type(value).__name__}")
    if not is_text(value):
        raise Malformed("a turn is not text", "it holds half a surrogate pair")
    return value.strip()


def message(role: object, content: object) -> Message:
    """Return a turn; raise Malformed for an unknown role or content that is no text."""
    known = _ROLES.get(role.strip().lower()) if isinstance(role, str) else None
    if known is None:
        raise Malformed("unknown role", f"{role!r}; the roles are {', '.join(_ROLES)}")
    return Message(role=known, content=_text(content))


def _is_off(value: object) -> bool:
    """Return whether a flag says no: false, 0, or these as the text of a table's cell."""
    return value.strip().lower() in ("false", "0", "0.0") if isinstance(value, str) else value in (False, 0)


def _is_without_loss(item: Mapping[str, Any]) -> bool:
    return any(_is_off(item[key]) for key in _LOSS_FLAGS if item.get(key) is not None)


def _turn(turn: Mapping[str, Any]) -> Message:
    """Return a turn with its reasoning, if any, and its loss flag."""
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if role in _TOOL_ROLES or turn.get("tool_calls") or turn.get("function_call"):
        raise Malformed("tool calls", f"a turn of {role}")
    result = message(role, content)
    if result.role != "assistant":
        return result
    thought = next((turn[key] for key in _REASONING if isinstance(turn.get(key), str) and turn[key].strip()), "")
    if thought and not result.content.startswith("<think>"):
        result = result.model_copy(update={"content": f"<think>\n{thought.strip()}\n</think>\n\n{result.content}"})
    return result.model_copy(update={"loss": False}) if _is_without_loss(turn) else result


def turns(value: object) -> list[Message]:
    """Return the turns of a list of {role, content} or {from, value}."""
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise Malformed("turns are not a list of objects")
    return [_turn(turn) for turn in value]


def _from_messages(line: Mapping[str, Any]) -> list[Message]:
    return turns(line["messages"])


def _from_conversation(line: Mapping[str, Any]) -> list[Message]:
    return turns(line["conversation"])


def _from_sharegpt(line: Mapping[str, Any]) -> list[Message]:
    return turns(line["conversations"])


def _from_alpaca(line: Mapping[str, Any]) -> list[Message]:
    """Return instruction and input as the user's turn, behind the rounds of ``history``."""
    history = line.get("history") or []
    earlier: list[Message] = []
    if not isinstance(history, list):
        raise Malformed("history is not a list of exchanges")
    for item in history:
        if isinstance(item, dict):
            earlier += turns([item]) if "role" in item or "from" in item else _from_alpaca(item)
        elif isinstance(item, list) and len(item) == 2:
            earlier += [message("user", item[0]), message("assistant", item[1])]
        else:
            raise Malformed("history is not a list of exchanges")
    output = line.get("output", line.get("response"))
    context = line.get("input") or line.get("context") or ""
    prompt = "\n\n".join(filter(None, [_text(line.get("instruction") or ""), _text(context)]))
    return [*earlier, message("user", prompt), message("assistant", output)]


def _from_question(line: Mapping[str, Any]) -> list[Message]:
    """Return context and question as the user's turn; of several answers (SQuAD), the first."""
    answer = line.get("answer", line.get("answers"))
    if isinstance(answer, dict):
        answer = answer.get("text")
    if isinstance(answer, list):
        if not answer:
            raise Malformed("a question without an answer")
        answer = answer[0].get("text") if isinstance(answer[0], dict) else answer[0]
    parts = [_text(line.get("context") or ""), _text(line["question"])]
    return [message("user", "\n\n".join(filter(None, parts))), message("assistant", answer)]


def _from_response(line: Mapping[str, Any]) -> list[Message]:
    return _from_completion({**line, "completion": line["response"]})


def _from_rated(line: Mapping[str, Any]) -> list[Message]:
    """Return the instruction and the response with the best overall score (UltraFeedback)."""
    rated = line["completions"]
    if not isinstance(rated, list) or not rated or not all(isinstance(item, dict) for item in rated):
        raise Malformed("completions are not a list of objects")
    best = max(rated, key=lambda item: float(item.get("overall_score") or item.get("fine-grained_score") or 0))
    return [message("user", line["instruction"]), message("assistant", best.get("response"))]


def _from_data(line: Mapping[str, Any]) -> list[Message]:
    """Return the turns of a list of texts, the user's first (UltraChat)."""
    if not isinstance(line["data"], list):
        raise Malformed("turns are not a list of texts")
    return [message(("user", "assistant")[number % 2], text) for number, text in enumerate(line["data"])]


def _from_completion(line: Mapping[str, Any]) -> list[Message]:
    def part(value: object, role: Role) -> list[Message]:
        # A list of objects without a type is a list of messages; with one, the parts of a single message.
        is_turns = isinstance(value, list) and not any("type" in turn for turn in value if isinstance(turn, dict))
        return turns(value) if is_turns else [message(role, value)]

    return part(line["prompt"], "user") + part(line["completion"], "assistant")


def _from_text(line: Mapping[str, Any]) -> list[Message]:
    """Split text at its role tokens; all end tokens are removed."""
    text = _text(line["text"])
    marks = list(_ROLE_TOKEN.finditer(text))
    if not marks:
        raise Malformed("text without role tokens", "such as <|user|> or <|im_start|>user")
    if _END_TOKEN.sub("", text[: marks[0].start()]).strip():
        raise Malformed("text before the first role token", text[:80])
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return [
        message(next(filter(None, mark.groups())), _END_TOKEN.sub("", text[mark.end() : end]))
        for mark, end in zip(marks, ends, strict=True)
    ]


def _merged(messages: Sequence[Message]) -> list[Message]:
    """Return the turns with those of one role in a row joined by a blank line."""
    result: list[Message] = []
    for turn in messages:
        if result and result[-1].role == turn.role and turn.content and result[-1].content:
            last = result.pop()
            turn = Message(role=turn.role, content=f"{last.content}\n\n{turn.content}", loss=last.loss and turn.loss)
        result.append(turn)
    return result


def _trained(messages: Sequence[Message]) -> list[Message]:
    """Return the turns up to the last that is trained on; raise Malformed where there is none."""
    answers = [number for number, turn in enumerate(messages) if turn.role == "assistant"]
    last = max((number for number in answers if messages[number].loss), default=None)
    if answers and last is None:
        raise Malformed("marked as not to train on")
    return list(messages if last is None or messages[-1].loss else messages[: last + 1])


def _messages(line: object, keeps_reasoning: bool = False) -> tuple[Message, ...]:
    """Return a line's conversation, or raise Malformed."""
    if not isinstance(line, dict):
        raise Malformed("not a JSON object", f"it is {type(line).__name__}")
    form = next((form for keys, form in FORMATS.values() if all(line.get(key) is not None for key in keys)), None)
    if form is None:
        raise Malformed("unknown format", f"keys: {', '.join(sorted(line)) or 'none'}")
    if _is_without_loss(line) or line.get("label") in (False, "false", "False"):
        raise Malformed("marked as not to train on")
    messages = [message for message in form(line) if message.role != "system" or message.content]
    if not keeps_reasoning:
        messages = [
            turn.model_copy(update={"content": strip_reasoning(turn.content)}) if turn.role == "assistant" else turn
            for turn in messages
        ]
    messages = _trained(_merged(messages))
    system = line.get("system")
    if isinstance(system, str) and system.strip() and not any(m.role == "system" for m in messages):
        messages.insert(0, message("system", system))
    fault = turn_fault(messages)
    if fault:
        raise Malformed(fault, " ".join(message.role for message in messages))
    return tuple(messages)


def _decoded_cells(row: Mapping[str, str | None]) -> dict[str, Any]:
    """Return a table's row; a cell with a list of turns becomes a list."""
    return {name: _decoded(cell) if cell and cell.lstrip().startswith("[{") else cell for name, cell in row.items()}


def _decoded(cell: str) -> Any:
    try:
        return json.loads(cell)
    except (ValueError, RecursionError):
        return cell  # text, which the row's format refuses by name


def _lines(path: Path) -> Iterator[_Line]:
    """Yield the rows of a table, else the objects of JSON lines or of one JSON array, whatever the name ends with."""
    with reading("data", path, "correct the path, or save the file again", DocumentError):
        try:
            rows = file_rows(path)
        except ValueError as error:
            yield _Line(str(path), None, str(error))
            return
    for unit, number, content, fault in rows:
        position = f"{path}:item {number}" if unit == "item" else f"{path}:{number}"
        yield _Line(position, _decoded_cells(content) if unit == "row" else content, fault, unit)


def _threads(lines: Iterator[_Line]) -> Iterator[_Line]:
    """Yield the lines; of rows that are single messages of a tree (OpenAssistant), each path to a last answer."""
    rows: dict[str, _Line] = {}
    for line in lines:
        if isinstance(line.content, dict) and all(key in line.content for key in ("message_id", "text", "role")):
            rows[str(line.content["message_id"])] = line
        else:
            yield line
    answers = {name for name, line in rows.items() if line.content["role"] == "assistant"}
    inner = {earlier for name in answers for earlier in _path(name, rows)[:-1]}
    ends = (answers - inner) | (rows.keys() - answers - inner)  # a question without an answer is counted as such
    for name, line in rows.items():
        if name in ends:
            turns = [{"role": rows[n].content["role"], "content": rows[n].content["text"]} for n in _path(name, rows)]
            yield _Line(line.position, {"messages": turns})


def _path(name: str, rows: Mapping[str, _Line]) -> list[str]:
    """Return the names of the messages from a tree's root to one of its messages."""
    path: list[str] = []
    while name in rows and name not in path:
        path.insert(0, name)
        name = str(rows[name].content.get("parent_id"))
    return path


def parsed_lines(files: Sequence[Path], parse: Callable[[Any], Parsed]) -> Iterator[tuple[str, Parsed | Malformed]]:
    """Yield each line's position, and its parsed content or why it has none."""
    for path in files:
        for line in _threads(_lines(path)):
            try:
                if line.fault:
                    raise Malformed("not a row of the table" if line.unit == "row" else "not JSON", line.fault)
                yield line.position, parse(line.content)
            except Malformed as error:
                yield line.position, error


def data_files(paths: Sequence[Path], setting: str = "synthesis.data") -> list[Path]:
    """Return the files named, and those in the folders named, in order.

    Raises:
        DocumentError: a path does not exist, or a folder holds none.
    """
    files: list[Path] = []
    for path in paths:
        inner = inner_files(path, _SUFFIXES) if path.is_dir() else [path]
        if not path.exists() or not inner:
            raise DocumentError(
                f"there is no data at {path}",
                f"the folder holds no {', '.join(sorted(_SUFFIXES))} file" if path.exists() else "it does not exist",
                f"correct {setting} in the recipe; paths are relative to the recipe's folder",
            )
        files += inner
    return files


def _all_malformed(rejections: Sequence[Rejection]) -> DocumentError:
    counts = Counter(rejection.reason for rejection in rejections)
    reasons = "; ".join(f"{reason} ({count})" for reason, count in counts.most_common(3))
    first = rejections[0]
    known = ", ".join(f"{name} ({' + '.join(keys)})" for name, (keys, _) in FORMATS.items())
    return DocumentError(
        f"none of the {len(rejections)} lines of your chat data is a conversation",
        f"{reasons}; the first: {first.id}: {first.detail or first.reason}",
        f"one JSON object per line, in one of these formats: {known}",
    )


def read_own_data(paths: Sequence[Path], keeps_reasoning: bool = False) -> tuple[list[Sample], list[Rejection]]:
    """Read chat data: JSON lines or a JSON array; the format (FORMATS) is recognized line by line.

    A conversation without a system turn gets none. Turns that the data marks as not to train on take no loss; what
    follows the last trained turn is left out. Reasoning before an answer is removed unless ``keeps_reasoning``.

    Returns:
        The samples, in order, and one rejection per malformed line, with its file and line number.

    Raises:
        DocumentError: a file is missing or empty, or not one line is a conversation.
    """
    rejections: list[Rejection] = []
    return list(each_own_sample(paths, rejections, keeps_reasoning)), rejections


def each_own_sample(
    paths: Sequence[Path], rejections: list[Rejection], keeps_reasoning: bool = False
) -> Iterator[Sample]:
    """Yield the samples of ``read_own_data`` one by one; the malformed lines are added to ``rejections``.

    Raises:
        DocumentError: see ``read_own_data``.
    """
    num_samples = 0
    for position, messages in parsed_lines(data_files(paths), partial(_messages, keeps_reasoning=keeps_reasoning)):
        if isinstance(messages, Malformed):
            reason = f"own data: {messages.reason}"
            rejections.append(Rejection(stage="curate", id=position, reason=reason, detail=messages.detail))
            continue
        identity = digest([message.model_dump(exclude_defaults=True) for message in messages])
        num_samples += 1
        yield Sample(id=identity, task=OWN, messages=messages)
    if paths and not num_samples:
        if rejections:
            raise _all_malformed(rejections)
        raise DocumentError(
            "your chat data is empty",
            f"{', '.join(str(path) for path in paths)} hold no lines",
            "add conversations, or remove the file from synthesis.data in the recipe",
        )


def system_text(sample: Sample) -> str:
    """Return the system turn of a sample, or nothing."""
    return sample.messages[0].content if sample.messages[0].role == "system" else ""


def with_own_system_prompt(recipe: Recipe) -> Recipe:
    """Return the recipe with the system prompt of the user's own chats, where it sets none and they are all the data.

    It is the system turn of at least 90 % of the first chats of each file, or nothing where as many have none. So the
    exam, chat and serve use what the model is trained with.
    """
    if "system_prompt" in recipe.model_fields_set or not recipe.synthesis.data or recipe.documents.paths:
        return recipe
    try:
        files = data_files(chat_paths(recipe))
        rows = [row for path in files for _, row in islice(parsed_lines([path], _messages), _ROWS_OF_SYSTEM_PROMPT)]
    except (UserError, OSError):
        return recipe  # the stage that reads the data says what is wrong
    chats = [row for row in rows if not isinstance(row, Malformed)]
    texts = Counter(chat[0].content if chat[0].role == "system" else "" for chat in chats)
    text, count = texts.most_common(1)[0] if texts else ("", 0)
    return recipe.model_copy(update={"system_prompt": text}) if count >= SAME_SYSTEM * max(1, len(chats)) else recipe


def row_groups(paths: Sequence[Path], keeps_reasoning: bool = False) -> list[str]:
    """Return the ``group`` of each sample that ``read_own_data`` reads, in its order; empty where a row has none."""

    def group(line: Any) -> str:
        _messages(line, keeps_reasoning)  # raises Malformed where the line is no sample
        value = line.get("group")
        return "" if value is None else str(value).strip()

    return [name for _, name in parsed_lines(data_files(paths), group) if isinstance(name, str)]


def is_chat_file(path: Path) -> bool:
    """Return whether most of a file's first rows are chats."""
    if path.suffix.lower() not in _SUFFIXES or not path.is_file():
        return False
    try:
        first = list(islice(parsed_lines([path], _messages), _ROWS_TO_RECOGNIZE))
    except OSError:
        return False
    return sum(not isinstance(row, Malformed) for _, row in first) > len(first) / 2


def data_digest(recipe: Recipe) -> str:
    """Return a digest of the contents of the user's own chat data.

    Raises:
        DocumentError: a file is missing.
    """
    files = [file_digest(path) for path in data_files(chat_paths(recipe))]
    return digest([*files, *hub_revisions(recipe.synthesis.data)])


_Form = Callable[[Mapping[str, Any]], list[Message]]

FORMATS: dict[str, tuple[tuple[str, ...], _Form]] = {
    "messages": (("messages",), _from_messages),
    "conversation": (("conversation",), _from_conversation),
    "ShareGPT": (("conversations",), _from_sharegpt),
    "Alpaca": (("instruction", "output"), _from_alpaca),
    "Dolly": (("instruction", "response"), _from_alpaca),
    "UltraFeedback": (("instruction", "completions"), _from_rated),
    "prompt and completion": (("prompt", "completion"), _from_completion),
    "HelpSteer": (("prompt", "response"), _from_response),
    "question and answer": (("question", "answer"), _from_question),
    "SQuAD": (("question", "answers"), _from_question),
    "UltraChat": (("data",), _from_data),
    "text with role tokens": (("text",), _from_text),
}
