"""A recorded step gives the answers of steps that are launched one by one."""

import pytest
import torch

from support.families import MORE, TINY, make_family
from tunewright.models import decoder
from tunewright.models.decoder import Decoder
from tunewright.models.generation import AnswerJob, answer_batch, greedy
from tunewright.models.loading import for_inference, load_base

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
DEVICE = "cuda:0"
JOBS = [AnswerJob(prompt, [5, 6]) for prompt in ([7, 8, 9, 10, 11, 12], [5, 6, 7], [9, 3, 4, 5])]
TOKENS = 9


@pytest.fixture
def recorded(monkeypatch):
    """Which decoders recorded their steps, from now on."""
    monkeypatch.setattr(decoder, "_MIN_RECORDED", 4)
    seen, record = [], Decoder.record

    def watched(self, num_steps):
        record(self, num_steps)
        seen.append(self.recorded is not None)

    monkeypatch.setattr(Decoder, "record", watched)
    return seen


def launched(model, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "record", lambda self, num_steps: None)
        return [output.token_ids for output in answer_batch(model, JOBS, TOKENS, [2], 0)]


@pytest.mark.parametrize("name", TINY | MORE)
def test_every_family(name, tmp_path, recorded, monkeypatch):
    model = load_base(make_family(name, tmp_path / name), "none", DEVICE, torch.float32).eval()
    expected = launched(model, monkeypatch)
    assert [output.token_ids for output in answer_batch(model, JOBS, TOKENS, [2], 0)] == expected
    assert recorded == ["num_experts_per_tok" not in (TINY | MORE)[name].config]


@pytest.mark.parametrize("unpacked", [True, False])
def test_a_quantized_base_too_alone_and_in_a_batch(tiny_model, recorded, monkeypatch, unpacked):
    model = load_base(tiny_model, "nf4-double", DEVICE, torch.bfloat16).eval()
    expected = launched(model, monkeypatch)
    if unpacked:
        model = for_inference(model)
        assert not any(type(module).__name__ == "Linear4bit" for module in model.modules())
    assert [output.token_ids for output in answer_batch(model, JOBS, TOKENS, [2], 0)] == expected
    for job, tokens in zip(JOBS, expected, strict=True):
        alone = list(greedy(model, job.prompt_ids, TOKENS, [2], 0))
        assert alone[:2] == tokens[:2]  # in 16 bit, a row alone may part at a near tie later on
    assert recorded == [True] * (1 + len(JOBS))


def test_experts_whose_step_cannot_be_recorded_still_answer(tmp_path, recorded, monkeypatch):
    model = load_base(make_family("mixtral", tmp_path / "mixtral"), "none", DEVICE, torch.float32).eval()
    expected = launched(model, monkeypatch)
    monkeypatch.setattr(decoder, "can_record", lambda *_: True)
    assert [output.token_ids for output in answer_batch(model, JOBS, TOKENS, [2], 0)] == expected
    assert recorded == [True]
