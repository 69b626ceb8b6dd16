import json
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from support.tiny import make_model
from tunewright.errors import ModelError
from tunewright.models.loading import attach_adapter, for_inference, load_adapter, load_base, save_adapter
from tunewright.models.source import identity, locate
from tunewright.settings import TrainingSettings

ADAPTER = TrainingSettings(rank=4, alpha=8)


def adapted(folder, quantization="none"):
    model = attach_adapter(load_base(folder, quantization, "cpu", torch.float32), ADAPTER, 3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.05)
    return model.eval()


@pytest.mark.parametrize("quantization", ["none", "nf4-double"])
def test_saved_adapter_gives_the_same_logits_in_stock_peft(tiny_model, tmp_path, quantization):
    from peft import PeftModel

    model = adapted(tiny_model, quantization)
    save_adapter(model, tmp_path, "a/name")
    ids = torch.arange(3, 40)[None]
    stock = PeftModel.from_pretrained(load_base(tiny_model, quantization, "cpu", torch.float32), tmp_path).eval()
    with torch.inference_mode():
        ours, theirs, base = model(ids).logits, stock(ids).logits, stock.get_base_model()
        assert torch.equal(ours, theirs)
        with stock.disable_adapter():
            assert not torch.allclose(ours, base(ids).logits)


def test_the_same_adapter_gives_the_same_bytes(tiny_model, tmp_path):
    for name in ("one", "two"):
        save_adapter(adapted_without_noise(tiny_model), tmp_path / name, "a/name")
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "a/name"
    assert config["target_modules"] == sorted(config["target_modules"])


def adapted_without_noise(folder):
    return attach_adapter(load_base(folder, "none", "cpu", torch.float32), ADAPTER, 3)


def test_expanded_weights_answer_as_the_quantized_weights(tiny_model, tmp_path):
    model = adapted(tiny_model, "nf4-double")
    save_adapter(model, tmp_path, "a/name")
    expanded = load_adapter(for_inference(load_base(tiny_model, "nf4-double", "cpu", torch.float32)), tmp_path)
    ids = torch.arange(3, 40)[None]
    # In training mode, as the adapter was trained: in evaluation mode bitsandbytes may use coarser fused products.
    model.train()
    assert torch.allclose(model(ids).logits, expanded(ids).logits, atol=1e-5)


def test_a_pickled_checkpoint_is_refused(tmp_path):
    folder = make_model(tmp_path / "model")
    weights = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(ModelError):
        load_base(folder, "none", "cpu")


def test_an_adapter_of_another_shape_is_refused(tiny_model, tmp_path):
    save_adapter(adapted(tiny_model), tmp_path, "a/name")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"r": 8}))
    with pytest.raises(ModelError, match="does not fit"):
        load_adapter(load_base(tiny_model, "none", "cpu"), tmp_path)


def test_no_matching_target_names_the_default(tiny_model):
    with pytest.raises(ModelError) as caught:
        attach_adapter(load_base(tiny_model, "none", "cpu"), TrainingSettings(targets=("nothing_like_it",)), 0)
    assert "all-linear" in caught.value.hint


def test_each_missing_model_has_its_message(tmp_path):
    with pytest.raises(ModelError, match="there is no model at"):
        locate("./nothing", tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="is not a model folder"):
        locate("empty", tmp_path)


def test_identity_changes_with_the_files(tmp_path):
    folder = make_model(tmp_path / "model")
    before = identity(str(folder))
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert identity(str(folder)) != before


def test_quantization_without_bitsandbytes_is_refused_with_the_way_out(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError, match="bitsandbytes is not installed") as error:
        load_base(tiny_model, "nf4", "cpu", torch.float32)
    assert "pip install bitsandbytes" in error.value.hint


def test_a_call_without_gradients_leaves_a_4_bit_base_on_a_cpu_as_it_is(tiny_model, monkeypatch):
    """bitsandbytes reorders the weights for a CPU with bf16 units, and computes in bf16 from then on."""
    monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: True)
    model = load_base(tiny_model, "nf4-double", "cpu", torch.float32).eval()
    ids = torch.tensor([[5, 6, 7]])
    before = model(input_ids=ids).logits.detach()  # with gradients wanted of nothing, yet not switched off
    with torch.inference_mode():
        assert torch.equal(model(input_ids=ids).logits, before)
    layers = [module for module in model.modules() if type(module).__name__ == "Linear4bit"]
    assert layers and not any(getattr(layer.weight.quant_state, "packing_format_for_cpu", False) for layer in layers)
    assert torch.allclose(for_inference(model)(input_ids=ids).logits, before, atol=1e-5)
