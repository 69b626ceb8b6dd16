"""A user's own exam of 1,000 rows: is it read, is it scored as a person would, and does `plan` know how long it takes?

    python benchmarks/own_exam.py [--questions 1000] [--work DIR] [-o FILE]

The exam is a table about 200 invented towns: quantities with units, names with variants, lists, labels as JSON, dates, and
questions that nothing answers. Its content is known, so that each row has answers whose score a person would give without
doubt: right in other words, units or forms, half right, wrong, declined. Then the embedded model answers all rows as base
and few-shot, and the processor time is held against what `plan` said before; on a machine at rest, divided by its cores,
it is the time that passes. About ten minutes of one core.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from plan_minutes import BOUND, planned_and_measured

from tunewright import environment
from tunewright.metrics import score
from tunewright.models.loading import quiet_libraries
from tunewright.recipe import load_recipe
from tunewright.records import Answer, Question
from tunewright.run_folder import RunFile, RunFolder

RESULTS = Path(__file__).parent / "results" / "own_exam.json"
REFUSAL = "The records do not say."
_FIRST = ("Edda", "Orla", "Tamsin", "Ivo", "Berit", "Casper", "Milla", "Anselm", "Petra", "Ruben")
_LAST = ("Fenwick", "Brandt", "Alderley", "Quist", "Marsden", "Tolland", "Verity", "Okonjo", "Sandahl", "Whitlock")
_STARTS = ("Mar", "Tes", "Or", "Quill", "Bre", "San", "Pen", "Low", "Cas", "Hal", "Drum", "Ves", "Ket", "Um", "Ros", "Fen",
           "Gal", "Whit", "Ald", "Cor")  # fmt: skip
_ENDS = ("low", "aly", "wick", "ham", "stead", "mere", "bury", "ford", "ness", "holm", "thorpe")
_COLORS = ("red", "white", "blue", "green", "black", "gold", "silver", "purple")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October")


class Row(NamedTuple):
    """A row of the table, and answers to it with the score that a person would give.

    Attributes:
        answer: the right answers, ``||`` between them.
        scored: answers and their scores.
    """

    kind: str
    question: str
    answer: str
    scored: tuple[tuple[str, float], ...]

    @property
    def shown(self) -> str:
        """The right answer as a chat gives it."""
        return ", ".join(self.answer.split(" || ")) if self.kind == "list" else self.answer.split(" || ")[0]


def rows(number: int) -> Iterator[Row]:
    """Yield so many rows, five about each town."""
    rng = random.Random(11)
    towns = [start + end for end in _ENDS for start in _STARTS]
    for town in towns[: -(-number // 5)]:
        weight, year, day = rng.randrange(210, 980), rng.randrange(1801, 1990), rng.randrange(1, 29)
        first, last, month = rng.choice(_FIRST), rng.choice(_LAST), rng.randrange(10)
        other = next(name for name in _LAST if name != last)
        colors = rng.sample(_COLORS, 3)
        yield Row(
            "short", f"How heavy is the town bell of {town}?", f"{weight} kg || {weight} kilograms",
            ((f"The bell weighs {weight} kilograms.", 1.0), (f"{weight * 1000:,} g", 1.0), (f"{weight + 7} kg", 0.0),
             (REFUSAL, 0.0)),
        )  # fmt: skip
        yield Row(
            "short", f"Who cast the town bell of {town}?", f"{first} {last} || the {last} foundry",
            ((f"It was cast by {first} {last} himself.", 1.0), (f"The {last} foundry did.", 1.0),
             (f"{first} {other}", 0.0), ("", 0.0)),
        )  # fmt: skip
        yield Row(
            "list", f"Which colors are in the flag of {town}?", " || ".join(colors),
            ((f"{colors[2]}, {colors[0]} and {colors[1]}", 1.0), ("".join(f"- {color}\n" for color in colors), 1.0),
             (f"{colors[0]} and {colors[1]}", 0.8), ("orange", 0.0)),
        )  # fmt: skip
        labels = {"town": town, "founded": year}
        yield Row(
            "", f"Write the town {town} and the year of its founding as JSON with the keys town and founded.",
            json.dumps(labels),
            ((json.dumps(labels), 1.0), (f"```json\n{json.dumps(labels, indent=1)}\n```", 1.0),
             (json.dumps({**labels, "founded": year + 1}), 0.5), (f"{town} was founded in {year}.", 0.0)),
        )  # fmt: skip
        if month % 2:
            date = f"{day} {_MONTHS[month]} {year}"
            yield Row(
                "short", f"On which day was the bell of {town} hung?", date,
                ((f"It was hung on {_MONTHS[month]} {day}, {year}.", 1.0), (f"{year}-{month + 1:02}-{day:02}", 1.0),
                 (f"{day + 1} {_MONTHS[month]} {year}", 0.0), (REFUSAL, 0.0)),
            )  # fmt: skip
        else:
            yield Row(
                "declined", f"What did the bell ringer of {town} have for breakfast?", "",
                ((REFUSAL, 1.0), ("I don't have any information about that.", 1.0), ("He had porridge.", 0.0)),
            )  # fmt: skip


def write(folder: Path, number: int) -> tuple[Path, list[Row]]:
    """Write the table, 40 chats about other towns, and the recipe; return its path and the rows of the exam."""
    folder.mkdir(parents=True, exist_ok=True)
    written = list(rows(number + 40))
    exam, chats = written[:number], written[number:]
    with (folder / "exam.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["question", "answer", "kind", "answerable", "document"])
        for at, row in enumerate(exam):
            declined = row.kind == "declined"
            kind = "" if declined else row.kind
            table.writerow([row.question, row.answer, kind, str(not declined).lower(), f"town {at // 5}"])
    lines = ({"prompt": row.question, "completion": row.shown or REFUSAL} for row in chats)
    (folder / "chats.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    recipe = folder / "recipe.toml"
    recipe.write_text(
        f'refusal = "{REFUSAL}"\nsystem_prompt = "Answer from the town records, as briefly as you can."\n'
        '[exam]\nfile = "exam.csv"\nretention_items = 0\n[synthesis]\ndata = ["chats.jsonl"]\n'
        "[training]\nepochs = 1\nheld_out_share = 0.0\n"
        '[evaluation]\narms = ["base", "few-shot"]\nmax_new_tokens = 24\n',
        encoding="utf-8",
    )
    return recipe, exam


def scored_as_people_would(questions: list[Question], exam: list[Row]) -> dict[str, Any]:
    """Return how many answers get the score that a person would give, and those that do not."""
    by_text = {question.question: question for question in questions}
    cost: dict[str, Any] = {
        "finish": "stop",
        "num_prompt_tokens": 1,
        "num_tokens": 1,
        "duration_s": 0.0,
        "gold_nll": 0.0,
    }
    different, num = [], 0
    for row in exam:
        for text, expected in row.scored:
            question = by_text[row.question]
            given = score(question, Answer(question=question.id, arm="base", text=text, **cost), REFUSAL).primary
            num += 1
            if abs(given - expected) > 1e-9:
                different.append([row.question, row.answer, text, expected, given])
    return {"answers": num, "different": len(different), "examples": different[:10]}


def measure(folder: Path, number: int) -> dict[str, Any]:
    path, exam = write(folder, number)
    timed = planned_and_measured(load_recipe(path), folder / "run", "evaluate")
    run = RunFolder(folder / "run")
    questions, answers = run.read_records(RunFile.EXAM, Question), run.read_records(RunFile.ANSWERS, Answer)

    def mean(name: str) -> dict[str, float]:
        own = {arm: [getattr(a, name) for a in answers if a.arm == arm] for arm in ("base", "few-shot")}
        return {arm: round(sum(values) / len(values), 1) for arm, values in own.items()}

    return {
        "rows": number,
        "read": len(questions),
        "kinds": {
            kind or "JSON": sum(row.kind == kind for row in exam) for kind in dict.fromkeys(r.kind for r in exam)
        },
        "scored": scored_as_people_would(questions, exam),
        "evaluation": timed,
        "mean_tokens": {"prompt": mean("num_prompt_tokens"), "answer": mean("num_tokens")},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--work", type=Path, default=Path("build/own-exam"), help="folder of data and run, made anew")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    quiet_libraries()
    result = measure(options.work, options.questions)
    record = {
        "command": f"python benchmarks/own_exam.py --questions {options.questions}",
        "versions": environment.versions(),
        "machine": environment.machine(),
        **result,
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    return int(result["scored"]["different"] > 0 or abs(result["evaluation"]["off"]) > BOUND)


if __name__ == "__main__":
    sys.exit(main())
