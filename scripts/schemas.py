"""Write the JSON Schemas in trajectories/ from the nouns; with --check, only say whether they are current."""

import json
import sys
from pathlib import Path

from swe_srl.schema import Prediction, Step, Trajectory, Verdict

FOLDER = Path(__file__).parent.parent / "trajectories"

stale = []
for noun in (Trajectory, Step, Prediction, Verdict):
    path = FOLDER / f"{noun.__name__}.schema.json"
    text = json.dumps(noun.model_json_schema(), indent=2, ensure_ascii=False) + "\n"
    if not path.is_file() or path.read_text() != text:
        stale.append(path.name)
        if "--check" not in sys.argv:
            path.write_text(text)
print("stale:" if stale else "current", *stale)
sys.exit(bool(stale) and "--check" in sys.argv)
