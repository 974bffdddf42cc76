#!/usr/bin/env bash
# Installs Debian packages: scripts/apt_install.sh NAME... One call at a time, since apt does not wait for its own lock.
set -euo pipefail
if command -v flock >/dev/null; then
    exec 9>"${TMPDIR:-/tmp}/swe-srl-apt.lock"
    flock 9
fi
apt-get update -qq >&2
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >&2
