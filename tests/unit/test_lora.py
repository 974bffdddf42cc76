"""A student of which an adapter learns: what is written is what was trained, merged and by itself."""

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("transformers", reason="needs the train extra")
peft = pytest.importorskip("peft", reason="needs the train extra")

from parallel_process import run_case, write_steps
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from swe_srl.errors import ConfigError
from swe_srl.policy.attention import IMPLEMENTATION
from swe_srl.policy.load import load_student
from swe_srl.policy.scoring import token_log_probs
from swe_srl.policy.tree import TokenTree
from swe_srl.testing.tiny import tiny_student
from swe_srl.training.config import LoraConfig, TrainConfig
from swe_srl.training.lora import add_adapter, taken_apart
from swe_srl.training.objective import Group
from swe_srl.training.parallel import whole_weights

pytestmark = pytest.mark.torch

CONFIG = LoraConfig(rank=4, alpha=8.0)
GROUPS = [
    Group("a", tuple(range(40, 100)), ((5, 6, 7, 8), (9, 10))),
    Group("b", (*range(40, 90), 7, 7), ((11, 12, 13), (14,))),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("lora")
    tiny_student(path / "tiny")
    write_steps(path / "steps.jsonl")
    return path


@pytest.fixture(scope="module")
def trained(folder):
    """The checkpoint of three updates at a rate that moves the adapter far."""
    return run_case(folder, "lora", "run", optimizer={"lr": 0.05})


def plain_log_probs(model):
    """Of each answer token, from one plain sequence an answer and transformers' own attention."""
    found = []
    for prompt, answer in TokenTree(GROUPS).unfold():
        logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        found += [logits[len(prompt) + place - 1, token] for place, token in enumerate(answer)]
    return torch.stack(found)


@torch.no_grad()
def test_a_merged_adapter_answers_as_the_model_with_the_adapter_in_it_through_the_tree_and_through_transformers(folder):
    policy = load_student(str(folder / "tiny"), dtype="fp32", device="cpu")
    add_adapter(policy.model, CONFIG, seed=0)
    before = token_log_probs(policy.model, TokenTree(GROUPS).row())
    for name, parameter in policy.model.named_parameters():
        if ".lora_B." in name:
            parameter.normal_(std=0.3)
    unmerged = token_log_probs(policy.model, TokenTree(GROUPS).row())
    assert (unmerged - before).abs().max() > 0.1
    policy.save(folder / "merged", taken_apart(whole_weights(policy.model), CONFIG).student)
    merged = load_student(str(folder / "merged"), dtype="fp32", device="cpu").model
    torch.testing.assert_close(token_log_probs(merged, TokenTree(GROUPS).row()), unmerged, rtol=1e-5, atol=1e-5)
    plain = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=torch.float32)
    torch.testing.assert_close(plain_log_probs(plain), unmerged, rtol=1e-5, atol=1e-5)


# peft 0.21 asks transformers by a name that 5.22 has renamed.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@torch.no_grad()
def test_a_checkpoint_holds_the_merged_model_and_the_adapter_as_peft_reads_it(folder, trained):
    merged = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(folder / "tiny", dtype=torch.float32)
    untouched = plain_log_probs(base)
    by_peft = peft.PeftModel.from_pretrained(base, str(trained / "adapter"))
    torch.testing.assert_close(plain_log_probs(merged), plain_log_probs(by_peft), rtol=1e-5, atol=1e-5)
    assert (plain_log_probs(merged) - untouched).abs().max() > 0.01
    assert merged.config.architectures == base.config.architectures
    assert load_file(trained / "model.safetensors").keys() == load_file(folder / "tiny/model.safetensors").keys()


def test_only_the_adapter_learns_with_fp32_masters_and_the_rest_stays_as_it_was(folder, trained):
    state = torch.load(trained.parent / "update-000002/trainer.pt", weights_only=True)["optimizer"]
    assert state["masters"]
    assert all(".lora_" in name and master.dtype == torch.float32 for name, master in state["masters"].items())
    before, after = load_file(folder / "tiny/model.safetensors"), load_file(trained / "model.safetensors")
    moved = {
        name.rpartition(".")[0].rpartition(".")[2] for name in before if not torch.equal(before[name], after[name])
    }
    assert moved == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_a_bf16_model_has_a_bf16_adapter_with_fp32_masters(folder):
    run_case(folder, "lora", "bf16", dtype="bf16", updates=2)
    checkpoint = folder / "bf16/checkpoints/update-000001"
    state = torch.load(checkpoint / "trainer.pt", weights_only=True)["optimizer"]
    assert {master.dtype for master in state["masters"].values()} == {torch.float32}
    adapter = load_file(checkpoint / "adapter/adapter_model.safetensors")
    assert {tensor.dtype for tensor in adapter.values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in load_file(checkpoint / "model.safetensors").values()} == {torch.bfloat16}


def test_a_run_with_an_adapter_that_was_stopped_ends_as_one_that_was_not_bit_for_bit(folder, trained):
    with pytest.raises(KeyboardInterrupt):
        run_case(folder, "lora", "stopped", optimizer={"lr": 0.05}, stop_before=3)
    again = run_case(folder, "lora", "stopped", optimizer={"lr": 0.05})
    for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
        assert (again / file).read_bytes() == (trained / file).read_bytes()


def test_targets_that_no_layer_has_and_two_things_that_learn_are_refused(folder):
    model = AutoModelForCausalLM.from_pretrained(folder / "tiny", attn_implementation=IMPLEMENTATION)
    with pytest.raises(ConfigError, match=r"lora\.targets = \['nowhere'\]"):
        add_adapter(model, LoraConfig(targets=("nowhere",)), seed=0)
    with pytest.raises(ValidationError, match="exclude each other"):
        TrainConfig(lora=CONFIG, trainable_layers=1)
