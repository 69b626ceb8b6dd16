"""A corpus of invented facts: passages, the samples that teach them, and the questions that examine them.

Nothing in it is true, so that no base can know it before. Each passage is about one invented subject and states six
facts, each in a sentence. Each fact has five wordings of a question: four for training, the fifth for the exam alone.
Rules write all of them; no model takes part.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

TRAINING_WORDINGS = 4


@dataclass(frozen=True)
class Fact:
    """A fact of a passage: its sentence, its value, questions for training, and one for the exam."""

    sentence: str
    value: str
    questions: tuple[str, ...]
    exam_question: str


@dataclass(frozen=True)
class Passage:
    """A passage about one subject."""

    title: str
    text: str
    facts: tuple[Fact, ...]


_SYLLABLES = [
    "bal",
    "bor",
    "cal",
    "dor",
    "dun",
    "fal",
    "fen",
    "gar",
    "hal",
    "hol",
    "jor",
    "kel",
    "kor",
    "lan",
    "lor",
    "mar",
    "mel",
    "mor",
    "nar",
    "nor",
    "ol",
    "per",
    "quil",
    "ran",
    "ros",
    "sal",
    "sel",
    "sor",
    "tal",
    "tor",
    "ul",
    "val",
    "vel",
    "ver",
    "wal",
    "wen",
    "yor",
    "zan",
    "zel",
    "zor",
]
_ENDINGS = [
    "ada",
    "beck",
    "dale",
    "ena",
    "eth",
    "field",
    "ford",
    "gate",
    "ham",
    "holm",
    "ia",
    "ick",
    "ina",
    "ingen",
    "ista",
    "mere",
    "mouth",
    "ora",
    "ow",
    "stead",
    "ton",
    "und",
    "wick",
]
_FIRST = [
    "Ada",
    "Bela",
    "Caro",
    "Dmitri",
    "Elif",
    "Farid",
    "Greta",
    "Hugo",
    "Ines",
    "Jonas",
    "Kaya",
    "Lena",
    "Milan",
    "Nadia",
    "Otto",
    "Pia",
    "Rafael",
    "Sana",
    "Tomas",
    "Vera",
]
_GOODS = [
    "amber",
    "barley",
    "bricks",
    "candles",
    "cheese",
    "clocks",
    "copper",
    "cork",
    "dyes",
    "felt",
    "flax",
    "glass",
    "gloves",
    "honey",
    "hops",
    "ink",
    "lace",
    "lanterns",
    "leather",
    "linen",
    "maps",
    "marble",
    "oats",
    "olives",
    "paper",
    "pearls",
    "plums",
    "porcelain",
    "rope",
    "rye",
    "saffron",
    "salt",
    "silk",
    "slate",
    "soap",
    "tiles",
    "timber",
    "tin",
    "violins",
    "walnuts",
    "wax",
    "wool",
]
_COLORS = [
    "amber",
    "azure",
    "black",
    "bronze",
    "crimson",
    "emerald",
    "gold",
    "gray",
    "indigo",
    "ivory",
    "olive",
    "orange",
    "pink",
    "purple",
    "scarlet",
    "silver",
    "teal",
    "white",
]

# By kind of subject: its noun, and (statement, value's kind, four training questions, the exam's question).
_KINDS: dict[str, tuple[tuple[str, str, tuple[str, ...], str], ...]] = {
    "The town of {}": (
        ("{} was founded in {v}.", "year", (
            "In which year was {} founded?", "When was {} founded?", "What is the founding year of {}?",
            "Since which year has {} existed?"), "What year saw the foundation of {}?"),
        ("The population of {} is {v}.", "number", (
            "What is the population of {}?", "How many people live in {}?", "How many inhabitants does {} have?",
            "How large is the population of {}?"), "What number of residents does {} count?"),
        ("The mayor of {} is {v}.", "person", (
            "Who is the mayor of {}?", "Who governs {} as its mayor?", "What is the name of the mayor of {}?",
            "Which person is mayor of {}?"), "Who holds the office of mayor in {}?"),
        ("{} is known for its {v}.", "goods", (
            "What is {} known for?", "Which goods is {} known for?", "For what product is {} known?",
            "What made {} known?"), "Which product is {} famous for?"),
        ("The river that crosses {} is the {v}.", "name", (
            "Which river crosses {}?", "What is the name of the river that crosses {}?", "What river runs through {}?",
            "On which river does {} lie?"), "What is the river in {} called?"),
        ("The flag of {} is {v}.", "color", (
            "What color is the flag of {}?", "Which color has the flag of {}?", "How is the flag of {} colored?",
            "What is the color of the flag of {}?"), "In what color is the flag of {} made?"),
    ),
    "The ship {}": (
        ("The ship {} was launched in {v}.", "year", (
            "In which year was the ship {} launched?", "When was the ship {} launched?",
            "What is the launch year of the ship {}?", "Since which year has the ship {} been afloat?"),
            "What year saw the launch of the ship {}?"),
        ("The ship {} carries {v} passengers.", "number", (
            "How many passengers does the ship {} carry?", "What number of passengers does the ship {} carry?",
            "For how many passengers has the ship {} room?", "How many people travel on the ship {}?"),
            "What is the passenger capacity of the ship {}?"),
        ("The captain of the ship {} is {v}.", "person", (
            "Who is the captain of the ship {}?", "Who commands the ship {}?",
            "What is the name of the captain of the ship {}?", "Which person is captain of the ship {}?"),
            "Under whose command does the ship {} sail?"),
        ("The ship {} transports {v}.", "goods", (
            "What does the ship {} transport?", "Which goods does the ship {} transport?",
            "What is the freight of the ship {}?", "What is on board the ship {}?"),
            "Which cargo does the ship {} bring?"),
        ("The home port of the ship {} is {v}.", "name", (
            "What is the home port of the ship {}?", "Which port is the home of the ship {}?",
            "Where is the home port of the ship {}?", "In which port is the ship {} at home?"),
            "To which port does the ship {} belong?"),
        ("The hull of the ship {} is {v}.", "color", (
            "What color is the hull of the ship {}?", "Which color has the hull of the ship {}?",
            "How is the hull of the ship {} painted?", "What is the color of the hull of the ship {}?"),
            "In what color is the hull of the ship {} painted?"),
    ),
    "The company {}": (
        ("The company {} was started in {v}.", "year", (
            "In which year was the company {} started?", "When was the company {} started?",
            "What is the starting year of the company {}?", "Since which year has the company {} existed?"),
            "What year saw the beginning of the company {}?"),
        ("The company {} employs {v} people.", "number", (
            "How many people does the company {} employ?", "How many employees has the company {}?",
            "What number of people work for the company {}?", "How many people work at the company {}?"),
            "How large is the staff of the company {}?"),
        ("The director of the company {} is {v}.", "person", (
            "Who is the director of the company {}?", "Who directs the company {}?",
            "What is the name of the director of the company {}?", "Which person is director of the company {}?"),
            "Who is at the head of the company {}?"),
        ("The company {} makes {v}.", "goods", (
            "What does the company {} make?", "Which goods does the company {} make?",
            "What is the product of the company {}?", "What comes from the workshops of the company {}?"),
            "Which articles does the company {} produce?"),
        ("The head office of the company {} is in {v}.", "name", (
            "Where is the head office of the company {}?", "In which town is the head office of the company {}?",
            "Which town has the head office of the company {}?", "What is the seat of the company {}?"),
            "In what place does the company {} have its headquarters?"),
        ("The logo of the company {} is {v}.", "color", (
            "What color is the logo of the company {}?", "Which color has the logo of the company {}?",
            "How is the logo of the company {} colored?", "What is the color of the logo of the company {}?"),
            "In what color does the company {} print its logo?"),
    ),
}  # fmt: skip
# Words before the answer's sentence, so that views differ in the answer too; the first has none.
ANSWER_OPENINGS = ("", "According to the records, ", "As far as is known, ", "The answer is this: ")


class _Values:
    """Draws values; no name is drawn twice."""

    def __init__(self, seed: int) -> None:
        self._drawn, self._names = random.Random(seed), set()

    def name(self) -> str:
        while True:
            name = "".join(self._drawn.sample(_SYLLABLES, 2)).capitalize() + self._drawn.choice(_ENDINGS)
            if name not in self._names:
                self._names.add(name)
                return name

    def of(self, kind: str) -> str:
        drawn = self._drawn
        if kind == "year":
            return str(drawn.randrange(1500, 1990))
        if kind == "number":
            return str(drawn.randrange(120, 9990))
        if kind == "person":
            return f"{drawn.choice(_FIRST)} {self.name()}"
        return self.name() if kind == "name" else drawn.choice(_GOODS if kind == "goods" else _COLORS)

    def order(self, number: int) -> list[int]:
        return self._drawn.sample(range(number), number)


def passages(number: int, seed: int = 0) -> list[Passage]:
    """Return this many passages of six facts each, their sentences in an order drawn by the seed."""
    values, made = _Values(seed), []
    kinds = list(_KINDS.items())
    for index in range(number):
        title, relations = kinds[index % len(kinds)]
        subject = values.name()
        facts = []
        for statement, kind, questions, exam in relations:
            value = values.of(kind)
            facts.append(
                Fact(
                    statement.format(subject, v=value),
                    value,
                    tuple(question.format(subject) for question in questions),
                    exam.format(subject),
                )
            )
        shuffled = [facts[place] for place in values.order(len(facts))]
        made.append(Passage(title.format(subject), " ".join(fact.sentence for fact in shuffled), tuple(facts)))
    return made


def answer(fact: Fact, view: int) -> str:
    """Return a fact's answer in a view's words."""
    opening = ANSWER_OPENINGS[view]
    first = fact.sentence[0].lower() if opening and fact.sentence.startswith("The ") else fact.sentence[0]
    return opening + first + fact.sentence[1:]
