"""What a strong teacher would say to each prompt of tunewright, without a model: for runs of whole recipes."""

from __future__ import annotations

import json
import random
import re

from support.faulty_server import Answer, Seen, completion, raw_completion

_TRADES = "baker gardener sailor tailor miller potter weaver mason brewer cooper smith tanner printer glazier"
_DEEDS = "mend paint sell clean measure carry repair store polish borrow weigh trade fold bury"
_THINGS = "ladders boats curtains candles barrels bricks ropes lamps kettles saddles baskets hammers drums sails"


def able(seen: Seen) -> Answer:
    """Answer any prompt of the exam, the tasks and the checks as it asks."""
    if "prompt" in seen.body:
        return Answer(body=raw_completion(_instruction(int(seen.body["seed"]))))
    prompt = seen.body["messages"][-1]["content"]
    for mark, write in _WRITES.items():
        if mark in prompt:
            return Answer(body=completion(write(prompt, str(seen.body["messages"]))))
    return Answer(
        body=completion(f"One way is to begin early and to ask for help with it: {prompt.rstrip('?').lower()}.")
    )


def _instruction(seed: int) -> str:
    dice = random.Random(seed)
    first, second = dice.sample(_THINGS.split(), 2)
    deed, other = dice.sample(_DEEDS.split(), 2)
    return f"How would a {dice.choice(_TRADES.split())} {deed} {first} and {other} {second}?"


def _passage(prompt: str) -> str:
    return re.split(r"\n\n(?:Write \d|Rewrite)", prompt.partition("Passage:\n")[2])[0]


def _sentences(text: str) -> list[str]:
    sentences = re.split(r"(?<=[.!?])\s+", text)
    return [sentence for sentence in sentences if len(sentence.split()) >= 8 and sentence.endswith(".")]


def _key(sentence: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"[A-Za-z]{5,}", sentence)))[:7]


def _question(sentence: str, opening: str) -> str:
    return f"{opening} {' '.join(_key(sentence)).lower()}?"


def _free(prompt: str, messages: str) -> str:
    del messages
    number = int(re.findall(r"Write (\d+) different", prompt)[0])
    chosen = _sentences(_passage(prompt))[:number]
    items = [{"question": _question(s, "What is reported on"), "answer": s, "quotes": [s]} for s in chosen]
    return json.dumps({"items": items})


def _ask(prompt: str, messages: str) -> str:
    # The example before it separates the exam's prompt from that of the training questions.
    opening = "Which finding concerns" if "How much does zinc" in messages else "What is reported on"
    return _question(prompt.partition("this sentence answers: ")[2], opening)


def _answer_again(prompt: str, messages: str) -> str:
    del messages
    passage, _, question = prompt.rpartition("\n\nQuestion: ")
    wanted = set(re.findall(r"[a-z]{5,}", question.lower()))
    best = max(_sentences(passage), key=lambda s: len(wanted & set(re.findall(r"[a-z]{5,}", s.lower()))))
    claim = re.search(r"(?:right to say|finding was|agree with): (.*)\?", question)
    return f"{'Yes' if claim[1] in passage else 'No'}. {best}" if claim else best


def _rewrite(prompt: str, messages: str) -> str:
    del messages
    sentences = _sentences(_passage(prompt))
    random.Random(prompt.rpartition("Rewrite it as")[2]).shuffle(sentences)
    return "\n".join(sentences)


def _read(prompt: str, messages: str) -> str:
    """Answer a question with the sentence of the shown passages that has most of its words."""
    del messages
    passages, _, question = prompt.partition("Passages:\n")[2].rpartition("\n\nQuestion: ")
    asked = set(re.findall(r"[a-z]{5,}", question.lower()))
    return max(_sentences(passages), key=lambda text: len(asked & set(re.findall(r"[a-z]{5,}", text.lower()))))


_WRITES = {
    "Reply with JSON only": _free,
    "this sentence answers: ": _ask,
    "Answer the question from the passage above": _answer_again,
    "Answer in one short sentence. If you do not know": lambda prompt, messages: "not known",
    "Rewrite it as": _rewrite,
    "\n\nQuestion: ": _read,
}
