"""Report → report.json, report.md, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from swe_srl.schema import Cells, Mean, Proportion, Report, RunSummary
from swe_srl.store import write_json, write_text

COUNTS = (
    "tasks", "submitted", "graded", "not_graded", "resolved", "unresolved", "tampered", "empty_patch", "patch_failed", "timed_out", "infra_failure",
)  # fmt: skip

MEASURES = {
    "resolved": "resolved tasks",
    "step_similarity": "step similarity",
    "step_well_formed": "well-formed samples",
    "turns": "turns",
}

NOTES = """\
Intervals are 95 %: Wilson's for shares, a percentile bootstrap (10,000 resamples) for means and differences. Steps of one
task are resampled together. *graded* is *submitted* without infrastructure failures and without what was never graded;
*resolved* is a share of *graded*. Differences are second minus first over the items that both were measured on; p is
McNemar's exact test. A bootstrap interval over a handful of values, or over equal ones, is too narrow.
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
    if report.paired:
        parts += [
            "\n## Differences\n",
            _table(["first → second", "measure", "difference [95 %]", "n", "p"], paired_rows(report)),
        ]
    for title, rows in (("Training", report.training), ("Replays", report.replays), ("Teaching", report.teaching)):
        if rows:
            parts += [f"\n## {title}\n", _rows(rows)]
    return "\n".join([*parts, "", NOTES])


def paired_rows(report: Report) -> list[list[str]]:
    """The paired differences, one line of cells each."""
    return [
        [
            f"{row['first']} → {row['second']}",
            MEASURES.get(str(row["measure"]), str(row["measure"])),
            f"{row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]",
            f"{row['n']:.0f}",
            f"{row['p_mcnemar']:.3f}" if "p_mcnemar" in row else "",
        ]
        for row in report.paired
    ]


def _cells(run: RunSummary) -> list[str]:
    return [
        run.model,
        _share(run.resolved) if run.counts.get("graded") else "–",
        _mean(run.step_similarity),
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
