from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from tunewright.models.chat_template import encode_prompt, end_ids, load_tokenizer
from tunewright.models.generation import AnswerJob, Sampling, answer_batch, batches, draw_tokens, stream
from tunewright.records import Message

QUESTIONS = ["Which group had the lower risk?", "What?", "Who followed 426 patients in three hospitals, and why?", "W"]


@pytest.fixture(scope="module")
def loaded(tiny_model):
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32).eval()
    return model, load_tokenizer(tiny_model)


def jobs_for(tokenizer, system="You answer questions about a collection of documents."):
    prompts = [
        encode_prompt(tokenizer, [Message(role="system", content=system), Message(role="user", content=q)])
        for q in QUESTIONS
    ]
    golds = [tokenizer(text)["input_ids"] + [2] for text in ("It.", "The treated group had it.", "Nobody", "a b c d")]
    return [AnswerJob(p, g) for p, g in zip(prompts, golds, strict=True)]


def singly(model, job, limit, ends):
    ids = torch.tensor([job.prompt_ids])
    with torch.inference_mode():
        tokens = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=limit,
            do_sample=False,
            eos_token_id=ends,
            use_cache=True,
        )[0, ids.shape[1] :].tolist()
        logits = model(torch.tensor([[*job.prompt_ids, *job.gold_ids]])).logits[0, ids.shape[1] - 1 : -1]
        nll = torch.nn.functional.cross_entropy(logits, torch.tensor(job.gold_ids)).item()
    return [token for token in tokens if token not in ends], nll


@pytest.mark.parametrize("ends", [[2], [2, *range(250, 400)]], ids=["rarely ends", "rows end at different times"])
def test_batched_answers_equal_single_answers_of_transformers(loaded, ends):
    model, tokenizer = loaded
    jobs = jobs_for(tokenizer)
    outputs = answer_batch(model, jobs, 24, ends, tokenizer.pad_token_id)
    for job, output in zip(jobs, outputs, strict=True):
        tokens, nll = singly(model, job, 24, ends)
        assert output.token_ids == tokens
        assert output.gold_nll == pytest.approx(nll, abs=1e-4)
        assert output.finish == ("length" if len(tokens) == 24 else "stop")


def test_a_cache_under_its_new_name_is_used(loaded, monkeypatch):
    """As in transformers 5.24, whose forward warns of the old name and loses it in 5.40."""
    model, tokenizer = loaded
    jobs, old_forward = jobs_for(tokenizer), type(model).forward
    expected = [output.token_ids for output in answer_batch(model, jobs, 8, [2], tokenizer.pad_token_id)]

    def forward(self, input_ids, attention_mask=None, position_ids=None, cache=None, use_cache=None, logits_to_keep=0):
        return old_forward(
            self, input_ids, attention_mask, position_ids, cache, use_cache=use_cache, logits_to_keep=logits_to_keep
        )

    monkeypatch.setattr(type(model), "forward", forward)
    assert [output.token_ids for output in answer_batch(model, jobs, 8, [2], tokenizer.pad_token_id)] == expected


def test_without_a_shared_prefix_too(loaded):
    model, tokenizer = loaded
    jobs = [AnswerJob(tokenizer(q)["input_ids"], [5, 6]) for q in QUESTIONS]
    for job, output in zip(jobs, answer_batch(model, jobs, 8, [2], 2), strict=True):
        assert output.token_ids == singly(model, job, 8, [2])[0]


def test_stream_yields_the_answer_of_the_batch(loaded):
    model, tokenizer = loaded
    job = jobs_for(tokenizer)[0]
    (output,) = answer_batch(model, [job], 16, [2], 2)
    text = "".join(stream(model, tokenizer, job.prompt_ids, 16, [2]))
    whole = tokenizer.decode(output.token_ids, skip_special_tokens=True)
    assert text
    assert whole.startswith(text)
    assert not whole[len(text) :].strip("\ufffd")  # only half a character may be held back


def test_batches_hold_every_job_once_longest_first():
    jobs = [AnswerJob([0] * length, []) for length in (3, 9, 1, 7, 5)]
    planned = batches(jobs, 2)
    assert sorted(number for batch in planned for number in batch) == [0, 1, 2, 3, 4]
    assert planned[0] == [1, 3]


