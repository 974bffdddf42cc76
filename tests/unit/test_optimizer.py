"""AdamW with its means in 8 bits over fp32 masters."""

import copy
import sys

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from swe_srl.errors import ConfigError
from swe_srl.training.config import OptimizerConfig
from swe_srl.training.optimizer import MasterOptimizer

pytestmark = pytest.mark.torch


def model(dtype=torch.bfloat16):
    torch.manual_seed(0)
    return torch.nn.Linear(128, 256, bias=False).to(dtype)


def steps(student, optimizer, numbers):
    """Pull the outputs towards what a fixed other layer says."""
    for number in numbers:
        inputs = torch.randn(64, 128, generator=torch.Generator().manual_seed(number))
        target = inputs @ torch.randn(128, 256, generator=torch.Generator().manual_seed(99)) * 0.1
        loss = (student(inputs.to(student.weight.dtype)).float() - target).square().mean()
        loss.backward()
        optimizer.accumulate()
        optimizer.step(1e-3)
    return loss.item()


def config(states):
    return OptimizerConfig(lr=1e-3, schedule="constant", states=states)


def test_means_in_8_bits_learn_as_those_in_fp32_do_and_take_a_quarter():
    pytest.importorskip("bitsandbytes", reason="needs the 8bit extra")
    found = {}
    for states in ("fp32", "8bit"):
        student = model()
        before = student.weight.detach().float().clone()
        optimizer = MasterOptimizer(student, config(states))
        loss = steps(student, optimizer, range(40))
        state = optimizer.state()
        held = [state["adam"]["state"][0]]
        held += [value for value in held[0].values() if isinstance(value, dict)]
        means = [
            value
            for values in held
            for value in values.values()
            if isinstance(value, torch.Tensor) and value.numel() > 256
        ]
        bytes_each = sum(value.numel() * value.element_size() for value in means) / student.weight.numel()
        found[states] = loss, bytes_each, state["masters"]["weight"] - before
        assert state["masters"]["weight"].dtype == torch.float32
        torch.testing.assert_close(student.weight.float(), state["masters"]["weight"], rtol=4e-3, atol=1e-6)
    assert found["8bit"][0] == pytest.approx(found["fp32"][0], rel=0.02)
    assert found["fp32"][1] == 8
    assert found["8bit"][1] < 2.1
    moved = torch.nn.functional.cosine_similarity(found["fp32"][2].flatten(), found["8bit"][2].flatten(), dim=0)
    assert moved > 0.98


def test_means_in_8_bits_go_on_exactly_where_they_were(tmp_path):
    pytest.importorskip("bitsandbytes", reason="needs the 8bit extra")
    whole = model()
    steps(whole, MasterOptimizer(whole, config("8bit")), range(6))
    stopped = model()
    optimizer = MasterOptimizer(stopped, config("8bit"))
    steps(stopped, optimizer, range(3))
    torch.save(optimizer.state(), tmp_path / "state.pt")
    again = copy.deepcopy(stopped)
    resumed = MasterOptimizer(again, config("8bit"))
    resumed.restore(torch.load(tmp_path / "state.pt", weights_only=True, mmap=True))
    steps(again, resumed, range(3, 6))
    assert torch.equal(again.weight, whole.weight)


def test_without_the_package_8_bits_are_refused_in_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    with pytest.raises(ConfigError, match=r"needs bitsandbytes: pip install 'swe-srl\[8bit\]'"):
        MasterOptimizer(model(), config("8bit"))
