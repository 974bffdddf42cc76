#!/bin/sh
# The last touches to the base image, the same whether it came from a registry or from debootstrap. Runs inside it, as root.
set -eu

ln -sf python3 /usr/bin/python
# An image is the environment of one task: pip may install into the system's Python.
rm -f /usr/lib/python3.*/EXTERNALLY-MANAGED
# Repositories in a box belong to whoever built the image; git must not refuse them.
printf '[safe]\n\tdirectory = *\n[init]\n\tdefaultBranch = main\n[advice]\n\tdetachedHead = false\n' > /etc/gitconfig
mkdir -p /testbed
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/debconf/*-old /var/log/*.log /var/log/apt
find /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale -mindepth 1 -delete 2>/dev/null || true
