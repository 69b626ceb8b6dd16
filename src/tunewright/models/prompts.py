"""The form of a question to the student: one for training samples, exam prompts and chats alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tunewright.records import Chunk, Message, Question


def passage_text(chunk: Chunk) -> str:
    """Return a chunk as a passage that can be read on its own: its document's title, then its text."""
    return f"{chunk.title}\n{chunk.text}" if chunk.title else chunk.text


def question_prompt(question: str, passages: Sequence[str] = ()) -> str:
    """Return a user turn: the numbered passages, if any, then the question."""
    if not passages:
        return question
    shown = "\n\n".join(f"[{number}] {passage}" for number, passage in enumerate(passages, 1))
    return f"Passages:\n{shown}\n\nQuestion: {question}"


def chat(
    system_prompt: str,
    question: str,
    passages: Sequence[str] = (),
    answer: str | None = None,
    shots: Iterable[Message] = (),
) -> tuple[Message, ...]:
    """Return a conversation: system prompt, examples, the question, and its answer when there is one.

    Args:
        system_prompt: the first message; left out when empty.
        question: what is asked.
        passages: texts shown with the question.
        answer: the assistant's turn; None leaves the conversation to be continued.
        shots: turns of worked examples (user and assistant), shown before the question.
    """
    turns = [Message(role="system", content=system_prompt)] if system_prompt else []
    turns += [*shots, Message(role="user", content=question_prompt(question, passages))]
    if answer is not None:
        turns.append(Message(role="assistant", content=answer))
    return tuple(turns)


def exam_prompt(
    system_prompt: str, question: Question, found: Sequence[str] = (), shots: Sequence[Message] = ()
) -> tuple[Message, ...]:
    """Return the conversation that an arm is asked to continue; base and tuned get nothing found and no shots.

    A question that comes with its own passage is asked with that passage alone, whatever was found.
    """
    passages = found if question.passage is None else (question.passage,)
    return chat(system_prompt, question.question, passages=passages, shots=shots)
