"""ModelView finds the parts of any architecture, and its logits are the model's own."""

from __future__ import annotations

import pytest
import torch
from tests.tiny import ARCHITECTURES, MIXTURES, SHARED, tiny_model

from emend.errors import UnsupportedModel
from emend.models import ModelView

DOWN = {
    "gpt2": "transformer.h.1.mlp.c_proj",
    "gptj": "transformer.h.1.mlp.fc_out",
    "gpt_neox": "gpt_neox.layers.1.mlp.dense_4h_to_h",
    "gpt_neo": "transformer.h.1.mlp.c_proj",
    "opt": "model.decoder.layers.1.fc2",
    "bloom": "transformer.h.1.mlp.dense_4h_to_h",
    "falcon": "transformer.h.1.mlp.dense_4h_to_h",
    "starcoder2": "model.layers.1.mlp.c_proj",
}
ATTENTION = {
    "gpt2": "attn",
    "gptj": "attn",
    "gpt_neo": "attn",
    "gpt_neox": "attention",
    "bloom": "self_attention",
    "falcon": "self_attention",
}
PLAIN = set(DOWN)
MORE = ("phi", "mpt", "gpt_bigcode", "codegen", "nemotron", "hyperclovax")


def last_block_and_logits(model, view):
    seen = []

    def keep(module, taken, given):
        seen.append(given[0] if isinstance(given, tuple) else given)

    handle = view.layers[-1].register_forward_hook(keep)
    try:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[5, 6, 7, 8, 9], [9, 1, 7, 2, 6]])).logits
    finally:
        handle.remove()
    return seen[0], logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_finds_the_parts(architecture):
    model, _ = tiny_model(architecture, layers=2)
    view = ModelView(model)
    down = DOWN.get(architecture, "model.layers.1.mlp.down_proj")
    assert view.name_of(view.down_projection(1)) == down
    attention = view.name_of(view.attention(1)).rsplit(".", 1)[-1]
    assert attention == ATTENTION.get(architecture, "self_attn")
    assert view.num_layers == 2
    assert view.hidden_size == 32
    assert view.intermediate_size(0) == (128 if architecture == "bloom" else 64)
    assert tuple(view.matrix(0).shape) == (32, view.intermediate_size(0))
    assert view.is_gated == (architecture not in PLAIN)
    assert view.embeddings is model.get_input_embeddings()
    assert view.lm_head is model.get_output_embeddings()
    assert view.vocabulary == model.config.vocab_size
    assert down.startswith(view.name_of(view.mlp(1)))


@pytest.mark.parametrize("scale", [0.5, 1.0, 1.5, 3.0, 6.0])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_finds_the_parts_however_large_the_weights(architecture, scale):
    model, _ = tiny_model(architecture, scale=scale)
    view = ModelView(model)
    down = DOWN.get(architecture, "model.layers.1.mlp.down_proj")
    for layer in range(view.num_layers):
        assert view.name_of(view.down_projection(layer)) == down.replace(".1.", f".{layer}.")
        attention = view.name_of(view.attention(layer)).rsplit(".", 1)[-1]
        assert attention == ATTENTION.get(architecture, "self_attn")


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, *MORE])
def test_logits_are_the_models_own(architecture):
    model, _ = tiny_model(architecture, layers=2)
    view = ModelView(model)
    hidden, logits = last_block_and_logits(model, view)
    assert torch.equal(view.logits(hidden), logits)
    assert torch.allclose(view.logits(hidden[0, 3]), logits[0, 3], atol=1e-6)


def test_logits_with_a_cap_that_bites():
    model, _ = tiny_model("gemma2", layers=2, final_logit_softcapping=0.5)
    view = ModelView(model)
    hidden, logits = last_block_and_logits(model, view)
    assert logits.abs().max() <= 0.5
    assert torch.equal(view.logits(hidden), logits)


def test_a_factor_is_divided_or_multiplied_as_the_model_does():
    for architecture in ("granite", "hyperclovax"):
        model, _ = tiny_model(architecture, layers=2, logits_scaling=5.0)
        view = ModelView(model)
        hidden, logits = last_block_and_logits(model, view)
        assert torch.equal(view.logits(hidden), logits), architecture


def test_logits_of_opt_with_projected_embeddings():
    model, _ = tiny_model(
        "opt", layers=2, word_embed_proj_dim=16, do_layer_norm_before=False
    )  # as OPT-350m: no final norm, a projection before the head
    view = ModelView(model)
    hidden, logits = last_block_and_logits(model, view)
    assert view.hidden_size == 32
    assert isinstance(view.final_norm, torch.nn.Identity)
    assert torch.equal(view.logits(hidden), logits)


def test_unknown_factor_on_the_logits_is_refused():
    model, _ = tiny_model("granite", layers=2)
    forward = type(model).forward

    class Odd(type(model)):
        def forward(self, *args, **kwargs):
            output = forward(self, *args, **kwargs)
            output.logits = output.logits * 7
            return output

    model.__class__ = Odd
    with pytest.raises(UnsupportedModel, match="times a known scale"):
        ModelView(model)


@pytest.mark.parametrize("architecture", ["gpt2", "gptj", "opt", "llama", "phi3", "glm4"])
@pytest.mark.parametrize("inner", [32, 16])
def test_inner_as_wide_or_narrower_than_the_residual(architecture, inner):
    model, _ = tiny_model(architecture, layers=2, inner=inner)
    view = ModelView(model)
    expected = DOWN.get(architecture, "model.layers.1.mlp.down_proj")
    assert view.name_of(view.down_projection(1)) == expected
    assert view.intermediate_size(1) == inner
    assert view.is_gated == (architecture not in PLAIN)


