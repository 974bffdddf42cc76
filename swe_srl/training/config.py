"""What a training run is told. Defaults are the settings we vouch for; `presets/` hold the paper's."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from swe_srl.agent import AgentLimits
from swe_srl.dialogue import ContextConfig
from swe_srl.policy.vllm import VllmConfig
from swe_srl.replay.effect import EffectConfig
from swe_srl.rewards import BlendConfig, SimilarityConfig
from swe_srl.rewards.load import named
from swe_srl.rewards.members import MemberConfig
from swe_srl.runtime.base import SandboxConfig
from swe_srl.schema import StepFlag
from swe_srl.settings import Config

FidelityStatus = Literal["faithful", "drifted"]


class OptimizerConfig(Config):
    """AdamW on fp32 master weights."""

    states: Literal["fp32", "8bit"] = "fp32"
    """How AdamW's two running means are held. `8bit`: block by block in 8 bits (arXiv 2110.02861, by bitsandbytes). For each
    weight that learns, masters, gradients, means and a bf16 model take 12 bytes and not 18: 7.6 billion weights 85 GiB, not 128."""

    lr: float = Field(5e-6, gt=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0)
    schedule: Literal["constant", "cosine"] = "cosine"
    """After the warm-up; cosine ends at 0."""
    warmup_share: float = Field(0.0, ge=0, le=1)
    """Share of all updates in which the learning rate rises in a straight line."""
    max_grad_norm: float = Field(1.0, gt=0)


class LoraConfig(Config):
    """An adapter of low rank learns, the model itself is frozen (LoRA, arXiv 2106.09685). Without dropout."""

    rank: int = Field(32, ge=1)
    alpha: float = Field(64.0, gt=0)
    """The adapter's product counts alpha / rank."""
    targets: tuple[str, ...] = ()
    """Names of the linear layers that get one, e.g. q_proj; all but the head where empty."""


class SftConfig(Config):
    """Supervised fine-tuning: the expert's thought and action, given the history."""

    type: Literal["sft"] = "sft"
    batch_size: int = Field(64, ge=1)
    """Steps in one update."""


class ObjectiveConfig(Config):
    """Clipped policy gradient with advantages relative to the group (GRPO, arXiv 2402.03300); the defaults are SRL's."""

    clip_low: float = Field(0.2, gt=0, lt=1)
    """The ratio of new to old probability counts down to 1 - clip_low …"""
    clip_high: float = Field(0.2, gt=0)
    """… and up to 1 + clip_high; a larger value than clip_low keeps rare tokens alive."""
    normalise: Literal["sequence", "token", "constant"] = "sequence"
    """`sequence`: each answer weighs the same, whatever its length (GRPO); `token`: each token of the batch does (DAPO,
    arXiv 2503.14476); `constant`: each token counts 1 / (answers x max_new_tokens), so that no length is favoured (Dr. GRPO, arXiv 2503.20783)."""
    divide_by_std: bool = True
    """Advantages are (reward - mean) / std of the group; without it reward - mean, as in Dr. GRPO."""
    kl_weight: float = Field(0.0, ge=0)
    """Weight of the divergence from the student as the run began (GRPO's estimator, r - ln r - 1). Above 0 a frozen copy of it stays in memory."""
    old_log_probs: Literal["trainer", "sampler"] = "trainer"
    """Against which probabilities the ratio is taken. `trainer`: those of this very forward pass, so that the ratio of
    fresh samples is exactly 1; `sampler`: those under which the answer was drawn. Left-over groups always use the sampler's."""
    importance_cap: float = Field(2.0, gt=0)
    """Where another engine draws the answers (`sampler.type = "vllm"`), a token counts by how much likelier the trainer finds it than
    the engine did, at most so much (truncated importance sampling). Not for tokens whose ratio is taken against the sampler's anyway."""


class EffectRewardConfig(EffectConfig):
    """What an answer's action does in a copy of the expert's state, beside what the expert's does: this needs boxes."""

    type: Literal["effect"] = "effect"
    sandbox: SandboxConfig = SandboxConfig()
    """Its `session` must be the kind of shell session that the trajectories had."""
    workers: int = Field(4, ge=1)
    """Steps at which answers are tried at once, in each process of a run."""


