#!/usr/bin/env bash
# The test command: sets up what the tests need (environment, container engine, base image) and runs them all.
# Arguments go to pytest: scripts/test.sh tests/unit -k store
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(scripts/ready.sh)
export SWE_SRL_REQUIRE_DOCKER=1
exec "$python" -m pytest "$@"
