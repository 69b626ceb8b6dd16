"""The data of the verdict scenarios, made so that the right verdict is known: pure functions of nothing.

Each returns the texts to write beside a scenario's recipe, by path. An exam row without a document is a cluster of its
own.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from typing import Any

Files = dict[str, str]  # the text of each file, by its path

REFUSAL = "I cannot answer this question."


def _lines(rows: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _files(chats: Iterable[tuple[str, str]], exam: Iterable[tuple[str, str]], system: str = "") -> Files:
    """Return train.jsonl and exam.jsonl of (prompt, answer) pairs."""
    turns = [{"role": "system", "content": system}] if system else []
    return {
        "train.jsonl": _lines(
            {"messages": [*turns, {"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]}
            for prompt, answer in chats
        ),
        "exam.jsonl": _lines({"question": prompt, "answer": answer} for prompt, answer in exam),
    }


_SYNONYMS = {
    "kitchen": ("kettle", "toaster", "mixer", "stove"),
    "lighting": ("lamp", "bulb", "lantern", "chandelier"),
    "garden": ("mower", "hose", "rake", "sprinkler"),
    "audio": ("radio", "speaker", "headset", "amplifier"),
    "bath": ("shower", "faucet", "mirror", "scale"),
}
_FAULTS = {
    "power": ("does not turn on", "stays dead"),
    "damage": ("arrived cracked", "came with a dent"),
    "noise": ("hums all night", "rattles badly"),
    "delivery": ("never came", "is still not here"),
    "billing": ("was charged twice", "cost more than agreed"),
    "leak": ("drips", "spills water"),
}
_URGENCIES = {
    "high": ("I need help today.", "This cannot wait."),
    "medium": ("Some time this week is fine.", "Please look at it soon."),
    "low": ("There is no hurry.", "Whenever you have time."),
}
TICKET_PROMPT = "Label the ticket as one line of JSON with the keys group, fault and urgency."


def _tickets() -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return (ticket, labels) to train on, and others as the exam: every word that decides a label is trained on."""
    rng = random.Random(5)
    rows: dict[str, str] = {}
    while len(rows) < 120:
        group, fault, urgency = (rng.choice(sorted(kinds)) for kinds in (_SYNONYMS, _FAULTS, _URGENCIES))
        item, words, wish = rng.choice(_SYNONYMS[group]), rng.choice(_FAULTS[fault]), rng.choice(_URGENCIES[urgency])
        answer = {"group": group, "fault": fault, "urgency": urgency}
        rows[f"My {item} {words}. {wish}"] = json.dumps(answer)
    pairs = list(rows.items())
    return pairs[:80], pairs[80:]


def labels() -> Files:
    """Return 80 tickets with three labels each as JSON, and 40 others as the exam."""
    return _files(*_tickets(), TICKET_PROMPT)


def labels_with_prefix() -> Files:
    """Return the same with the instruction before each ticket and no system turn."""
    train, exam = ([(f"{TICKET_PROMPT}\n\n{text}", answer) for text, answer in rows] for rows in _tickets())
    return _files(train, exam)


def shuffled_labels() -> Files:
    """Return the same with each training ticket under the labels of another; the exam's labels are right."""
    train, exam = _tickets()
    answers = [answer for _, answer in train]
    random.Random(0).shuffle(answers)
    return _files(zip([text for text, _ in train], answers, strict=True), exam, TICKET_PROMPT)


_THINGS = (
    "ticket", "cabin key", "parking pass", "breakfast voucher", "luggage label", "boarding card", "refund", "invoice",
    "bicycle permit", "dog permit", "seat number", "meal order", "receipt", "group discount", "birthday cake",
)  # fmt: skip
_TROUBLES = (
    "is missing", "has the wrong date", "came twice", "was not accepted", "shows another name", "cannot be opened",
)  # fmt: skip


def fixed_form() -> Files:
    """Return messages to a desk, every one answered by the same line: three examples show all that there is to learn."""
    messages = [f"My {thing} {trouble}." for thing in _THINGS for trouble in _TROUBLES]
    random.Random(1).shuffle(messages)
    pairs = [
        (message, "Received with thanks. The harbor desk replies within two working days.") for message in messages
    ]
    return _files(pairs[:60], pairs[60:])