StepRewardConfig = Annotated[
    MemberConfig | BlendConfig | EffectRewardConfig, Field(discriminator="type"), BeforeValidator(named)
]


class SrlConfig(Config):
    """Supervised reinforcement learning: groups of answers at one expert step, rewarded by likeness to its action."""

    type: Literal["srl"] = "srl"
    batch_size: int = Field(512, ge=1)
    """Groups (steps) in one update."""
    group_size: int = Field(8, ge=2)
    """Student samples per teacher step; advantages are relative within this group."""
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    reward: StepRewardConfig = SimilarityConfig()
    min_reward_std: float = Field(0.01, ge=0)
    """A group is kept only if the population standard deviation of its rewards is above this. The paper asks for
    "above epsilon" and does not print the value."""
    dynamic_sampling: bool = True
    """Throw away groups that teach nothing and sample others in their place (DAPO, arXiv 2503.14476, section 3.2); without
    it a batch is the first `batch_size` groups as they come."""
    max_rounds: int = Field(10, ge=1)
    """Rounds of sampling in one update before it is made with fewer groups."""
    objective: ObjectiveConfig = ObjectiveConfig()


class RlvrConfig(Config):
    """Reinforcement learning from verified rewards: groups of episodes on one task, rewarded by the verdict on the patch."""

    type: Literal["rlvr"] = "rlvr"
    reward: Literal["verdict", "similarity"] = "verdict"
    """What an episode is worth. `verdict`: 1 where its patch resolves the task. `similarity`: the likeness of all of its
    actions, one after the other, to all of the expert's: the whole-solution reward that SRL's step by step is compared with;
    it needs `steps`, and works on the tasks that those are of."""
    batch_size: int = Field(16, ge=1)
    """Tasks in one update."""
    group_size: int = Field(8, ge=2)
    """Episodes on a task; advantages are relative within this group."""
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(1.0, gt=0, le=1)
    dynamic_sampling: bool = True
    """Throw away tasks that all of their episodes solve, or none, and take others in their place (DAPO, arXiv 2503.14476, section 3.2)."""
    max_rounds: int = Field(4, ge=1)
    """Rounds of episodes in one update before it is made with fewer tasks."""
    probe: int = Field(0, ge=0)
    """Episodes on each task before the first update; only tasks that some solve and some do not are trained on. All are where 0."""
    objective: ObjectiveConfig = ObjectiveConfig(normalise="token", clip_high=0.28)
    """`sequence` means: each episode weighs the same, whatever its turns and their length."""
    limits: AgentLimits = AgentLimits()
    sandbox: SandboxConfig = SandboxConfig()
    max_parallel: int = Field(16, ge=1)
    """Episodes at once, in each process of a run."""
    test_timeout_s: float = Field(600.0, gt=0)
    """Of one run of a task's tests."""

    @model_validator(mode="after")
    def _probe_asks_for_verdicts(self) -> Self:
        if self.probe and self.reward != "verdict":
            raise ValueError("probe asks whether tasks are solved, which reward = 'similarity' does not: set probe = 0")
        return self


class DifficultyConfig(Config):
    """Which steps are worth training on, and in which order, by how a frozen reference did at them before."""

    measured: str
    """Run directory of `swe-srl agree` over the training steps, with the reference as its --policy."""
    min_std: float | None = Field(None, ge=0)
    """Only steps at which the reference's similarities differ by more than this (population standard deviation)."""
    max_mean: float | None = Field(None, gt=0, le=1)
    """Only steps at which its mean similarity is below this. With `min_std = 0` these are PivotRL's pivots (arXiv 2603.21383)."""
    order: Literal["shuffled", "easy_first"] = "shuffled"
    """`easy_first`: each epoch goes through five bands, from what the reference does best to what it does worst."""


class LocalSamplerConfig(Config):
    """The student itself samples, in this process."""

    type: Literal["local"] = "local"


SamplerConfig = Annotated[LocalSamplerConfig | VllmConfig, Field(discriminator="type")]
AlgorithmConfig = Annotated[SftConfig | SrlConfig | RlvrConfig, Field(discriminator="type")]


