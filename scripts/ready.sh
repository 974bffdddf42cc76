#!/usr/bin/env bash
# Makes what tests and demo need: the Python environment, and beside it the container engine and the base image.
# Prints the path of the environment's python on stdout; everything else goes to stderr. Calling it again is free.
# Arguments go to setup.sh.
set -euo pipefail
cd "$(dirname "$0")"
{ ./ensure_docker.sh && ./base_image.sh; } >&2 &
boxes=$!
python=$(./setup.sh "$@") || { code=$?; wait "$boxes" || true; exit "$code"; }
wait "$boxes"
echo "$python"