def test_matrix_is_the_map_whatever_the_storage():
    for architecture, transposed in (("gpt2", True), ("llama", False)):
        model, _ = tiny_model(architecture, layers=2, inner=32)
        view = ModelView(model)
        keys = torch.randn(3, 32)
        down = view.down_projection(0)
        bias = down.bias if down.bias is not None else 0
        assert view.is_transposed(0) == transposed
        assert torch.allclose(down(keys), keys @ view.matrix(0).T + bias, atol=1e-5)
        assert view.matrix(0).data_ptr() == down.weight.data_ptr()


@pytest.mark.parametrize("architecture", MIXTURES)
def test_mixtures_of_experts_are_refused_in_one_line(architecture):
    model, _ = tiny_model(architecture, layers=2)
    with pytest.raises(UnsupportedModel, match="mixture of experts") as refusal:
        ModelView(model)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 250


@pytest.mark.parametrize("architecture", SHARED)
def test_of_a_mixture_the_expert_that_all_tokens_share_is_found(architecture):
    model, _ = tiny_model(architecture, layers=3, inner=48)
    view = ModelView(model)
    shared = "shared_expert" if architecture == "qwen2_moe" else "shared_experts"
    assert view.editable == (0, 1, 2)
    assert view.name_of(view.down_projection(1)) == f"model.layers.1.mlp.{shared}.down_proj"
    assert view.name_of(view.mlp(1)) == f"model.layers.1.mlp.{shared}"
    assert view.intermediate_size(1) == 48
    dense = architecture == "deepseek_v3"  # its first block
    first = "mlp.down_proj" if dense else "mlp.shared_expert.down_proj"
    assert view.name_of(view.down_projection(0)) == f"model.layers.0.{first}"
    hidden, logits = last_block_and_logits(model, view)
    assert torch.equal(view.logits(hidden), logits)


def test_blocks_that_can_be_edited_are_named():
    model, _ = tiny_model("qwen3_moe", layers=8, mlp_only_layers=[0, 2, 3, 4, 7])
    view = ModelView(model)
    assert view.editable == (0, 2, 3, 4, 7)
    assert [view.nearest_editable(layer) for layer in range(8)] == [0, 0, 2, 3, 4, 4, 7, 7]
    with pytest.raises(UnsupportedModel, match=r"one of the blocks 0, 2 to 4, 7$"):
        view.down_projection(5)
    assert ModelView(tiny_model("llama", layers=3)[0]).editable == (0, 1, 2)


def test_a_mixture_after_dense_blocks_is_refused_where_it_stands():
    model, _ = tiny_model("qwen3_moe", layers=3, mlp_only_layers=[0])
    view = ModelView(model)
    assert view.name_of(view.down_projection(0)) == "model.layers.0.mlp.down_proj"
    assert view.name_of(view.attention(1)) == "model.layers.1.self_attn"
    with pytest.raises(UnsupportedModel, match=r"block 1.*mixture of experts"):
        view.down_projection(1)


def test_not_a_causal_language_model():
    with pytest.raises(UnsupportedModel, match="AutoModelForCausalLM"):
        ModelView(torch.nn.Linear(3, 3))


def test_looking_changes_nothing():
    model, _ = tiny_model("gpt2", layers=2, resid_pdrop=0.5)
    model.train()
    model.transformer.h[0].eval()
    modes = [module.training for module in model.modules()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    ModelView(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_half_precision():
    for dtype in (torch.bfloat16, torch.float16):
        model, _ = tiny_model("qwen3", layers=2, dtype=dtype)
        view = ModelView(model)
        hidden, logits = last_block_and_logits(model, view)
        assert view.logits(hidden).dtype == torch.float32
        assert torch.equal(view.logits(hidden), logits.float())


def test_logits_carry_gradients():
    model, _ = tiny_model("llama", layers=2)
    hidden = torch.randn(3, 32, requires_grad=True)
    ModelView(model).logits(hidden).sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.abs().sum() > 0


def test_an_adapter_beside_the_projection_is_not_mistaken_for_it():
    peft = pytest.importorskip("peft")
    model, _ = tiny_model("llama", layers=2)
    config = peft.LoraConfig(r=4, target_modules=["down_proj", "o_proj"], task_type="CAUSAL_LM")
    view = ModelView(peft.get_peft_model(model, config).eval())
    assert view.name_of(view.down_projection(1)) == "model.layers.1.mlp.down_proj"


def test_layers_and_strangers_are_checked():
    model, _ = tiny_model("gpt2", layers=2)
    view = ModelView(model)
    assert view.layer(-1) is view.layers[1]
    assert view.down_projection(-1) is view.down_projection(1)
    with pytest.raises(UnsupportedModel, match="0 to 1"):
        view.layer(2)
    with pytest.raises(UnsupportedModel, match="not a part"):
        view.name_of(torch.nn.Linear(2, 2))


def test_rotary():
    rotary = {name: ModelView(tiny_model(name, layers=1)[0]).is_rotary for name in DOWN}
    assert rotary == {
        "gpt2": False,
        "gptj": True,
        "gpt_neox": True,
        "gpt_neo": False,
        "opt": False,
        "bloom": False,
        "falcon": True,
        "starcoder2": True,
    }


@pytest.mark.parametrize("architecture", ["gpt2", "gpt_neo", "llama"])
def test_attention_that_adds_little_is_still_the_attention(architecture):
    model, _ = tiny_model(architecture, layers=2)
    view = ModelView(model)
    name = view.name_of(view.attention(0))
    with torch.no_grad():
        for module in view.attention(0).modules():
            if getattr(module, "weight", None) is not None and module.weight.ndim == 2:
                module.weight.mul_(0.1)
    weak = ModelView(model)
    assert weak.name_of(weak.attention(0)) == name
    assert weak.name_of(weak.down_projection(0)) == view.name_of(view.down_projection(0))
