#!/usr/bin/env bash
# Finds a working Docker engine, or installs and starts one (as root on Debian or Ubuntu). Exit 0 when one answers; else 3, with one
# sentence that says what to do. Calling it again is free.
set -euo pipefail

scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
log=${SWE_SRL_DOCKERD_LOG:-/var/log/swe-srl-dockerd.log}
wait_s=60

say() { printf '%s\n' "$*" >&2; }
die() { say "ensure_docker.sh: $*"; exit 3; }
answers() { timeout 20 docker info >/dev/null 2>&1; }

# Starts dockerd with the given options, away from this terminal, and waits for it. False when it ends or does not answer.
start() {
    say "starting dockerd $* (log: $log)"
    setsid dockerd "$@" >>"$log" 2>&1 </dev/null &
    local pid=$! second
    for ((second = 0; second < wait_s; second++)); do
        answers && return 0
        kill -0 "$pid" 2>/dev/null || return 1
        sleep 1
    done
    kill "$pid" 2>/dev/null || true
    for ((second = 0; second < 10; second++)); do
        kill -0 "$pid" 2>/dev/null || break
        sleep 1
    done
    return 1
}

if command -v docker >/dev/null && answers; then
    say "a Docker engine answers"
    exit 0
fi
# An engine elsewhere was asked for; starting one here would not help.
[ -z "${DOCKER_HOST:-}" ] || die "no Docker engine answers at DOCKER_HOST=$DOCKER_HOST: start it, or unset DOCKER_HOST"
[ "$(id -u)" = 0 ] || die "no Docker engine answers: start Docker (and join the group docker), or run this script as root"

if ! command -v dockerd >/dev/null; then
    command -v apt-get >/dev/null || die "there is no dockerd and this is neither Debian nor Ubuntu: install Docker by its own instructions"
    say "installing docker.io"
    # Services are not started here: in a container there is nothing to start them.
    "$scripts/apt_install.sh" docker.io ||
        die "docker.io could not be installed: check the machine's apt sources and its network"
    if ! command -v docker >/dev/null; then
        "$scripts/apt_install.sh" docker-cli || die "there is a dockerd but no docker command: install docker-cli"
    fi
fi

mkdir -p "$(dirname "$log")"
if [ -d /run/systemd/system ] && systemctl start docker >&2 2>/dev/null && answers; then
    say "a Docker engine answers"
    exit 0
fi
# The installation itself may have started one that is not ready yet.
if pidof dockerd >/dev/null 2>&1; then
    for ((i = 0; i < wait_s; i++)); do
        answers && { say "a Docker engine answers"; exit 0; }
        sleep 1
    done
    die "a dockerd runs but does not answer within $wait_s s: look at its log, or restart it"
fi
# A stale pid file stops a new dockerd; no dockerd runs here.
rm -f /var/run/docker.pid
# Boxes need no network, so an engine without a bridge will do where the machine does not allow one.
start || start --bridge=none --iptables=false || start --bridge=none --iptables=false --storage-driver=vfs ||
    die "dockerd does not start: its last words are in $log: $(tail -n 1 "$log" 2>/dev/null)"
say "a Docker engine answers"
