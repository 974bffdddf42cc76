#!/usr/bin/env bash
# The test command: sets up what the tests need (environment, container engine, base image) and runs them all.
# Arguments go to pytest: scripts/test.sh tests/unit -k store
set -euo pipefail
cd "$(dirname "$0")/.."
# Boxes without an engine, and the report page in a browser, are tested where they can be; where not, the tests say why.
have() { command -v "$1" >/dev/null || { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && scripts/apt_install.sh "$2"; }; }
{ have bwrap bubblewrap || true; have chromium-headless-shell chromium-headless-shell || true; } >&2 &
extras=$!
python=$(scripts/ready.sh) || { code=$?; wait "$extras"; exit "$code"; }
wait "$extras"
# The models of the tests are tiny: several threads would wait for each other more than they compute.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export SWE_SRL_REQUIRE_DOCKER=1
exec "$python" -m pytest "$@"