def test_long_jobs_get_smaller_batches():
    """The tokens of a batch, padding and answers included, have a limit: a few long prompts took all memory."""
    lengths = [2000, 1900, 1500, 700, 600, *[50] * 40]
    planned = batches([AnswerJob([0] * length, [0] * 5) for length in lengths], 8)
    assert [len(batch) for batch in planned] == [2, 2, 6, 8, 8, 8, 8, 3]
    assert all(len(batch) * lengths[batch[0]] <= 8 * 512 for batch in planned)
    golds = batches([AnswerJob([0] * 9, [0] * 300, contrast_ids=[0] * 400) for _ in range(8)], 8)
    assert [len(batch) for batch in golds] == [1] * 8
    assert batches([AnswerJob([0] * 99_999, []), AnswerJob([0], [])], 8) == [[0], [1]]


def test_options_are_scored_as_each_alone_and_change_nothing_else(loaded):
    model, tokenizer = loaded
    jobs = jobs_for(tokenizer)
    golds = [list(job.gold_ids) for job in jobs]
    several = [replace(job, option_ids=golds[: n + 1] if n else []) for n, job in enumerate(jobs)]
    plain, scored = (answer_batch(model, batch, 8, [2], tokenizer.pad_token_id) for batch in (jobs, several))
    assert [(o.token_ids, o.finish) for o in scored] == [(o.token_ids, o.finish) for o in plain]
    for job, output in zip(several, scored, strict=True):
        alone = [
            answer_batch(model, [replace(job, gold_ids=ids, option_ids=())], 1, [2], 2)[0].gold_nll * len(ids)
            for ids in job.option_ids
        ]
        assert list(output.option_nlls) == pytest.approx(alone, rel=1e-3)
    assert [len(output.option_nlls) for output in scored] == [0, *range(2, len(jobs) + 1)]


def test_end_ids_hold_the_turn_end(loaded):
    model, tokenizer = loaded
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in end_ids(tokenizer, model)


def test_draws_follow_the_probabilities_of_the_nucleus():
    """Of probabilities .5 .3 .15 .05 the fewest with .9 are the first three; the sharper temperature squares them."""
    probabilities = torch.tensor([0.15, 0.5, 0.05, 0.3])
    chances = torch.linspace(0, 1, 2001)[:-1]
    logits = probabilities.log().expand(len(chances), -1)
    for temperature, top_p in ((1.0, 0.9), (0.5, 0.9), (1.0, 1.0), (1.0, 0.01)):
        tokens = draw_tokens(logits, chances, Sampling(temperature, top_p))
        frequencies = torch.bincount(tokens, minlength=4) / len(chances)
        sharp = probabilities ** (1 / temperature)
        sharp = sharp / sharp.sum()
        kept, total = torch.zeros(4), 0.0
        for number in sharp.argsort(descending=True).tolist():
            if total < top_p:
                kept[number] = sharp[number]
            total += float(sharp[number])
        assert torch.allclose(frequencies, kept / kept.sum(), atol=2e-3)


def test_a_sampled_answer_depends_on_its_seed_and_not_on_its_batch(loaded):
    model, tokenizer = loaded
    sampling = Sampling(temperature=0.8, top_p=0.95)
    jobs = [AnswerJob(job.prompt_ids, (), seed) for job in jobs_for(tokenizer) for seed in (1, 2)]
    together = answer_batch(model, jobs, 12, [2], 2, sampling)
    alone = [answer_batch(model, [job], 12, [2], 2, sampling)[0] for job in jobs]
    assert [output.token_ids for output in together] == [output.token_ids for output in alone]
    assert together[0].token_ids != together[1].token_ids  # one prompt, two seeds
    greedy = answer_batch(model, jobs, 12, [2], 2)
    assert greedy[0].token_ids == greedy[1].token_ids != together[0].token_ids


def test_a_false_answer_is_scored_beside_the_gold_answer_and_changes_nothing_else(loaded):
    model, tokenizer = loaded
    jobs = jobs_for(tokenizer)
    swapped = [replace(job, gold_ids=jobs[n - 1].gold_ids) for n, job in enumerate(jobs)]
    both = [replace(job, contrast_ids=other.gold_ids) for job, other in zip(jobs, swapped, strict=True)]
    both[2] = jobs[2]
    plain, other, scored = (
        answer_batch(model, batch, 8, [2], tokenizer.pad_token_id) for batch in (jobs, swapped, both)
    )
    assert [output.token_ids for output in scored] == [output.token_ids for output in plain]
    assert [output.gold_nll for output in scored] == pytest.approx([output.gold_nll for output in plain], abs=1e-5)
    assert scored[2].contrast_nll is None
    contrasts = [output.contrast_nll for n, output in enumerate(scored) if n != 2]
    assert contrasts == pytest.approx([output.gold_nll for n, output in enumerate(other) if n != 2], abs=1e-5)
    assert all(output.contrast_nll is None for output in plain)
