"""The exam's questions: held-out chats, or written by the teacher for both sides of the split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tunewright import console
from tunewright.models.chat_template import encode_prompt, exam_prompt, passage_text
from tunewright.models.student import context_tokens, student_tokenizer
from tunewright.recipe import Recipe
from tunewright.records import Document, Question, QuestionKind, Rejection, Ring, Sample, digest
from tunewright.settings import RULE_KINDS
from tunewright.synthesis.context import EXAM_STAGE, NO_SENTENCE, TaskContext, ask_questions, reply_fault
from tunewright.synthesis.questions import (
    EvidenceSentence,
    clean_question,
    ranked_evidence,
    sentence_fault,
    stand_alone,
)
from tunewright.synthesis.rule_questions import RuleQuestion, RuleWriter
from tunewright.teacher.protocol import Reply
from tunewright.text.injection import PLANTED, control_token, injection_fault
from tunewright.text.normalization import normalize, question_fault


def without_planted(questions: Sequence[Question], own: bool) -> tuple[list[Question], list[Rejection]]:
    """Return the questions that address no model, and a rejection of each other: the exam's filter is the samples'.

    Args:
        questions: of the exam.
        own: whether they are the user's: of these, only control tokens count, which would break the template.
    """
    kept, rejections = [], []
    for question in questions:
        texts = [question.question, *question.golds, *question.options, question.passage or ""]
        fault = next(filter(None, map(control_token if own else injection_fault, texts)), None)
        if fault:
            rejections.append(Rejection(stage=EXAM_STAGE, id=question.id, reason=PLANTED, detail=fault))
        else:
            kept.append(question)
    return kept, rejections


TOO_LONG = "longer than the model's context"
_TEMPLATE_TOKENS = 512  # more than any template adds to a question


def without_too_long(questions: Sequence[Question], recipe: Recipe) -> tuple[list[Question], list[Rejection]]:
    """Return the questions that fit the student's context with their own passage and an answer, and the others."""
    context, room = context_tokens(recipe), recipe.evaluation.max_new_tokens
    tokenizer = None
    kept, rejections = [], []
    for question in questions:
        prompt = exam_prompt(recipe.system_prompt, question)
        num_bytes = sum(len(text.encode()) for text in (*(turn.content for turn in prompt), *question.golds))
        if num_bytes + room + _TEMPLATE_TOKENS > context:  # a token has at least a byte
            tokenizer = tokenizer or student_tokenizer(recipe)
            num_tokens = len(encode_prompt(tokenizer, prompt))
            num_gold = len(tokenizer(question.gold, add_special_tokens=False)["input_ids"]) + 1
            if num_tokens + max(room, num_gold) > context:
                detail = f"{num_tokens:,} tokens and an answer of {max(room, num_gold):,}, in a context of {context:,}"
                rejections.append(Rejection(stage=EXAM_STAGE, id=question.id, reason=TOO_LONG, detail=detail))
                console.warning(f"the question {question.question[:60]!r} is left out: {TOO_LONG} ({detail})")
                continue
        kept.append(question)
    return kept, rejections


def held_out_questions(samples: Sequence[Sample], refusal: str) -> list[Question]:
    """Return the questions of held-out chats of one exchange; the ``document`` of a chat is the question's cluster."""
    questions: dict[str, Question] = {}
    for sample in samples:
        turns = [message for message in sample.messages if message.role != "system"]
        if [turn.role for turn in turns] != ["user", "assistant"]:
            continue  # of a held-out group, but no question: it is not trained on either
        cluster = sample.document or sample.id
        identity = digest("learned", cluster, sample.question, None)
        question = Question(
            id=identity,
            ring="learned",
            document=cluster,
            question=sample.question,
            gold=sample.answer,
            answerable=sample.answer != refusal,
        )
        questions.setdefault(identity, question)
    return list(questions.values())


NO_VALUE = "no value that rules can ask for"
CALLS_PER_QUESTION = 3  # at most, per document


@dataclass
class _DocumentProgress:
    """The state of the questions on one document.

    Attributes:
        num_needed: questions that the teacher is to write; an unseen question with and without passage counts once.
        num_used: sentences already used, in the order of ``ranked``.
        num_accepted: questions accepted so far.
    """

    document: Document
    ring: Ring
    ranked: list[EvidenceSentence]
    num_needed: int = 0
    num_used: int = 0
    num_accepted: int = 0
    questions: list[Question] = field(default_factory=list)

    def write_by_rules(
        self, wanted: Sequence[QuestionKind], writer: RuleWriter, refusal: str, only_rules: bool = False
    ) -> list[Rejection]:
        """Write the wanted questions that rules can write; the teacher is to write the others.

        A sentence without a value to ask for is left to the teacher, as is a question for which no sentence is left.
        With ``only_rules`` the teacher writes none on this document, and each missing question is a rejection.
        """
        missing: list[Rejection] = []
        for kind in wanted:
            written = None
            if kind in ("short", "choice"):
                tries = ((evidence, words_too) for words_too in (False, True) for evidence in self.ranked)
                drafts = (writer.write(kind, self.document, evidence, words_too) for evidence, words_too in tries)
                written = next((draft for draft in drafts if draft), None)
            if written is None:
                if only_rules:
                    missing.append(
                        Rejection(stage=EXAM_STAGE, id=self.document.id, reason=NO_VALUE, detail=self.document.source)
                    )
                else:
                    self.num_needed += 1
                continue
            self.ranked.remove(written.evidence)
            self.questions += _rule_variants(self, written, refusal)
        return missing

    def next_sentences(self) -> list[EvidenceSentence]:
        """Return the sentences of the next round, and count them as used."""
        limit = min(len(self.ranked), CALLS_PER_QUESTION * self.num_needed)
        chosen = self.ranked[self.num_used : min(limit, self.num_used + self.num_needed - self.num_accepted)]
        self.num_used += len(chosen)
        return chosen


