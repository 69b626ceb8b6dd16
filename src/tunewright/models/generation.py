"""Generation: answers token by token, greedy or drawn, and the scores of given answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

from tunewright.models.chat_template import visible_text
from tunewright.models.hardware import or_halve
from tunewright.models.separate_rows import open_decoder

if TYPE_CHECKING:
    import torch
    from numpy import ndarray
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tunewright.models.decoder import Decoding


@dataclass(frozen=True)
class AnswerJob:
    """A prompt to answer, and answers to score.

    Attributes:
        prompt_ids: the prompt's tokens.
        gold_ids: the gold answer's tokens, with its end token.
        seed: of the drawn tokens.
        contrast_ids: tokens of a false answer to score beside the gold answer; empty without one.
        option_ids: tokens of each option to score, without an end token; empty without any.
    """

    prompt_ids: Sequence[int]
    gold_ids: Sequence[int]
    seed: int = 0
    contrast_ids: Sequence[int] = ()
    option_ids: Sequence[Sequence[int]] = ()


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn: at a temperature, from the fewest tokens that together have ``top_p`` of the probability.

    Nucleus sampling (Holtzman et al. 2020, arXiv 1904.09751).
    """

    temperature: float
    top_p: float


@dataclass(frozen=True)
class Output:
    """The answer to a job.

    Attributes:
        token_ids: the answer, without its end token.
        finish: "stop" at an end token, "length" where the answer is cut.
        gold_nll: negative log-likelihood of the gold answer in nats per token; 0 without a gold answer.
        duration_s: the job's share of its batch's time.
        contrast_nll: as ``gold_nll``, of the false answer; None without one.
        option_nlls: negative log-likelihood of each option in nats, over all of its tokens.
    """

    token_ids: list[int]
    finish: Literal["stop", "length"]
    gold_nll: float
    duration_s: float
    contrast_nll: float | None = None
    option_nlls: tuple[float, ...] = ()


_PROMPT_TOKENS, _GOLD_TOKENS = 512, 64  # of a usual job: a batch has no more in all than ``batch_size`` of these


def batches(jobs: Sequence[AnswerJob], batch_size: int) -> list[list[int]]:
    """Return the jobs' indices in batches of similar length, longest first, so that a lack of memory shows at once.

    A batch has at most ``batch_size`` jobs, and fewer where they are long: its memory grows with its tokens, padding
    included. A pure function of all jobs: a resumed run forms the same batches, and so gets the same answers.
    """
    order = sorted(range(len(jobs)), key=lambda number: (-len(jobs[number].prompt_ids), number))
    planned: list[list[int]] = []
    longest_gold = 0
    for number in order:
        job = jobs[number]
        num_gold = max(map(len, (job.gold_ids, job.contrast_ids, *job.option_ids)))
        num_rows, longest_gold = len(planned[-1]) + 1 if planned else 0, max(longest_gold, num_gold)
        fits = planned and (
            num_rows <= batch_size
            and num_rows * len(jobs[planned[-1][0]].prompt_ids) <= batch_size * _PROMPT_TOKENS
            and num_rows * longest_gold <= batch_size * _GOLD_TOKENS
        )
        if not fits:
            planned.append([])
            longest_gold = num_gold
        planned[-1].append(number)
    return planned


def _chances(jobs: Sequence[AnswerJob], num_tokens: int, device: torch.device) -> Tensor:
    """Return a number in [0, 1) for each job and token, [job, token], from the job's own seed.

    What a job draws depends neither on its batch nor on the device.
    """
    import torch

    rows = [torch.rand(num_tokens, generator=torch.Generator().manual_seed(job.seed)) for job in jobs]
    return torch.stack(rows).to(device)


def draw_tokens(logits: Tensor, chances: Tensor, sample: Sampling) -> Tensor:
    """Return a token for each row, [row]: the token in whose share of the sorted probabilities the row's chance falls.

    Args:
        logits: [row, vocabulary].
        chances: [row], in [0, 1).
        sample: temperature and nucleus.
    """
    import torch

    ordered, tokens = (logits.float() / sample.temperature).softmax(-1).sort(descending=True, stable=True)
    before = ordered.cumsum(-1) - ordered  # the likeliest token always remains
    reached = (ordered * (before < sample.top_p)).cumsum(-1)
    rank = torch.searchsorted(reached, (chances * reached[:, -1])[:, None], right=True)
    return tokens.gather(-1, rank.clamp(max=tokens.shape[-1] - 1))[:, 0]


def _score_options(decoder: Decoding, jobs: Sequence[AnswerJob]) -> list[tuple[float, ...]]:
    """Return the nats of each job's options; the first options of all jobs are scored together, then the others."""
    columns = list(zip_longest(*(job.option_ids for job in jobs), fillvalue=()))
    means = [decoder.score(column) for column in columns]
    return [
        tuple(means[index][row] * len(ids) for index, ids in enumerate(job.option_ids)) for row, job in enumerate(jobs)
    ]


