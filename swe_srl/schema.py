"""The nouns, in the order in which they come to be. Frozen, strict, no behaviour beyond derived properties."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Base of all nouns: immutable, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Task(Record):
    """What the student may see of one problem. There is no answer in it."""

    task_id: str
    """SWE-bench's `instance_id`."""
    repo: str
    """`owner/name` as SWE-bench writes it; for a planted bug, the package it was planted in."""
    version: str = ""
    base_commit: str
    """The commit that the box stands at, and that a patch is a diff against."""
    problem_statement: str
    image: str
    """Image whose `workdir` holds the repository at `base_commit`."""
    workdir: str = "/testbed"
    image_context: str | None = None
    """Directory with a Dockerfile that builds `image`; None where the image comes from a registry."""


class GradingSpec(Record):
    """The hidden answer of one task. Readable by `benchmarks`, `grading` and `making` only."""

    task_id: str
    gold_patch: str
    test_patch: str
    fail_to_pass: tuple[str, ...]
    pass_to_pass: tuple[str, ...]
    eval_script: str
    """Bash script that restores the trusted tests, runs them, and brackets their output with SWE-bench's markers."""
    log_parser: str
    """Name in swebench's PARSER_REGISTRY, e.g. `parse_log_pytest`."""
    eval_type: Literal["pass_and_fail", "fail_only", "exact"] = "pass_and_fail"
    """`exact`: every test comes to what `expected` says, and there is no other (R2E-Gym's rule)."""
    expected: dict[str, str] = Field(default_factory=dict)
    """For `exact`: test → PASSED, FAILED, …"""


class Command(Record):
    """One action: a tool and its arguments, as text the box consumes."""

    tool: str
    """`bash`, `str_replace_editor` or `submit`."""
    arguments: dict[str, str] = Field(default_factory=dict)


class Turn(Record):
    """One thing an agent said and did, and what it saw after."""

    thought: str = ""
    command: Command | None
    """None where no action could be found in what the model wrote."""
    completion: str = ""
    """The model's text as received."""
    observation: str = ""
    exit_code: int | None = None
    timed_out: bool = False
    tree: str = ""
    """Hash of the repository's git tree after the command (`git write-tree` of everything not ignored); empty if not taken."""
    duration_s: float = 0.0


class Usage(Record):
    """Tokens and money."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Of the prompt tokens, those that an endpoint read from its cache."""
    cost_usd: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        """Both together."""
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            cost_usd=self.cost_usd + other.cost_usd,
        )


class Trajectory(Record):
    """One episode of one agent on one task."""

    trajectory_id: str
    task_id: str
    model: str
    source: str
    """Format or verb it came from: `swe-srl`, `mini-swe-agent-1.1`, …"""
    session: Literal["persistent", "fresh"] = "persistent"
    """Whether shell state carried over between the commands of this agent."""
    turns: tuple[Turn, ...]
    exit_status: str
    patch: str = ""
    """The final diff that the agent handed in, as recorded."""
    resolved: bool | None = None
    """The recorded claim; None where nobody graded it."""
    usage: Usage = Usage()
    licence: str = ""
    origin: str = ""
    """The file it was first read from, and the line or row, as `file.jsonl:12`; empty where it was made by swe-srl."""
    digest: str = ""
    """`content_digest` as it was when the trajectory was made; empty where its maker did not keep it."""

    @property
    def content_digest(self) -> str:
        """SHA-256 of what was said, done and seen: another one than `digest` means that it was changed since."""
        content = self.model_dump(
            mode="json", include={"trajectory_id", "task_id", "model", "session", "turns", "patch"}
        )
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Fidelity(Record):
    """How a replayed command compares with what the teacher saw."""

    exit_code: bool
    """Exit codes are equal, or none was recorded."""
    output: float = Field(ge=0.0, le=1.0)
    """Similarity of the two outputs after normalisation, 1 = identical."""
    tree: bool | None
    """Git trees after the command are equal; None where the teacher's was not recorded."""
    status: Literal["faithful", "drifted", "lost"]
    """`drifted`: the output differs but the state does not; `lost`: the state differs, nothing after it can be trusted."""
    why: str = ""
    """Why it is not faithful, in words that can be counted."""


StepFlag = Literal["duplicate", "no_op", "long_observation", "after_submit", "leak", "secret"]
"""What can speak against learning from a step, see replay/filters.py."""


class Step(Record):
    """One expert action at one state, as it happened again in our box. Its history is the steps before it."""

    step_id: str
    """`<trajectory_id>/<index>`."""
    trajectory_id: str
    task_id: str
    index: int = Field(ge=0)
    """Position among the trajectory's commands, from 0."""
    thought: str = ""
    command: Command
    observation: str
    """What our box answered, not what the teacher recorded."""
    exit_code: int | None
    fidelity: Fidelity
    flags: tuple[StepFlag, ...] = ()
    """Filters that found something; a secret is no longer in the texts."""


