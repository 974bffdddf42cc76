"""Updates by TRL's GRPOTrainer, for tree.py: `python tree_trl.py trl WORK`. Of this package it uses the reward."""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.trainer_callback import TrainerCallback
from tree_common import GROUP_SIZE, NEW_TOKENS, NUM_STEPS, Counter, Measured, Work, serve
from trl import GRPOConfig, GRPOTrainer

from swe_srl.rewards.similarity import similarity


def updates(work: Work) -> Iterator[Measured]:
    """TRL, one update in each call of its trainer."""
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[work.dtype]
    model = AutoModelForCausalLM.from_pretrained(work.model, dtype=dtype)
    model.generation_config.eos_token_id = None
    counter = Counter(model)
    sampling = [0.0]

    def reward(completions: list[str], target: list[str], **_: object) -> list[float]:
        return [similarity(text, wanted) for text, wanted in zip(completions, target, strict=True)]

    class Timed(GRPOTrainer):
        def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            answer = super()._generate_single_turn(*args, **kwargs)
            sampling[0] += time.perf_counter() - begun
            return answer

    class Clock(TrainerCallback):
        def on_step_begin(self, *_: object, **__: object) -> None:
            self.begun = time.perf_counter()

        def on_step_end(self, *_: object, **__: object) -> None:
            self.seconds = time.perf_counter() - self.begun

    rows = [{"prompt": prompt, "target": target} for prompt, target in zip(work.prompts, work.targets, strict=True)]
    with tempfile.TemporaryDirectory() as out:
        for seed in itertools.count():
            settings = GRPOConfig(
                output_dir=out, seed=seed, use_cpu=True, bf16=False, per_device_train_batch_size=work.trl_rows,
                gradient_accumulation_steps=NUM_STEPS * GROUP_SIZE // work.trl_rows,
                steps_per_generation=max(1, GROUP_SIZE // work.trl_rows), num_generations=GROUP_SIZE,
                max_completion_length=NEW_TOKENS, generation_kwargs={"min_new_tokens": NEW_TOKENS}, temperature=1.0, top_k=0, beta=0.0,
                loss_type="grpo", learning_rate=1e-6, lr_scheduler_type="constant", max_steps=1, shuffle_dataset=False,
                gradient_checkpointing=False, logging_strategy="no", save_strategy="no", report_to=[], disable_tqdm=True,
            )  # fmt: skip
            clock = Clock()
            trainer = Timed(
                model=model, reward_funcs=reward, args=settings, train_dataset=Dataset.from_list(rows),
                processing_class=AutoTokenizer.from_pretrained(work.model), callbacks=[clock],
            )  # fmt: skip
            counter.total, sampling[0] = 0, 0.0
            with contextlib.redirect_stdout(None):
                trainer.train()
            yield Measured(clock.seconds, sampling[0], counter.total)


if __name__ == "__main__":
    serve(updates, sys.argv[2])
