"""Boxes as containers of an engine: Docker, or Podman behind the same API."""
