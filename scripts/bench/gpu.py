"""One GPU and a student of Qwen2.5-Coder-7B's shape with random weights: is the tree exact there, and how fast is it?

    python scripts/bench/gpu.py [--tokens 32768] [--layers 28]
    python scripts/bench/gpu.py --device cpu --width 128 --layers 2 --tokens 2048     (does the script work?)

1. A small student: loss and gradients of a tree against plain sequences, in fp32 and in bf16; in bf16 both are compared
   with fp32, since neither is exact.
2. The rate of a bf16 matrix product, 8,192 cubed.
3. Forward and backward of one tree, half of it a trajectory's history, half answers, activations checkpointed. Useful
   work is 6 FLOP for each weight and token and the attention that the tree needs; what checkpointing repeats is not
   counted. No optimizer: its states are another 12 bytes a weight.
4. Sampling: 8 answers at each of the same steps.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from memory import NEW_TOKENS, make_groups

from swe_srl.policy.attention import IMPLEMENTATION, register
from swe_srl.policy.base import Sampling
from swe_srl.policy.load import load_student
from swe_srl.policy.local import LocalPolicy
from swe_srl.policy.scoring import token_log_probs
from swe_srl.policy.tree import TokenTree
from swe_srl.testing.tiny import tiny_student
from swe_srl.training.objective import Group

if TYPE_CHECKING:
    from swe_srl.policy.attention import TreePlan

import torch
from torch import Tensor
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM


def main() -> None:
    """Check, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tokens", type=int, default=32_768, help="of the tree; half of them are its trunk")
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--width", type=int, default=3584, help="hidden size; a head has 128 of it")
    options = parser.parse_args()
    register()
    with tempfile.TemporaryDirectory() as scratch:
        check(tiny_student(Path(scratch) / "small", width=256, layers=4, vocabulary=400), options.device)
        policy = shaped(options, AutoTokenizer.from_pretrained(Path(scratch) / "small"))
    rate = matmul_rate(options.device, 8192 if options.device == "cuda" else 1024)
    print(f"bf16 matrix product: {rate / 1e12:.1f} TFLOP/s")
    groups = make_groups(options.tokens, policy.model.config.vocab_size)
    for round_ in range(3):
        train(policy, groups, rate, f"round {round_ + 1}")
    for round_ in range(2):
        sample(policy, groups, f"round {round_ + 1}")


def check(small: Path, device: str) -> None:
    """Tree against plain sequences on a small student."""
    groups = make_groups(4096, 400)
    plain = [[Group("", group.prompt_ids, (answer,))] for group in groups for answer in group.completions]
    exact = gradient(small, "fp32", device, plain)
    for dtype in ("fp32", "bf16"):
        tree, sequences = gradient(small, dtype, device, [groups]), gradient(small, dtype, device, plain)
        print(
            f"{dtype}: loss of the tree {tree[0]:.6f}, of plain sequences {sequences[0]:.6f}; gradient's relative distance to plain "
            f"sequences in fp32: tree {distance(tree[1], exact[1]):.1e}, plain {distance(sequences[1], exact[1]):.1e}"
        )


def gradient(small: Path, dtype: str, device: str, parts: list[list[Group]]) -> tuple[float, Tensor]:
    """Mean negative log-likelihood of all answers, and its gradient, laid end to end, in fp32."""
    model = load_student(str(small), dtype=dtype, device=device).model  # type: ignore[arg-type]
    num_tokens = sum(len(answer) for part in parts for group in part for answer in group.completions)
    total = 0.0
    for part in parts:
        loss = -token_log_probs(model, TokenTree(part).row(device)).sum() / num_tokens
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    return total, torch.cat([p.grad.float().flatten().cpu() for p in model.parameters() if p.grad is not None])


def distance(ours: Tensor, theirs: Tensor) -> float:
    """Relative to the second's length."""
    return ((ours - theirs).norm() / theirs.norm()).item()


