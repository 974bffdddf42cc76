"""The nouns of a report: what the rows of runs come to. Frozen, like those of schema.py."""

from __future__ import annotations

from pydantic import Field

from swe_srl.schema import Mean, Proportion, Record


class Quantiles(Record):
    """How n values are spread."""

    n: int = Field(ge=1)
    min: float
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float
    max: float


class ToolAgreement(Record):
    """Agreement with the teacher on the steps where it used one tool; means are over steps, shares over samples."""

    tool: str
    num_steps: int
    similarity: Mean
    exact: Mean | None
    """Share of a step's samples that are the teacher's action; None where rows do not tell."""
    well_formed: Proportion
    same_tool: Proportion


class RunSummary(Record):
    """The numbers of one model in a report."""

    model: str
    resolved: Proportion
    """Over what was graded: everything submitted minus infrastructure failures. With several attempts at a task the interval allows for their likeness."""
    counts: dict[str, int]
    """Every denominator: tasks, submitted, graded, and one entry per verdict status."""
    pass_at: dict[int, Mean] = Field(default_factory=dict)
    """k → the chance that at least one of k attempts at a task resolves it (Chen et al. 2021); empty where each task was tried once."""
    best_of: dict[str, Proportion] = Field(default_factory=dict)
    """How one attempt of each task was chosen, without knowing its verdict → the tasks that are resolved so."""
    applied: Proportion | None = None
    """Patches that applied, of those graded that are not empty."""
    empty: Proportion | None = None
    """Of what was graded, as `tampered`."""
    tampered: Proportion | None = None
    infra: Proportion | None = None
    """Failures of the apparatus, of all that was submitted."""
    edits_applied: Proportion | None = None
    """Of the answers that held an edit of files, those whose edit fitted them."""
    exit_statuses: dict[str, int] = Field(default_factory=dict)
    """How attempts ended."""
    well_formed_turns: Proportion | None = None
    step_similarity: Mean | None = None
    step_constant: Mean | None = None
    """The same of one action at every step, the best of the teacher's: what a model earns that looks at nothing."""
    step_exact: Mean | None = None
    step_well_formed: Proportion | None = None
    tools: tuple[ToolAgreement, ...] = ()
    mean_turns: float = 0.0
    mean_completion_tokens: float = 0.0
    turns: Quantiles | None = None
    """Per attempt, as `tokens` (of completions) and `seconds`."""
    tokens: Quantiles | None = None
    seconds: Quantiles | None = None
    answer_tokens: Quantiles | None = None
    """Completion tokens of each answer in the attempts."""
    step_tokens: Quantiles | None = None
    """Completion tokens of each sample at held-out steps."""


Cells = dict[str, int | float | str]
"""A row of a table: column → value; a count stays a whole number."""


class Report(Record):
    """Run directories, as numbers."""

    title: str
    runs: tuple[RunSummary, ...]
    paired: tuple[dict[str, float | str], ...] = ()
    """Differences between two runs on the same items, with their 95 % intervals."""
    training: tuple[Cells, ...] = ()
    """Training runs: their first and last update."""
    replays: tuple[Cells, ...] = ()
    """Replays: trajectories, and steps by fidelity."""
    teaching: tuple[Cells, ...] = ()
    """Runs of teaching: what was accepted, and what it cost."""
