#!/usr/bin/env bash
# The test command: sets up what the tests need (environment, container engine, base image) and runs them all.
# Arguments go to pytest: scripts/test.sh tests/unit -k store
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(scripts/ready.sh)
# Boxes without an engine are tested where they can be.
command -v bwrap >/dev/null || { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && scripts/apt_install.sh bubblewrap; } || true
export SWE_SRL_REQUIRE_DOCKER=1
exec "$python" -m pytest "$@"
