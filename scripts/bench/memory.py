"""Peak memory of one update on one tree of 16,384 tokens: forward, backward and AdamW, the tree in a single pass.

    python scripts/bench/memory.py [--tokens 16384] [--model smollm2-135m] [--plain]

A trajectory's history takes half of the tokens, 8 answers at each of its steps the other half. Activations are
checkpointed; --plain keeps them. Prints the process's peak (resident set, weights and optimizer included).
"""

from __future__ import annotations

import argparse
import resource
import time

from swe_srl.policy.load import load_student, require_torch

require_torch()

import torch

from swe_srl.policy.scoring import token_log_probs
from swe_srl.policy.tree import TokenTree
from swe_srl.training.config import ObjectiveConfig, OptimizerConfig
from swe_srl.training.objective import Group, per_token, policy_gradient, token_weights
from swe_srl.training.optimizer import MasterOptimizer

GROUP_SIZE = 8
NEW_TOKENS = 64


def main() -> None:
    """Take the update and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=16_384)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--dtype", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--plain", action="store_true", help="without activation checkpointing")
    options = parser.parse_args()
    policy = load_student(options.model, dtype=options.dtype, device="cpu")
    if not options.plain:
        policy.checkpoint_activations()
    optimizer = MasterOptimizer(policy.model, OptimizerConfig())
    groups = make_groups(options.tokens, policy.model.config.vocab_size)
    tree = TokenTree(groups)
    print(f"{tree.num_tokens} tokens, {len(groups)} steps x {GROUP_SIZE} answers; before: {peak_gib():.2f} GiB")
    begun = time.perf_counter()
    policy.model.train()
    log_probs = token_log_probs(policy.model, tree.row())
    advantages = torch.cat([per_token(group) for group in groups])
    weights = torch.cat(token_weights(groups, "sequence", NEW_TOKENS))
    policy_gradient(log_probs, log_probs.detach(), advantages, weights, ObjectiveConfig()).value.backward()  # type: ignore[no-untyped-call]
    optimizer.accumulate()
    optimizer.step(1e-6)
    print(f"peak: {peak_gib():.2f} GiB, {time.perf_counter() - begun:.0f} s")


def make_groups(num_tokens: int, vocabulary: int) -> list[Group]:
    """Steps spread evenly over a history of random ids."""
    history = torch.randint(vocabulary, (num_tokens // 2,), generator=torch.Generator().manual_seed(1)).tolist()
    num_steps = num_tokens // 2 // (GROUP_SIZE * NEW_TOKENS)
    advantages = tuple(float(2 * (number % 2) - 1) for number in range(GROUP_SIZE))
    groups = []
    for step in range(1, num_steps + 1):
        prompt = tuple(history[: step * len(history) // num_steps])
        answers = tuple(
            tuple((step * 31 + number * 7 + i) % vocabulary for i in range(NEW_TOKENS)) for number in range(GROUP_SIZE)
        )
        groups.append(Group(str(step), prompt, answers, advantages))  # fmt: skip
    return groups


def peak_gib() -> float:
    """Of this process, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
