"""Box → what became of its repository, as one hash."""

from __future__ import annotations

from typing import cast

from swe_srl.runtime.base import Sandbox
from swe_srl.runtime.worktree import Served, tree_of


def tree_hash(sandbox: Sandbox) -> str:
    """Git's hash of the tree of everything that is not ignored; empty where there is no repository, or no way to ask."""
    return tree_of(cast("Served", sandbox)) if hasattr(sandbox, "serve") else ""
