#!/usr/bin/env bash
# The main job, small and real: tasks, teacher, replay, SFT, SRL, evaluation, report. Arguments go to `swe-srl demo`.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(scripts/ready.sh train)
exec "$python" -m swe_srl.cli demo "$@"