def shaped(options: argparse.Namespace, tokenizer: object) -> LocalPolicy:
    """Qwen2.5-Coder-7B's shape at width 3,584 and 28 layers."""
    heads = max(2, options.width // 128)
    config = Qwen2Config(
        vocab_size=152_064, hidden_size=options.width, intermediate_size=options.width * 37 // 7, num_hidden_layers=options.layers,
        num_attention_heads=heads, num_key_value_heads=4 if heads % 4 == 0 else 1, max_position_embeddings=131_072,
        tie_word_embeddings=False, attn_implementation=IMPLEMENTATION,
    )  # fmt: skip
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(options.device):
            model = Qwen2ForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    policy = LocalPolicy(model, tokenizer, "random")  # type: ignore[arg-type]
    policy.checkpoint_activations()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e9:.2f} billion weights on {options.device}")
    return policy


def matmul_rate(device: str, size: int) -> float:
    """FLOP/s of a bf16 matrix product, the best of 10."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(10):
        begun = now(device)
        left @ right
        times.append(now(device) - begun)
    return 2 * size**3 / min(times)


def train(policy: LocalPolicy, groups: list[Group], rate: float, name: str) -> None:
    """One forward and backward pass."""
    device = str(policy.model.device)
    tree = TokenTree(groups)
    row = tree.row(device)
    policy.model.train()
    policy.model.zero_grad()
    begun = now(device)
    (-token_log_probs(policy.model, row).mean()).backward()  # type: ignore[no-untyped-call]
    seconds = now(device) - begun
    work = useful_work(policy, row.plan, tree.num_tokens, len(row.targets))
    peak = f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if "cuda" in device else ""
    print(
        f"training, {name}: {tree.num_tokens} tokens in {seconds:.2f} s, {tree.num_tokens / seconds:.0f} tokens/s, "
        f"{work / seconds / rate:.1%} of the matrix product's rate{peak}",
        flush=True,
    )


def useful_work(policy: LocalPolicy, plan: TreePlan, num_tokens: int, num_targets: int) -> float:
    """FLOP of a forward and backward pass."""
    config = policy.model.config
    inner = sum(
        p.numel() for name, p in policy.model.named_parameters() if "embed_tokens" not in name and "lm_head" not in name
    )
    pairs = sum((node.stop - node.start) ** 2 / 2 for node in plan.nodes)
    pairs += sum((q.stop - q.start) * (k.stop - k.start) for q, k in plan.sights)
    attention = 12 * config.num_hidden_layers * config.hidden_size * pairs
    return 6.0 * (inner * num_tokens + config.hidden_size * config.vocab_size * num_targets) + attention


def sample(policy: LocalPolicy, groups: list[Group], name: str) -> None:
    """All answers of all steps, from an empty cache."""
    device = str(policy.model.device)
    prompts = [group.prompt_ids for group in groups]
    policy.forget()
    begun = now(device)
    policy.complete_ids(prompts, Sampling(temperature=1.0, max_new_tokens=1, stop=""))
    read = now(device)
    sampling = Sampling(temperature=1.0, max_new_tokens=NEW_TOKENS, stop="")
    answers = policy.complete_ids(prompts, sampling, num_samples=len(groups[0].completions))
    seconds = now(device) - read
    written = sum(answer.num_tokens for of_prompt in answers for answer in of_prompt)
    print(
        f"sampling, {name}: a trunk of {len(prompts[-1])} tokens read in {read - begun:.2f} s, then {written} tokens of "
        f"{sum(map(len, answers))} answers in {seconds:.2f} s, {written / seconds:.0f} tokens/s",
        flush=True,
    )


def now(device: str) -> float:
    """Seconds, when all that was asked of the device is done."""
    if "cuda" in device:
        torch.cuda.synchronize()
    return time.perf_counter()


if __name__ == "__main__":
    main()
