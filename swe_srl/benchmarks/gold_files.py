"""Task repo or rows → the names of the files that each gold patch changes. The one narrow door from hidden answers to evaluation.

The oracle mode shows a model the files that have to be edited, which only the answer tells. Nothing of the answer but
these names leaves here: no line of a patch, no test. An import contract says who may ask.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from swe_srl.benchmarks.grading_spec import load_specs
from swe_srl.benchmarks.patches import touched_files
from swe_srl.errors import UserError

_NEW = re.compile(r"^diff --git a/.+? b/(.+?)\s*\nnew file mode", re.MULTILINE)


def gold_files(source: str | Path, task_ids: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Task → the files that its gold patch changes or removes, in its order; those that it makes are not there to be shown.

    Raises UserError naming a task whose answer is not known, or changes no file that is there.
    """
    specs = load_specs(source)
    found: dict[str, tuple[str, ...]] = {}
    for task_id in task_ids:
        patch = specs[task_id].gold_patch if task_id in specs else ""
        made = set(_NEW.findall(patch))
        found[task_id] = tuple(path for path in touched_files(patch) if path not in made)
        if not found[task_id]:
            raise UserError(
                f"{source}: the gold patch of {task_id} is missing or changes no file that is there, so the mode `oracle` has nothing "
                "to show: leave it out with --id, or use --mode agentless"
            )
    return found