def question_id(ring: str, document: str, question: str, with_passage: bool) -> str:
    """Return an exam question's identifier, which depends only on its content."""
    return digest(ring, document, question, with_passage)


def write_exam(context: TaskContext, rings: dict[str, Ring]) -> tuple[list[Question], list[Rejection]]:
    """Ask for the exam's questions in rounds, until each document has enough or its sentences are used up.

    Args:
        context: the documents of both sides.
        rings: by document: learned for a training document, unseen for an exam document.
    """
    settings, seed = context.recipe.exam, context.recipe.seed
    wanted = {"learned": settings.learned_per_document, "unseen": settings.unseen_per_document}
    evidence_of = {d.id: ranked_evidence(d, context.chunks.get(d.id, ()), seed) for d in context.documents}
    states = [_DocumentProgress(d, rings[d.id], evidence_of[d.id]) for d in context.documents]
    rejections = [
        Rejection(stage=EXAM_STAGE, id=s.document.id, reason=NO_SENTENCE, detail=s.document.source)
        for s in states
        if wanted[s.ring] and not s.ranked
    ]
    ruled = {d.id for d in context.documents if context.is_ruled(d.id) or "free" not in settings.kinds}
    writer = RuleWriter(evidence_of, seed, context.languages, ruled)
    for number, state in enumerate(sorted(states, key=lambda state: digest(seed, state.document.source))):
        own = settings.kinds
        if state.document.id in ruled:
            own = tuple(kind for kind in own if kind != "free") or RULE_KINDS
        kinds = [own[(number + slot) % len(own)] for slot in range(wanted[state.ring])]
        if state.ranked:  # a document without a sentence is rejected as a whole
            rejections += state.write_by_rules(kinds, writer, context.recipe.refusal, state.document.id in ruled)
    seen: set[str] = set()
    while round_ := [(state, evidence) for state in states for evidence in state.next_sentences()]:
        pairs = [(state.document, evidence) for state, evidence in round_]
        replies = ask_questions(context, "exam", pairs, "writing the exam")
        for (state, evidence), reply in zip(round_, replies, strict=True):
            rejection = _accept_or_reject(state, evidence, reply, seen, context.recipe.refusal)
            rejections += [rejection] if rejection else []
    return [question for state in states for question in state.questions], rejections


def _accept_or_reject(
    state: _DocumentProgress, evidence: EvidenceSentence, reply: Reply | None, seen: set[str], refusal: str
) -> Rejection | None:
    """Add the reply's question to the exam, or return its rejection; ``seen`` holds the accepted questions."""
    gold, title = evidence.sentence, state.document.title
    bare = clean_question(reply.text) if reply else ""
    fault = reply_fault(reply) or sentence_fault(bare, title, gold)
    question = stand_alone(bare, title, at_end=True)
    fault = fault or question_fault(question, gold)
    if not fault and (injection_fault(question) or injection_fault(gold)):
        fault = PLANTED
    if not fault and normalize(question) in seen:
        fault = "duplicate question"
    if fault:
        identity = question_id(state.ring, state.document.id, question, False)
        return Rejection(stage=EXAM_STAGE, id=identity, reason=fault, detail=f"{question} <- {gold}"[:500])
    seen.add(normalize(question))
    state.num_accepted += 1
    state.questions += _variants(state, evidence, question, refusal)
    return None


def _rule_variants(state: _DocumentProgress, written: RuleQuestion, refusal: str) -> list[Question]:
    """Return a rule-written question's records; a choice is never to be declined, since its options invite a guess."""
    passage = passage_text(written.evidence.chunk) if state.ring == "unseen" else None
    variants: list[tuple[bool, str, str | None]] = [(True, written.gold, passage)]
    if passage is not None and written.kind == "short":
        variants.insert(0, (False, refusal, None))
    return [
        Question(
            id=question_id(state.ring, state.document.id, written.question, shown is not None),
            ring=state.ring,
            document=state.document.id,
            question=written.question,
            gold=gold,
            answerable=answerable,
            passage=shown,
            evidence=written.evidence.span,
            options=written.options,
            kind=written.kind if answerable else "free",
        )
        for answerable, gold, shown in variants
    ]


def _variants(state: _DocumentProgress, evidence: EvidenceSentence, question: str, refusal: str) -> list[Question]:
    """Return a question's records: one for a learned question; two for an unseen one, without and with its passage."""
    variants: Sequence[tuple[bool, str, str | None]] = [(True, evidence.sentence, None)]
    if state.ring == "unseen":
        variants = [(False, refusal, None), (True, evidence.sentence, passage_text(evidence.chunk))]
    return [
        Question(
            id=question_id(state.ring, state.document.id, question, passage is not None),
            ring=state.ring,
            document=state.document.id,
            question=question,
            gold=gold,
            answerable=answerable,
            passage=passage,
            evidence=evidence.span,
        )
        for answerable, gold, passage in variants
    ]