class TrainConfig(Config):
    """One training run."""

    model: str = "Qwen/Qwen2.5-Coder-7B-Instruct"
    """The student: a hub id, a directory, a training run, or `smollm2-135m`."""
    steps: tuple[str, ...] = ()
    """JSONL files of steps, as `swe-srl replay` writes them."""
    tasks: str = ""
    """Task repository or file of rows that the steps' task ids name."""
    algorithm: AlgorithmConfig = SftConfig()
    context: ContextConfig = ContextConfig()
    fidelity: tuple[FidelityStatus, ...] = ("faithful", "drifted")
    """Steps that may be targets, by how they replayed. Nothing after a lost step is used, neither as target nor as history."""
    exclude: tuple[StepFlag, ...] = ("duplicate", "no_op", "after_submit", "leak", "secret")
    """Steps that are no targets, by what the replay's filters found; they stay in the history of the others."""
    difficulty: DifficultyConfig | None = None
    """Choice and order of the steps by a reference; all of them, shuffled, where null."""
    sampler: SamplerConfig = LocalSamplerConfig()
    """What draws the student's answers for SRL and RLVR."""
    optimizer: OptimizerConfig = OptimizerConfig()
    trainable_layers: int | None = Field(None, ge=1)
    """Only the last so many transformer layers learn, and the backward pass ends there; all of the model where null."""
    lora: LoraConfig | None = None
    """Only an adapter learns; the whole model, or `trainable_layers` of it, where null. A checkpoint holds the model with the
    adapter merged into it, and the adapter beside it in `adapter/`."""
    dtype: Literal["bf16", "fp32"] = "bf16"
    """Of the forward and backward pass and of the saved model. Master weights and optimizer are always fp32."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda` …"""
    seed: int = 0
    shuffle: Literal["trajectories", "steps"] = "trajectories"
    """What an epoch mixes. `trajectories`: the steps of one come together, so that their history goes through the model
    once; right for batches that hold many. `steps`: every step by itself; a small batch is more varied, and costs more."""
    epochs: float = Field(3.0, gt=0)
    """Times the steps are gone through, counted in kept groups for SRL; decides the number of updates where `updates` is null."""
    updates: int | None = Field(None, ge=1)
    """Optimizer updates."""
    budget_tokens: int | None = Field(None, ge=1)
    """The run ends with the update in which so many tokens have gone through the model, trained and sampled, or after its
    updates, whichever comes first; the learning rate follows what is further on."""
    save_every: int = Field(50, ge=1)
    """Updates between two checkpoints; the last update always makes one."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints kept."""
    max_prompt_tokens: int = Field(4096, ge=16)
    """A longer prompt is cut (policy/tokens.py says how) and counted."""
    max_new_tokens: int = Field(512, ge=1)
    """Of one sampled answer; longer expert answers are cut from SFT's targets and counted."""
    micro_batch_tokens: int = Field(2048, ge=1)
    """Tokens in one forward and backward pass; one group is never split."""
    activation_checkpointing: bool = False
    """Keep only what goes into each layer and compute the rest again in the backward pass: less memory, more time."""

    trackers: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Where metrics go beside metrics.jsonl."""

    @model_validator(mode="after")
    def _can_be_sampled(self) -> TrainConfig:
        """Where `top_p` cuts, vLLM tells log-probabilities of the nucleus, not of the vocabulary; it knows temperatures up to 2."""
        drawn = self.algorithm
        if self.sampler.type == "vllm" and not isinstance(drawn, SftConfig):
            if drawn.top_p < 1.0:
                raise ValueError('sampler.type = "vllm" needs algorithm.top_p = 1')
            if drawn.temperature > 2.0:
                raise ValueError('sampler.type = "vllm" needs algorithm.temperature of at most 2')
        return self

    @model_validator(mode="after")
    def _one_thing_learns(self) -> TrainConfig:
        if self.lora is not None and self.trainable_layers is not None:
            raise ValueError("lora and trainable_layers exclude each other: leave one of them out")
        return self

    def num_updates(self, num_examples: int) -> int:
        """Updates of the whole run over `num_examples` steps."""
        if self.updates is not None:
            return self.updates
        return max(1, -(-round(self.epochs * num_examples) // self.algorithm.batch_size))
