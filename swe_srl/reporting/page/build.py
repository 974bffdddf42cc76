"""Report + Material → index.html: numbers and plots drawn here, a viewer that reads its packed data when it needs it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from swe_srl import __version__
from swe_srl.reporting.page import forests, numbers
from swe_srl.reporting.page.cost import cost, cost_bars, spent
from swe_srl.reporting.page.material import Material
from swe_srl.reporting.page.tasks import task_detail, task_line, tracks_of
from swe_srl.reporting.render import NOTES
from swe_srl.store import write_text
from swe_srl.summaries import Report

STATIC = Path(__file__).parent / "static"
SCRIPTS = ("dom.js", "match.js", "data.js", "list.js", "detail.js", "compare.js", "main.js")
NUM_COLOURS = 8


def write_page(report: Report, material: Material, out: str | Path) -> Path:
    """Write `index.html` to the directory `out`; returns its path."""
    path = Path(out) / "index.html"
    write_text(path, page(report, material))
    return path


def page(report: Report, material: Material) -> str:
    """The whole page as one text."""
    style = (STATIC / "page.css").read_text(encoding="utf-8")
    script = "".join((STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS)
    colours = _colours(report, material)
    lines, details = [], []
    for task_id in material.task_ids:
        tracks = tracks_of(task_id, material)
        lines.append(task_line(task_id, material, tracks))
        details.append(_packed(task_detail(task_id, material, tracks)))
    training, bills = numbers.training(material), spent(material)
    index = {
        "runs": [{"label": run.model, "colour": colours[run.model]} for run in report.runs],
        "tasks": lines,
        "charts": [_hover(chart) for group in training for chart in group["charts"]],
    }
    environment = Environment(
        loader=FileSystemLoader(STATIC), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )  # fmt: skip
    environment.filters["short"] = forests.short
    html = environment.get_template("page.html.j2").render(
        report=report,
        version=__version__,
        colours=colours,
        style=Markup(style),  # noqa: S704  our own files
        script=Markup(script),  # noqa: S704
        style_hash=_hash(style),
        script_hash=_hash(script),
        index=Markup(_inline(index)),  # noqa: S704  no < is left in it
        details=details,
        num_tasks=len(lines),
        contents=_contents(report, material, len(lines)),
        outcomes=forests.outcomes(report),
        attempts=forests.attempts(report),
        tools=forests.tools(report),
        spreads=numbers.spreads(report),
        differences=forests.differences(report),
        counted=numbers.counted(report),
        projects=forests.projects(material),
        training=training,
        fidelity=numbers.fidelity(material),
        reasons=numbers.reasons(material),
        cost=cost(bills),
        cost_bars=cost_bars(bills),
        notes=[NOTES.replace("\n", " ").replace("*", "").strip()],
    )
    return html.encode(errors="replace").decode()  # half a character has no place in a file


def _colours(report: Report, material: Material) -> dict[str, int]:
    """One of the palette's numbers for each run; a training run has that of the model it made, where the names agree."""
    labels = [*(run.model for run in report.runs), *(run.label for run in material.training)]
    return {label: number % NUM_COLOURS + 1 for number, label in enumerate(dict.fromkeys(labels))}


def _contents(report: Report, material: Material, num_tasks: int) -> list[str]:
    counts = (
        (len(report.runs), "model", "models"),
        (num_tasks, "task", "tasks"),
        (len(material.training), "training run", "training runs"),
        (len(material.replays), "replay", "replays"),
        (len(material.teaching), "run of teaching", "runs of teaching"),
    )
    return [f"{number} {one if number == 1 else many}" for number, one, many in counts if number]


def _hover(chart: Any) -> dict[str, Any]:
    lines = [{"label": line.label, "points": line.points} for line in chart.lines]
    return {"low": chart.x.low, "high": chart.x.high, "lines": lines}


def _inline(value: Any) -> str:
    """JSON that may stand within a script element: nothing in it can end the element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _packed(value: Any) -> str:
    """JSON, packed so that the page stays small and is read only when it is looked at."""
    text = json.dumps(value, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode()


def _hash(text: str) -> str:
    """What the page's own policy names the text by: the browser runs and applies nothing else."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
