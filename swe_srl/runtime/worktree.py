"""Box → what git sees in it: a patch, or a hash. Leaves the repository, its index and its objects as they are.

Everything that is not ignored is added to an index of our own, which starts as a copy of the repository's (so only files
whose time or size has changed are read) and stays in the box for the next call. Its objects go to a folder of our own.
"""

from __future__ import annotations

from typing import Protocol

from swe_srl.errors import SandboxError
from swe_srl.runtime.shell import Answer, quote

_STATE = "/var/tmp/.swe-srl"  # noqa: S108  # inside the box
_GIT = (
    "git -c safe.directory='*' -c core.fileMode=false -c core.autocrlf=false -c core.quotePath=true -c core.hooksPath=/dev/null "
    "-c core.fsmonitor=false -c color.ui=never -c diff.noprefix=false -c diff.mnemonicPrefix=false -c diff.orderFile=/dev/null "
    "-c diff.suppressBlankEmpty=false -c diff.interHunkContext=0 -c advice.addEmbeddedRepo=false -c gc.auto=0"
)
_DIFF = "diff --cached --binary --full-index --no-color --no-ext-diff --no-textconv --no-renames --unified=3 --src-prefix=a/ --dst-prefix=b/"


class Served(Protocol):
    """A box with a shell for our own scripts."""

    workdir: str

    def serve(self, script: str, *, limit: int | None = ...) -> Answer:
        """Run our own `script`."""


def diff_of(box: Served, base_commit: str) -> str:
    """Patch from `base_commit` to the files in `box.workdir`, ending in a newline; empty when nothing changed.

    Files whose text is not UTF-8 would not survive as a `str`: then the whole patch is written in git's binary form.
    """
    patch = _staged(box, f"{_GIT} {_DIFF} {base_commit} --")
    try:
        return patch.decode()
    except UnicodeDecodeError:
        attributes = f"{_STATE}/attributes"
        binary = _staged(
            box, f"echo '* -diff' >{attributes} && {_GIT} -c core.attributesFile={attributes} {_DIFF} {base_commit} --"
        )
        return binary.decode("utf-8", "replace")


def tree_of(box: Served) -> str:
    """Hash of the git tree of everything in `box.workdir` that is not ignored; empty where there is no repository."""
    if box.serve(f"{_GIT} -C {quote(box.workdir)} rev-parse --git-dir >/dev/null 2>&1").exit_code != 0:
        return ""
    return _staged(box, f"{_GIT} write-tree").decode().strip()


def _staged(box: Served, ask: str) -> bytes:
    """The output of `ask`, with all files staged in our own index and the repository as current directory."""
    script = f"""(
      cd -- {quote(box.workdir)} && git_dir=$({_GIT} rev-parse --absolute-git-dir) && mkdir -p {_STATE}/objects || exit 90
      export GIT_INDEX_FILE={_STATE}/index
      export GIT_ALTERNATE_OBJECT_DIRECTORIES=$({_GIT} rev-parse --git-path objects)
      case $GIT_ALTERNATE_OBJECT_DIRECTORIES in /*) ;; *) GIT_ALTERNATE_OBJECT_DIRECTORIES=$PWD/$GIT_ALTERNATE_OBJECT_DIRECTORIES ;; esac
      [[ -f $GIT_INDEX_FILE || ! -f $git_dir/index ]] || cp -- "$git_dir/index" "$GIT_INDEX_FILE" || exit 91
      export GIT_OBJECT_DIRECTORY={_STATE}/objects
      rm -f "$GIT_INDEX_FILE.lock"
      {_GIT} add -A --ignore-errors -- :/ >/dev/null 2>&1
      {ask}
    ) 2>&1"""
    answer = box.serve(script, limit=None)
    if answer.exit_code != 0:
        words = answer.output[-300:].decode("utf-8", "replace").strip()
        raise SandboxError(f"git does not answer in {box.workdir} of the box (exit code {answer.exit_code}): {words}")
    return answer.output
