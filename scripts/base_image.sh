#!/usr/bin/env bash
# Prints the tag of the base image on its last line, having made the image where it is absent.
#
#   scripts/base_image.sh            swe-srl/base:<12 hex digits of what goes into it>
#
# From a registry where one is reachable, else from debootstrap (needs root on Debian or Ubuntu); the same tag either way.
# Exit 3 with one sentence where neither works.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
context=$here/sandboxes/base
inputs=(Dockerfile finish.sh packages.txt)
suite=bookworm
pull_timeout_s=${SWE_SRL_PULL_TIMEOUT_S:-20}

say() { printf '%s\n' "$*" >&2; }
die() { say "base_image.sh: $*"; exit 3; }

tag=swe-srl/base:$(cd "$context" && cat "${inputs[@]}" | sha256sum | cut -c1-12)
have_image() { docker image inspect "$tag" >/dev/null 2>&1; }

with_registry() {
    local from
    from=$(sed -n 's/^FROM  *//p' "$context/Dockerfile")
    docker image inspect "$from" >/dev/null 2>&1 || timeout "$pull_timeout_s" docker pull --quiet "$from" >/dev/null 2>&1 || return 1
    say "building $tag on $from"
    DOCKER_BUILDKIT=0 docker build --quiet --network=host --label swe-srl=image --tag "$tag" "$context" >&2
}

# The host's own Debian mirror, so that a machine with a local mirror uses it; empty leaves the choice to debootstrap.
debian_mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources 2>/dev/null |
        grep -E '^(deb|URIs:) ' | grep -oE 'https?://[^] ]+/debian/?( |$)' | head -n 1 | tr -d ' ' || true
}

with_debootstrap() {
    [ "$(id -u)" = 0 ] || die "no registry is reachable and debootstrap needs root: run this script as root, or load $tag with \`docker load\`"
    if ! command -v debootstrap >/dev/null; then
        command -v apt-get >/dev/null || die "no registry is reachable and there is no debootstrap: install debootstrap, or load $tag with \`docker load\`"
        say "installing debootstrap"
        "$here/scripts/apt_install.sh" debootstrap debian-archive-keyring ||
            die "debootstrap could not be installed: check the machine's apt sources"
    fi
    local root packages mirror
    root=$(mktemp -d "${TMPDIR:-/tmp}/swe-srl-base.XXXXXX")
    # shellcheck disable=SC2064  # the path of now, not of later
    trap "rm -rf --one-file-system '$root'" EXIT
    packages=$(paste -sd, "$context/packages.txt")
    mirror=$(debian_mirror)
    say "building $tag with debootstrap${mirror:+ from $mirror} (a few minutes)"
    debootstrap --variant=minbase --include="$packages" "$suite" "$root" ${mirror:+"$mirror"} >"$root.log" 2>&1 ||
        die "debootstrap failed; its last words are in $root.log: $(tail -n 1 "$root.log")"
    cp "$context/finish.sh" "$root/tmp/finish.sh"
    chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin sh /tmp/finish.sh >&2
    rm -f "$root/tmp/finish.sh" "$root.log"
    umount "$root/proc" 2>/dev/null || true
    tar --numeric-owner --exclude='./dev/*' --exclude='./proc/*' --exclude='./sys/*' -C "$root" -c . |
        docker import --change 'ENV LC_ALL=C.UTF-8' --change 'CMD ["bash"]' --change 'LABEL swe-srl=image' - "$tag" >/dev/null
}

command -v docker >/dev/null || die "there is no docker: run scripts/ensure_docker.sh first"
docker info >/dev/null 2>&1 || die "no Docker engine answers: run scripts/ensure_docker.sh first"
if ! have_image; then
    if command -v flock >/dev/null; then
        exec 9>"${TMPDIR:-/tmp}/swe-srl-base.lock"
        flock 9 # two that start together build once
    fi
    have_image || with_registry || with_debootstrap
fi
printf '%s\n' "$tag"