def answer_batch(
    model: PreTrainedModel,
    jobs: Sequence[AnswerJob],
    max_new_tokens: int,
    end_ids: Sequence[int],
    pad_id: int,
    sample: Sampling | None = None,
) -> list[Output]:
    """Answer a batch, and score its gold answers from the same computation of the prompts.

    Args:
        model: a causal language model in evaluation mode.
        jobs: the batch; see ``batches``.
        max_new_tokens: answers are cut there, and then finish with "length".
        end_ids: tokens that end an answer; they are not part of the returned tokens.
        pad_id: fills the rows; masked, so any token will do.
        sample: how to draw the tokens, by each job's seed; None takes the likeliest token.
    """
    import torch

    start = time.monotonic()
    with torch.inference_mode():
        decoder = open_decoder(model, [job.prompt_ids for job in jobs], pad_id)
        losses = decoder.score([job.gold_ids for job in jobs])
        contrasts = decoder.score([job.contrast_ids for job in jobs])
        options = _score_options(decoder, jobs)
        decoder.record(max_new_tokens - 1)
        texts: list[list[int]] = [[] for _ in jobs]
        done = [False] * len(jobs)
        rows = list(range(len(jobs)))
        chances = _chances(jobs, max_new_tokens, decoder.logits.device) if sample else None
        for position in range(max_new_tokens):
            logits = decoder.logits
            if sample and chances is not None:
                tokens = draw_tokens(logits, chances[rows, position], sample)
            else:
                tokens = logits.argmax(-1)
            for row, token in zip(rows, tokens.tolist(), strict=True):
                if not done[row]:
                    done[row] = token in end_ids
                    texts[row] += [] if done[row] else [token]
            active = [index for index, row in enumerate(rows) if not done[row]]
            if not active or position == max_new_tokens - 1:
                break
            if decoder.recorded is None and len(active) <= len(rows) * 3 // 4:
                keep = torch.tensor(active, device=tokens.device)
                decoder.keep_rows(keep)
                tokens, rows = tokens[keep], [rows[index] for index in active]
            decoder.step(tokens)
    share = (time.monotonic() - start) / len(jobs)
    return [
        Output(text, "stop" if end else "length", loss, share, contrast if job.contrast_ids else None, nats)
        for job, text, end, loss, contrast, nats in zip(jobs, texts, done, losses, contrasts, options, strict=True)
    ]


def answer_or_halve(
    model: PreTrainedModel,
    jobs: Sequence[AnswerJob],
    max_new_tokens: int,
    end_ids: Sequence[int],
    pad_id: int,
    sample: Sampling | None = None,
) -> list[Output]:
    """Answer a batch as ``answer_batch`` does; if memory runs out, its halves one after the other."""
    return or_halve(lambda part: answer_batch(model, part, max_new_tokens, end_ids, pad_id, sample), jobs)


def next_log_probs(model: PreTrainedModel, jobs: Sequence[AnswerJob], pad_id: int) -> ndarray:
    """Return the next token's log-probabilities after each prompt in nats: [job, vocabulary], float32."""
    import torch

    with torch.inference_mode():
        logits = open_decoder(model, [job.prompt_ids for job in jobs], pad_id).logits
        log_probs: ndarray = logits.float().log_softmax(-1).cpu().numpy()
        return log_probs


MAX_NEW_TOKENS = 512  # of an answer in a chat or to a program, unless the request sets it


def decode_stream(tokenizer: PreTrainedTokenizerBase, tokens: Iterable[int]) -> Iterator[str]:
    """Yield the text of a growing answer piece by piece, in whole characters."""
    yielded = ""
    ids: list[int] = []
    for token in tokens:
        ids.append(token)
        text = visible_text(tokenizer, ids)
        if not text.endswith("\ufffd"):  # in the middle of a multi-byte character
            yield text[len(yielded) :]
            yielded = text


def stream(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    end_ids: Sequence[int],
) -> Iterator[str]:
    """Yield a greedy answer piece by piece, in whole characters."""
    return decode_stream(tokenizer, greedy(model, prompt_ids, max_new_tokens, end_ids, tokenizer.pad_token_id))


def argmax(logits: Tensor, ids: Sequence[int]) -> int:
    """Return the likeliest token of logits [1, vocabulary], whatever the tokens before it."""
    return int(logits.argmax(-1)[0])


def greedy(
    model: PreTrainedModel, prompt_ids: Sequence[int], max_new_tokens: int, end_ids: Sequence[int], pad_id: int
) -> Iterator[int]:
    """Yield the tokens of a greedy answer."""
    return generate_tokens(model, prompt_ids, max_new_tokens, end_ids, pad_id, argmax)


def generate_tokens(
    model: PreTrainedModel,
    prompt_ids: Sequence[int],
    max_new_tokens: int,
    end_ids: Sequence[int],
    pad_id: int,
    choose: Callable[[Tensor, Sequence[int]], int],
) -> Iterator[int]:
    """Yield the tokens of an answer; torch's inference mode is off between tokens, so that answers may alternate.

    Args:
        model: a causal language model in evaluation mode.
        prompt_ids: the prompt.
        max_new_tokens: the answer is cut there.
        end_ids: tokens that end the answer, and are not part of it.
        pad_id: the tokenizer's padding token.
        choose: (logits [1, vocabulary], the answer's tokens so far) → the next token.
    """
    import torch

    with torch.inference_mode():
        decoder = open_decoder(model, [prompt_ids], pad_id)
        decoder.record(max_new_tokens - 1)
    ids: list[int] = []
    for position in range(max_new_tokens):
        with torch.inference_mode():
            token = choose(decoder.logits, ids)
        if token in end_ids:
            return
        ids.append(token)
        yield token
        if position < max_new_tokens - 1:
            with torch.inference_mode():
                decoder.step(torch.tensor([token], device=model.device))
