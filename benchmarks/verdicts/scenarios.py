"""The scenarios: what each is made of, the verdict that it must get, and why no other verdict would be right."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from verdicts import data

STOPPED = "STOPPED"  # the training stopped with an error, so that no adapter can do harm


class Scenario(NamedTuple):
    """A recipe of this folder, the data beside it, and what must come of them.

    Attributes:
        files: returns the texts to write beside the recipe.
        expected: the verdicts that are right; ``STOPPED`` for a training that stops with an error.
        reason: why it must be so.
        words: what the verdict's reasons must say.
        same_training: the scenario whose run folder this one evaluates anew; nothing is trained again.
        settings: overrides of the recipe, as --set takes them.
    """

    files: Callable[[], data.Files]
    expected: tuple[str, ...]
    reason: str
    words: str = ""
    same_training: str = ""
    settings: tuple[str, ...] = ()


SCENARIOS: dict[str, Scenario] = {
    "labels": Scenario(
        data.labels,
        ("SHIP",),
        "The base answers in prose. Every word that decides a label is in the 80 tickets, and few of them in three examples.",
    ),
    "labels-prefix": Scenario(
        data.labels_with_prefix,
        ("SHIP",),
        "The same task with its instruction in each prompt: where the instruction is written changes no truth.",
    ),
    "labels-shuffled": Scenario(
        data.shuffled_labels,
        ("NOT PROVEN", "PROMPT INSTEAD", "WORSE"),
        "No training answer belongs to its ticket, so that nothing but the form can be learned: never SHIP. The placebo is "
        "an arm here. Without it this recipe shipped (tuned 0.35, majority 0.25): the base knows what the labels' words mean, "
        "and form was all that it lacked.",
    ),
    "form": Scenario(
        data.fixed_form,
        ("PROMPT INSTEAD",),
        "The answer is the same line each time. Three examples in the prompt show all that training can teach.",
    ),
    "facts": Scenario(
        data.facts,
        ("USE RAG",),
        "Each answer is the sentence of the one document that the question's name finds, and no training chat states it: "
        "who reads answers, who was trained can only guess. tuned+rag is no arm here: it might end its answers better "
        "than a base of this size does, which would be another truth (SHIP WITH RAG).",
    ),
    "declined": Scenario(
        data.declined,
        ("WORSE",),
        "The model is trained to decline questions that it can answer.",
    ),
    "tone": Scenario(
        data.tone,
        ("SHIP",),
        "28 words and 8 turns of phrase make the tone. 110 samples show all of them, three examples a few.",
    ),
    "too-fast": Scenario(
        data.tone,
        ("WORSE", STOPPED),
        "The tone at 50 times the learning rate that teaches it: the model repeats one word, where the base scored for the "
        "words that it kept. (On labels, where the base scores 0, nothing could be worse.)",
    ),
    "too-slow": Scenario(
        data.tone,
        ("NOT PROVEN",),
        "The tone at a learning rate of 1e-7: base and tuned answer alike. That the most similar examples teach a part of "
        "the tone is true, and says nothing about what training could do.",
        words="changed next to nothing",
    ),
    "assistant": Scenario(
        data.tone,
        ("WORSE",),
        "Trained on nothing but the tone at 10 times the learning rate, over 6 epochs, the model loses general "
        "questions and formats that the base has right. In place of its base that is harm.",
        words="general questions and formats right",
    ),
    "assistant-as-task": Scenario(
        data.tone,
        ("SHIP",),
        "The same adapter beside its base: the tone is learned, and other requests go to the base.",
        words="send other requests to the base",
        same_training="assistant",
        settings=('evaluation.use="task"',),
    ),
}
