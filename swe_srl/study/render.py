"""StudyTable → study.json, study.md and study.svg."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from swe_srl.schema import Mean, Proportion
from swe_srl.store import write_json, write_text
from swe_srl.study.measures import SIMILARITY
from swe_srl.study.table import ArmSummary, Comparison, StudyTable

NOTES = """\
Intervals are 95 %. Similarity is to the teacher's action at held-out steps, over all seeds; its interval and those of differences are percentile bootstraps (10,000 resamples) of whole
tasks with all their steps and seeds, so they say how far the result depends on the tasks; how far it depends on the seed, the seeds' own means say. Shares have Wilson's interval, with n divided
by the design effect of tasks (Rao and Scott 1992). p is the exact paired permutation test that flips the signs of tasks, McNemar's where each task is one pair of outcomes; no p of k tasks is below 2 / 2^k. Tokens are those of one cell that went through the model, by the mean over seeds: *trained* in
forward and backward passes, *sampled* while answers were drawn, thrown away or not; what prompts of one update share counts once, and what an arm shares with another counts for both. Differences are the arm's value
minus that of the one it is compared with, paired by step or task within each seed. *One action at every step* is the best, for each measure, of the teacher's own at these steps, given at all of them: what a model earns
that looks at nothing.
"""

HEAD = [
    "arm",
    "seeds",
    "step similarity [95 %]",
    "of each seed",
    "well-formed [95 %]",
    "resolved [95 %]",
    "tokens trained",
    "tokens sampled",
    "tokens per answer",
    "against untrained",
]


DIFFERENCES = ["arm", "compared with", "measure", "difference [95 %]", "pairs", "p"]


def write_study(table: StudyTable, out: Path) -> list[Path]:
    """Write `study.json`, `study.md` and `study.svg`; their paths."""
    write_json(out / "study.json", table.model_dump(mode="json"))
    write_text(out / "study.md", markdown(table))
    write_text(out / "study.svg", figure(table))
    return [out / name for name in ("study.json", "study.md", "study.svg")]


def markdown(table: StudyTable) -> str:
    """The whole study as Markdown."""
    budget = "no budget of tokens" if table.budget_tokens is None else f"at most {table.budget_tokens:,} tokens a cell"
    solved = f" Resolved are attempts at {table.solved}." if table.solved else ""
    parts = [
        f"# {table.title}\n",
        f"Seeds: {table.num_seeds}; {budget}.{solved}\n",
        _table(HEAD, map(arm_cells, table.arms)),
    ]
    if any(arm.others for arm in table.arms):
        parts += ["\n## The same answers by other measures\n", _table(*other_measures(table))]
    if table.comparisons:
        parts += ["\n## Differences\n", _table(DIFFERENCES, map(comparison_cells, table.comparisons))]
    notes = [f"- {arm.arm}, {note}" for arm in table.arms for note in arm.notes]
    if notes:
        parts += ["\n## Stages that ended early\n", *notes]
    if table.missing:
        parts += ["\n## Missing\n", *(f"- {cell.arm}, seed {cell.seed}: {cell.reason}" for cell in table.missing)]
    return "\n".join([*parts, "", NOTES])


def arm_cells(arm: ArmSummary) -> list[str]:
    """One line of the table of arms."""
    mean, share, resolved = arm.similarity, arm.well_formed, arm.resolved
    return [
        arm.arm,
        str(len(arm.seeds)),
        f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}] (n = {mean.n})",
        ", ".join(f"{value:.3f}" for value in arm.of_seeds),
        f"{share.k} of {share.n} = {share.value:.3f} [{share.low:.3f}, {share.high:.3f}]",
        f"{resolved.k} of {resolved.n} [{resolved.low:.2f}, {resolved.high:.2f}]" if resolved else "–",
        f"{arm.trained_tokens:,.0f}",
        f"{arm.sampled_tokens:,.0f}",
        f"{arm.answer_tokens:.1f}",
        "–" if arm.longer is None else f"{100 * arm.longer:+.1f} %",
    ]


def other_measures(table: StudyTable) -> tuple[list[str], list[list[str]]]:
    """Head and lines: each arm by each measure, and last what one action at every step earns."""
    names = list(dict.fromkeys(name for arm in table.arms for name in (SIMILARITY, *arm.others)))
    lines = []
    for arm in table.arms:
        means = {SIMILARITY: arm.similarity, **arm.others}
        shown = [
            f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]" if (mean := means.get(name)) else "–"
            for name in names
        ]
        lines.append([arm.arm, *shown])
    constant = [f"{table.constant[name]:.3f}" if name in table.constant else "–" for name in names]
    return ["arm", *names], [*lines, ["*one action at every step*", *constant]]


def comparison_cells(row: Comparison) -> list[str]:
    """One line of the table of differences."""
    return [
        row.second,
        row.first,
        row.measure,
        f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}]",
        str(row.n),
        f"{row.p:.3f}",
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def figure(table: StudyTable) -> str:
    """For each arm the step similarity, and the share of attempts that resolved their task where there were any: mean, interval, a dot for each seed."""
    similarity = [(arm.arm, arm.similarity, arm.of_seeds) for arm in table.arms]
    resolved = [(arm.arm, arm.resolved, arm.resolved_of_seeds) for arm in table.arms if arm.resolved]
    panels = [_panel("step similarity to the teacher", similarity, table.constant.get(SIMILARITY))]
    if resolved:
        panels.append(_panel("resolved attempts", resolved))
    height = PANEL_ROW * (len(table.arms) + 2)
    parts = [f'<g transform="translate(0 {index * height})">{panel}</g>' for index, panel in enumerate(panels)]
    size = f"0 0 {PANEL_LEFT + PANEL_WIDTH + 40} {height * len(panels)}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" font-family="sans-serif" font-size="13">'
    # its own ground: on a dark page the letters would be lost
    return "\n".join([head, '<rect width="100%" height="100%" fill="#fff"/>', *parts, "</svg>\n"])


PANEL_LEFT, PANEL_WIDTH, PANEL_ROW = 260, 520, 34


def _panel(
    title: str, rows: Sequence[tuple[str, Mean | Proportion, Sequence[float]]], constant: float | None = None
) -> str:
    """Each row's interval, value and seeds on a line from 0 to 1; dashed, what one action at every step earns."""
    bottom = PANEL_ROW * (len(rows) + 1)
    marks = [f'<text x="{PANEL_LEFT}" y="20">{escape(title)}, 95 % interval, a dot for each seed</text>']
    for tenth in range(0, 11, 2):
        x = PANEL_LEFT + PANEL_WIDTH * tenth / 10
        marks.append(f'<path d="M{x:.0f} 28V{bottom - 4}" stroke="#ddd"/>')
        marks.append(f'<text x="{x:.0f}" y="{bottom + 12}" font-size="11" text-anchor="middle">{tenth / 10:g}</text>')
    if constant:
        x = PANEL_LEFT + PANEL_WIDTH * constant
        marks.append(f'<path d="M{x:.1f} 28V{bottom - 4}" stroke="#555" stroke-dasharray="4 3"/>')
        marks.append(f'<text x="{x + 4:.1f}" y="{bottom - 8}" font-size="11">one action at every step</text>')
    for index, (name, found, of_seeds) in enumerate(rows):
        y = PANEL_ROW * (index + 1) + 12
        low, value, high = (PANEL_LEFT + PANEL_WIDTH * one for one in (found.low, found.value, found.high))
        marks.append(f'<text x="{PANEL_LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        marks.append(f'<path d="M{low:.1f} {y}H{high:.1f}" stroke="#347" stroke-width="3"/>')
        marks.append(f'<path d="M{value:.1f} {y - 8}v16" stroke="#347" stroke-width="3"/>')
        marks += [f'<circle cx="{PANEL_LEFT + PANEL_WIDTH * one:.1f}" cy="{y}" r="3" fill="#c52"/>' for one in of_seeds]
    return "\n".join(marks)