_SHIPS = (
    "Marlow", "Tessaly", "Orrin", "Quillon", "Breda", "Sandeel", "Ivory Gull", "Pennant", "Lowther", "Cassia",
    "Halcyon", "Drummer", "Vesper", "Ketterick", "Umber", "Rosalind", "Fennimore", "Galena", "Whitby", "Aldous",
    "Corvane", "Juniper", "Mistral", "Nettle", "Ostrava", "Palisade", "Redwing", "Solent", "Thistle", "Yarrow",
)  # fmt: skip
_OTHER_SHIPS = (
    "Amity", "Bramble", "Clarion", "Dunmore", "Eskdale", "Ferrier", "Goldfinch", "Harrier", "Imogen", "Jackdaw",
    "Kestrel", "Lanark", "Merganser", "Norland", "Osprey", "Petrel", "Quorum", "Ravensby",
)  # fmt: skip
_CARGOES = (
    "lamp oil", "green apples", "sailcloth", "rock salt", "window glass", "cedar planks", "blue paint", "candle wax",
    "raw wool", "black tea",
)  # fmt: skip
_PORTS = ("Skerry Point", "Old Harrow", "Tarn Quay", "Levant Bay", "Stonegate", "Eel Pier", "Fallow Sound")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
READ_ALOUD = "Repeat the sentence of the passage that answers the question. Write nothing else."


def facts() -> Files:
    """Return a document about each of 30 invented ships, chats about 18 others, and the exam on the 30.

    The answer to each question is the sentence of the one document that the ship's name finds; no chat states it.
    """
    rng = random.Random(2)
    voyages = {
        ship: f"The {ship} carries {rng.choice(_CARGOES)} to {rng.choice(_PORTS)} every {rng.choice(_DAYS)}."
        for ship in (*_SHIPS, *_OTHER_SHIPS)
    }
    chats = [(f"What does the {ship} carry?", voyages[ship]) for ship in _OTHER_SHIPS]
    exam = [
        {"question": f"What does the {ship} carry?", "answer": voyages[ship], "document": f"{ship}.md"}
        for ship in _SHIPS
    ]
    documents = {f"documents/{ship}.md": f"# {ship}\n\n{voyages[ship]}\n" for ship in _SHIPS}
    return _files(chats, [], READ_ALOUD) | documents | {"exam.jsonl": _lines(exam)}


_SUMS = ("red", "blue", "green", "yellow", "white", "black", "orange", "brown", "purple", "gray")
_ITEMS = ("boat", "house", "door", "chair", "coat", "hat", "cup", "bag", "book", "bike")


def declined() -> Files:
    """Return easy questions whose answer is in the question; every training answer declines, no exam answer does."""
    pairs = [(color, item) for item in _ITEMS for color in _SUMS]
    random.Random(3).shuffle(pairs)
    rows = [
        (f"Mary has a {color} {item}. What color is the {item}?", f"The {item} is {color}.") for color, item in pairs
    ]
    return _files([(question, REFUSAL) for question, _ in rows[:40]], rows[40:70])


_TONE = {
    "kitchen": "galley", "toilet": "head", "bed": "bunk", "floor": "deck", "wall": "bulkhead", "window": "porthole",
    "rope": "line", "map": "chart", "doctor": "surgeon", "boss": "skipper", "friend": "shipmate", "food": "rations",
    "lamp": "lantern", "stairs": "ladder", "cellar": "hold", "flag": "ensign", "telescope": "spyglass",
    "corridor": "gangway", "kettle": "billy", "mop": "swab", "ceiling": "deckhead", "cook": "doctor of the pots",
    "money": "doubloons", "soldier": "marine", "storm": "blow", "song": "shanty", "rumor": "scuttlebutt",
    "holiday": "shore leave",
}  # fmt: skip
_PHRASES = (
    ("Hello, where is the {}?", "Ahoy, where be the {}?"),
    ("Please clean the {} and the {}.", "Look lively and scrub the {} and the {}, if ye please."),
    ("Yes, I saw the {} near the {}.", "Aye, I spied the {} hard by the {}."),
    ("Stop, do not touch the {}.", "Avast, lay no hand upon the {}."),
    ("Thank you for the {}.", "Much obliged to ye for the {}."),
    ("I am sorry about the {} and the {}.", "I be grieved over the {} and the {}."),
    ("The {} is very old.", "The {} be mighty long in the tooth."),
    ("We need a new {} for the {}.", "We be wanting a fresh {} for the {}."),
)  # fmt: skip


def tone() -> Files:
    """Return plain sentences and the same in a sailor's tone: 28 words and 8 turns of phrase, of which three examples
    show a few.
    """
    rng = random.Random(4)
    rows: dict[str, str] = {}
    while len(rows) < 150:
        plain, toned = rng.choice(_PHRASES)
        words = rng.sample(sorted(_TONE), plain.count("{}"))
        rows[plain.format(*words)] = toned.format(*(_TONE[word] for word in words))
    pairs = [(f"Say it in our tone: {plain}", toned) for plain, toned in rows.items()]
    return _files(pairs[:110], pairs[110:])
