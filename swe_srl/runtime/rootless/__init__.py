"""Boxes without an engine and without root, by bubblewrap and overlayfs."""
