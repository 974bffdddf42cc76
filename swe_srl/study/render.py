"""StudyTable → study.json, study.md and study.svg."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from swe_srl.store import write_json, write_text
from swe_srl.study.table import ArmSummary, Comparison, StudyTable

NOTES = """\
Intervals are 95 %. Similarity is to the teacher's action at held-out steps, over all seeds; its interval and those of differences are percentile bootstraps (10,000 resamples) of whole
tasks with all their steps and seeds, so they say how far the result depends on the tasks; how far it depends on the seed, the seeds' own means say. Shares have Wilson's interval, p is McNemar's
exact test; both take the seeds and attempts of one task as independent, which they are not quite. Tokens are those of one cell that went through the model, by the mean over seeds: *trained* in
forward and backward passes, *sampled* while answers were drawn, thrown away or not; what prompts of one update share counts once, and what an arm shares with another counts for both. Differences are the arm's value
minus that of the one it is compared with, paired by step or task within each seed.
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


def comparison_cells(row: Comparison) -> list[str]:
    """One line of the table of differences."""
    return [
        row.second,
        row.first,
        row.measure,
        f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}]",
        str(row.n),
        "" if row.p_mcnemar is None else f"{row.p_mcnemar:.3f}",
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def figure(table: StudyTable) -> str:
    """Each arm's step similarity on a line from 0 to 1: its interval, its mean, and a dot for each seed."""
    left, width, row = 260, 520, 34
    height = row * (len(table.arms) + 1)
    marks = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 40} {height + 10}" font-family="sans-serif" font-size="13">',
        f'<text x="{left}" y="16">step similarity to the teacher, 95 % interval, a dot for each seed</text>',
    ]
    for tenth in range(0, 11, 2):
        x = left + width * tenth / 10
        marks.append(f'<path d="M{x:.0f} 24V{height - 6}" stroke="#ddd"/>')
        marks.append(f'<text x="{x:.0f}" y="{height + 8}" font-size="11" text-anchor="middle">{tenth / 10:g}</text>')
    for index, arm in enumerate(table.arms):
        y = row * (index + 1) + 8
        low, mean, high = (
            left + width * value for value in (arm.similarity.low, arm.similarity.value, arm.similarity.high)
        )
        marks.append(f'<text x="{left - 12}" y="{y + 4}" text-anchor="end">{escape(arm.arm)}</text>')
        marks.append(f'<path d="M{low:.1f} {y}H{high:.1f}" stroke="#347" stroke-width="3"/>')
        marks.append(f'<path d="M{mean:.1f} {y - 8}v16" stroke="#347" stroke-width="3"/>')
        marks += [f'<circle cx="{left + width * value:.1f}" cy="{y}" r="3" fill="#c52"/>' for value in arm.of_seeds]
    return "\n".join([*marks, "</svg>\n"])
