"""Report → report.json, report.md, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swe_srl.schema import Mean, Proportion
from swe_srl.store import write_json, write_text
from swe_srl.summaries import Cells, Report, RunSummary

COUNTS = (
    "tasks", "attempts", "submitted", "graded", "not_graded", "resolved", "unresolved", "tampered", "empty_patch", "patch_failed", "timed_out", "infra_failure",
)  # fmt: skip

MEASURES = {
    "resolved": "resolved tasks",
    "step_similarity": "step similarity",
    "step_exact": "exactly the teacher's action",
    "step_well_formed": "well-formed samples",
    "turns": "turns",
}

RATES = {
    "well_formed_turns": "well-formed answers",
    "edits_applied": "edits that fitted",
    "applied": "patches that applied",
    "empty": "empty",
    "tampered": "tampered",
    "infra": "apparatus failed",
}
SPREADS = {
    "answer_tokens": ("tokens per answer", 0),
    "tokens": ("tokens per attempt", 0),
    "turns": ("answers per attempt", 1),
    "seconds": ("seconds per attempt", 1),
    "step_tokens": ("tokens per answer at held-out steps", 0),
}
"""Field of a RunSummary → its words, and digits behind the point."""
SPREAD = ("min", "p5", "p25", "p50", "p75", "p95", "max")
TOOLS = ("teacher's tool", "steps", "similarity [95 %]", "exact [95 %]", "well-formed", "same tool")

NOTES = """\
Intervals are 95 %: Wilson's for shares, a percentile bootstrap (10,000 resamples) for means and differences. Steps of one
task are resampled together. *graded* is *submitted* without infrastructure failures and without what was never graded;
*resolved* is a share of *graded*, its interval widened where several attempts at a task are alike. pass@k is the unbiased
estimate over all attempts; *best of* is the attempt that was chosen by the patches alone. Differences are second minus first
over the items that both were measured on; p is McNemar's exact test, or with several attempts the test that flips the signs of tasks. A bootstrap interval over a
handful of values, or over equal ones, is too narrow.
"""


def write_report(report: Report, out: str | Path) -> list[Path]:
    """Write `report.json` and `report.md` to the directory `out`; returns their paths."""
    folder = Path(out)
    write_json(folder / "report.json", report.model_dump(mode="json"))
    write_text(folder / "report.md", markdown(report))
    return [folder / "report.json", folder / "report.md"]


def summary_table(report: Report) -> list[list[str]]:
    """The head, then one line of cells for each run."""
    head = [
        "model",
        "resolved [95 %]",
        "step similarity [95 %]",
        "of one action at every step",
        "well-formed steps",
        "well-formed turns",
        "turns",
        "tokens",
        "infra",
    ]
    return [head, *(_cells(run) for run in report.runs)]


def markdown(report: Report) -> str:
    """The whole report as Markdown."""
    table = summary_table(report)
    parts = [f"# {report.title}\n"]
    if report.runs:
        counts = [[run.model, *(str(run.counts.get(name, 0)) for name in COUNTS)] for run in report.runs]
        parts += [_table(table[0], table[1:]), "\n## What was counted\n", _table(["model", *COUNTS], counts)]
    for heading, head, rows in (
        ("Rates", ["model", *RATES.values(), "attempts ended"], rate_rows(report)),
        ("Several attempts", ["model", "measure", "share of tasks [95 %]"], attempt_rows(report)),
        ("How much was said", ["model", "measure", "n", *SPREAD], spread_rows(report)),
        ("Agreement by the teacher's tool", ["model", *TOOLS], tool_rows(report)),
    ):
        if rows:
            parts += [f"\n## {heading}\n", _table(head, rows)]
    if report.paired:
        parts += [
            "\n## Differences\n",
            _table(["first → second", "measure", "difference [95 %]", "n", "p"], paired_rows(report)),
        ]
    for title, cells in (("Training", report.training), ("Replays", report.replays), ("Teaching", report.teaching)):
        if cells:
            parts += [f"\n## {title}\n", _rows(cells)]
    return "\n".join([*parts, "", NOTES])


def rate_rows(report: Report) -> list[list[str]]:
    """One line for each run that tried tasks."""
    return [
        [
            run.model,
            *(_share(getattr(run, name)) for name in RATES),
            ", ".join(f"{status} {count}" for status, count in run.exit_statuses.items()) or "–",
        ]
        for run in report.runs
        if run.counts.get("submitted")
    ]


def attempt_rows(report: Report) -> list[list[str]]:
    """pass@k and best-of-n, one line each."""
    return [
        [run.model, words, shown]
        for run in report.runs
        for words, shown in (
            *((f"pass@{k}", _mean(mean)) for k, mean in run.pass_at.items()),
            *(
                (f"best of {run.counts.get('attempts', 0)} by {name}", _share(share))
                for name, share in run.best_of.items()
            ),
        )
    ]


def spread_rows(report: Report) -> list[list[str]]:
    """How the values of a run are spread, one line for each measure that it has."""
    return [
        [run.model, words, str(spread.n), *(f"{getattr(spread, name):.{digits}f}" for name in SPREAD)]
        for run in report.runs
        for name_of, (words, digits) in SPREADS.items()
        if (spread := getattr(run, name_of)) is not None
    ]


def tool_rows(report: Report) -> list[list[str]]:
    """Agreement with the teacher on the steps of each tool."""
    return [
        [
            run.model,
            tool.tool,
            str(tool.num_steps),
            _mean(tool.similarity),
            _mean(tool.exact),
            _share(tool.well_formed),
            _share(tool.same_tool),
        ]
        for run in report.runs
        for tool in run.tools
    ]


def paired_rows(report: Report) -> list[list[str]]:
    """The paired differences, one line of cells each."""
    return [
        [
            f"{row['first']} → {row['second']}",
            MEASURES.get(str(row["measure"]), str(row["measure"])),
            f"{row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]",
            f"{row['n']:.0f}",
            next((f"{row[name]:.3f}" for name in ("p_mcnemar", "p_sign_flip") if name in row), ""),
        ]
        for row in report.paired
    ]


def _cells(run: RunSummary) -> list[str]:
    return [
        run.model,
        _share(run.resolved) if run.counts.get("graded") else "–",
        _mean(run.step_similarity),
        f"{run.step_constant.value:.3f}" if run.step_constant else "–",
        _share(run.step_well_formed),
        _share(run.well_formed_turns),
        f"{run.mean_turns:.1f}" if run.mean_turns else "–",
        f"{run.mean_completion_tokens:.0f}" if run.mean_completion_tokens else "–",
        str(run.counts.get("infra_failure", 0)),
    ]


def _share(share: Proportion | None) -> str:
    return "–" if share is None else f"{share.k} of {share.n} = {share.value:.3f} [{share.low:.3f}, {share.high:.3f}]"


def _mean(mean: Mean | None) -> str:
    return "–" if mean is None else f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}] (n = {mean.n})"


def _rows(rows: Sequence[Cells]) -> str:
    """Rows of one kind; a column for each name that any of them has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[_cell(row.get(name, "–")) for name in names] for row in rows]
    return _table([name.replace("_", " ") for name in names], cells)


def _cell(value: float | str) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