class Reward(Record):
    """What a rollout is worth, and why."""

    value: float
    parts: dict[str, float] = Field(default_factory=dict)
    note: str = ""


class Rollout(Record):
    """What a student answered at one step, and what that is worth."""

    text: str
    """As the student wrote it."""
    num_tokens: int = 0
    reward: Reward


STEP_AGREEMENT = "step_agreement.jsonl"
"""Where a run directory holds its rows of StepAgreement."""


class StepAgreement(Record):
    """How well a model's answers at one held-out step agree with what the teacher did there."""

    step_id: str
    trajectory_id: str
    task_id: str
    model: str
    tool: str
    """The teacher's tool."""
    num_samples: int = Field(ge=1)
    similarity: float
    """Mean reward of the samples; one in which no action could be found counts as 0."""
    similarity_std: float = Field(ge=0)
    """Population standard deviation of the same; 0 where all samples are alike."""
    num_well_formed: int = Field(ge=0)
    """Samples in which an action could be found."""
    num_same_tool: int = Field(ge=0)
    """Samples whose action uses the teacher's tool."""
    num_exact: int | None = Field(None, ge=0)
    """Samples whose action is the teacher's, outer white space apart; None in rows of versions that did not count them."""
    mean_tokens: float = 0.0
    """Completion tokens per sample."""
    constant: float | None = None
    """What one action earns here that is given at every measured step alike, the best such; None in rows of versions that did not measure it."""
    samples: tuple[Rollout, ...] = ()
    """The samples themselves; none in rows of versions that did not keep them."""

    @property
    def answer_tokens(self) -> tuple[int, ...]:
        """Completion tokens of each sample, where they were kept."""
        return tuple(sample.num_tokens for sample in self.samples)


class Checkpoint(Record):
    """A student on disk, as a plain Hugging Face directory."""

    path: str
    base_model: str
    algorithm: str
    update: int = Field(ge=0)
    """Optimizer updates taken so far."""


class Prediction(Record):
    """A patch for one task, and what it took to make it."""

    task_id: str
    model: str
    patch: str
    exit_status: str
    attempt: int = Field(0, ge=0)
    """Which of several attempts at the task."""
    mode: str = ""
    """How the model was evaluated: `agent`, `oracle` or `agentless`; empty where another tool did it."""
    num_turns: int = 0
    """Answers of the model."""
    num_malformed: int = 0
    """Answers in which no action, edit or path could be found."""
    num_edits: int = 0
    """Answers that held an edit of files, in the modes that ask for one."""
    num_edits_applied: int = 0
    """Those of them whose edit fitted its files."""
    num_tokens_cut: int = 0
    """Tokens of files and listings that were left out of the prompts to keep the budget of the input."""
    answer_tokens: tuple[int, ...] = ()
    """Completion tokens of each answer."""
    usage: Usage = Usage()
    duration_s: float = 0.0
    infra_failure: str = ""
    """Why the apparatus failed; empty when it did not. Such a prediction is not graded and not a failure of the model."""

    @property
    def patch_digest(self) -> str:
        """First 16 hex digits of the patch's SHA-256; a verdict belongs to a digest, not to a task alone."""
        return hashlib.sha256(self.patch.encode()).hexdigest()[:16]


VerdictStatus = Literal[
    "resolved", "unresolved", "tampered", "empty_patch", "patch_failed", "timed_out", "infra_failure"
]
"""`tampered`: the log resolves, and something else shows that the patch does not."""


class Verdict(Record):
    """What the trusted tests say of one prediction."""

    task_id: str
    model: str
    attempt: int = Field(0, ge=0)
    """The prediction's."""
    patch_digest: str
    status: VerdictStatus
    tests_failed: tuple[str, ...] = ()
    """Expected tests that did not pass: FAIL_TO_PASS first, then PASS_TO_PASS."""
    num_fail_to_pass: int = 0
    num_fail_to_pass_passed: int = 0
    num_pass_to_pass: int = 0
    num_pass_to_pass_passed: int = 0
    note: str = ""
    findings: tuple[str, ...] = ()
    """What the patch does beyond solving the task, each with its name: what was set back, and what looks like cheating."""
    num_witnesses: int = Field(1, ge=1)
    """1: the log alone; 2: the test runner's own record too, read outside the box."""
    grader: str = ""
    """The rules and their version; what others have decided is decided anew."""
    duration_s: float = 0.0

    @property
    def resolved(self) -> bool:
        """All FAIL_TO_PASS pass and all PASS_TO_PASS still pass."""
        return self.status == "resolved"


class Proportion(Record):
    """k of n with its 95 % interval."""

    k: int = Field(ge=0)
    n: int = Field(ge=0)
    low: float
    high: float

    @property
    def value(self) -> float:
        """K / n, 0 when nothing was counted."""
        return self.k / self.n if self.n else 0.0


class Mean(Record):
    """A mean over n values with its 95 % bootstrap interval."""

    value: float
    n: int = Field(ge=0)
    low: float
    high: float
