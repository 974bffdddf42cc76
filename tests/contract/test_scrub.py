"""What an agent can find out about the future of the repository in its box: nothing, wherever it was hidden."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swe_srl.errors import SandboxError
from swe_srl.runtime import Sandbox, SandboxConfig, open_sandbox
from swe_srl.runtime.docker.images import build_image
from swe_srl.runtime.open import backend_of
from swe_srl.runtime.rootless.store import store

pytestmark = pytest.mark.docker

# Each hiding place keeps a fix of its own, which names it; what is past, and stays, says PAST.
REPOSITORY = r"""
set -eu
git config --global user.email a@example.org; git config --global user.name A
git config --global protocol.file.allow always; git config --global init.defaultBranch main
fix() { echo "FIX-$1" > "fix-$1.py"; git add -A; git commit -qm "FIX-$1"; }

git init -q /library; cd /library; echo PAST > lib.py; git add -A; git commit -qm PAST
git init -q /testbed; cd /testbed; echo PAST > a.py; git add -A; git commit -qm PAST; git tag v1; git tag -a v1.0 -m PAST
git submodule --quiet add /library library; git commit -qm "PAST too"
now=$(git rev-parse HEAD)
fix future; git tag v2; git tag -a v2.0 -m "FIX-tag"; git branch other; git update-ref refs/custom/x HEAD
git notes add -m FIX-note; fix remote; git update-ref refs/remotes/origin/main HEAD
git symbolic-ref refs/remotes/origin/HEAD refs/remotes/origin/main
git remote add origin https://example.org/project.git
git config branch.main.remote origin
fix replaced; git replace "$now^" HEAD
fix kept; git repack -adq; for pack in .git/objects/pack/*.pack; do : > "${pack%.pack}.keep"; done
git commit-graph write --reachable
git reset -q --hard $now
fix reflog; git reset -q --hard $now; git pack-refs --all
echo FIX-stash > s.py; git add s.py; git stash -q
fix packed; git branch gone; git repack -adq; git reset -q --hard $now; git branch -D -q gone
echo FIX-blob | git hash-object -w --stdin >/dev/null
echo FIX-staged > staged.py; git add staged.py; rm staged.py
echo "$now" > .git/FETCH_HEAD; git rev-parse other > .git/ORIG_HEAD
git init -q --bare /lender; git --git-dir=/lender hash-object -w --stdin <<<FIX-lent >/dev/null
echo /lender/objects > .git/objects/info/alternates
mkdir -p .git/modules/{a,z}; touch .git/modules/{a,z}/HEAD  # as a HEAD of a remote: none of a repository
(cd library; fix submodule; git branch ahead; git reset -q --hard HEAD^)
echo WORK > work.py; echo PAST edited > a.py
"""
FIXES = "future tag note remote replaced kept reflog stash packed blob staged lent"
ALL_OBJECTS = "git cat-file --batch-all-objects --batch --buffer --unordered"


def said(box: Sandbox, command: str) -> str:
    result = box.run(f"cd /testbed; {command}", timeout_s=30)
    assert result.exit_code == 0, result.output
    return result.output


def remove(*images: str) -> None:
    subprocess.run(["docker", "rmi", *(image for image in images if ":" in image)], check=True, capture_output=True)


@pytest.fixture(scope="module", params=["docker", "bubblewrap"])
def backend(request: pytest.FixtureRequest, archives: Path) -> SandboxConfig:
    return SandboxConfig(type=request.param, archives=archives)


@pytest.fixture(scope="module")
def build(archives: Path) -> Iterator[Callable[[Path, str], str]]:
    """Build an image for both backends."""
    tags = []

    def build_and_save(context: Path, name: str) -> str:
        tag = f"swe-srl/test-scrub:{context.parent.name}-{name}"
        if tag not in tags:
            build_image(context, tag, {})
            tags.append(tag)
            subprocess.run(["docker", "save", "-o", archives / f"{name}.tar", tag], check=True)
        return tag

    yield build_and_save
    remove(*tags)


@pytest.fixture(scope="module")
def image(base_image: str, tmp_path_factory: pytest.TempPathFactory, build: Callable[[Path, str], str]) -> str:
    context: Path = tmp_path_factory.mktemp("context")
    (context / "repository.sh").write_text(REPOSITORY)
    (context / "Dockerfile").write_text(
        f'FROM {base_image}\nCOPY repository.sh /r.sh\nRUN bash /r.sh && rm /r.sh\nWORKDIR /testbed\nCMD ["bash"]\n'
    )
    return build(context, "hiding")


@pytest.fixture(scope="module")
def box(backend: SandboxConfig, image: str) -> Iterator[Sandbox]:
    scrubbed = backend_of(backend.type).without_future(backend, image, "/testbed")
    with open_sandbox(backend, scrubbed) as box:
        yield box
    if backend.type == "docker":
        remove(scrubbed)


def test_the_fixes_are_there_before(backend, image):
    with open_sandbox(backend, image) as box:
        found = said(box, f"{ALL_OBJECTS} | grep -aoE 'FIX-[a-z]+' | sort -u").split()
        assert found == sorted(f"FIX-{name}" for name in FIXES.split())
        assert "FIX-submodule" in said(box, f"cd library; {ALL_OBJECTS} | grep -a FIX")


@pytest.mark.parametrize("where", ["/testbed", "/testbed/library"])
def test_no_object_holds_a_fix_and_none_is_beyond_what_head_and_past_tags_lead_to(box, where):
    assert said(box, f"cd {where}; {ALL_OBJECTS} | grep -ac FIX || :") == "0\n"
    every = said(box, f"cd {where}; git cat-file --batch-all-objects --batch-check='%(objectname)' | sort")
    past = said(box, f"cd {where}; git rev-list --objects --no-object-names HEAD --tags | sort -u")
    assert every == past


def test_no_file_of_git_says_a_name_of_what_was_there(backend, image, box):
    with open_sandbox(backend, image) as before:
        future = said(before, "git --no-replace-objects rev-list --all --reflog --not HEAD").split()
    assert len(future) > 8
    assert said(box, f"grep -rlE '{'|'.join(future)}|FIX' .git || :") == ""


def test_the_past_the_branch_and_the_working_tree_stay(box):
    assert said(box, "git log --format=%s --all") == "PAST too\nPAST\n"
    assert said(box, "git for-each-ref --format='%(refname)'") == "refs/heads/main\nrefs/tags/v1\nrefs/tags/v1.0\n"
    assert said(box, "git describe") == "v1.0-1-g" + said(box, "git rev-parse --short HEAD")
    assert said(box, "git status --short") == " M a.py\n?? work.py\n"
    assert said(box, "cat a.py work.py library/lib.py") == "PAST edited\nWORK\nPAST\n"
    assert said(box, "git remote; git stash list; git reflog; git config --get-regexp '^branch' || :") == ""
    assert (
        said(
            box, "git fsck --full 2>&1; git -C library fsck --full 2>&1; echo PAST | git hash-object -w --stdin | wc -c"
        )
        == "41\n"
    )


def made(backend: SandboxConfig, tag: str) -> object:
    """Tells one making of an image from another."""
    if backend.type == "docker":
        return subprocess.run(["docker", "inspect", "-f", "{{.Id}}", tag], capture_output=True, check=True).stdout
    return (store() / "images" / f"{tag}.json").stat().st_mtime_ns


def test_it_is_done_once_for_an_image(backend, image, box):
    tag = backend_of(backend.type).without_future(backend, image, "/testbed")
    first = made(backend, tag)
    assert backend_of(backend.type).without_future(backend, image, "/testbed") == tag
    assert made(backend, tag) == first


def test_the_image_stays_as_it_was_but_for_its_repository(backend, image, box):
    tag = backend_of(backend.type).without_future(backend, image, "/testbed")
    # What the engine writes into every box as it starts is as old as the box.
    written = " ".join(f"! -path /etc/{name}" for name in ("hosts", "hostname", "resolv.conf", "mtab"))
    files = rf"find /etc /usr/bin -mindepth 1 {written} -printf '%M %u %g %s %t %p %l\n' | sort"
    look = f"pwd; env | grep -v HOSTNAME | sort; whoami; {files} | md5sum; {files} | wc -l"
    with open_sandbox(backend, image) as before, open_sandbox(backend, tag) as after:
        assert said(before, look) == said(after, look)


def test_an_image_without_a_repository_is_as_it_was(backend, base_image):
    tag = backend_of(backend.type).without_future(backend, base_image, "/testbed")
    with open_sandbox(backend, tag) as box:
        assert said(box, "ls -A /testbed") == ""
    if backend.type == "docker":
        remove(tag)


def test_a_repository_that_cannot_be_scrubbed_is_said_and_no_box_of_it_is_left(
    backend, image, build, tmp_path_factory, outside
):
    context = tmp_path_factory.mktemp("worktree")
    (context / "Dockerfile").write_text(f"FROM {image}\nRUN git worktree add -q /linked HEAD\n")
    tag = build(context, "worktree")
    with pytest.raises(SandboxError, match="worktree of another repository"):
        backend_of(backend.type).without_future(backend, tag, "/linked")
    assert outside[backend.type].boxes(f"scrub-{tag}") == 0


def history(num_commits: int) -> str:
    """A stream for `git fast-import`: a module of 200 lines, of which every commit changes one."""
    lines = [f"line {number}" for number in range(200)]
    stream = []
    for commit in range(num_commits):
        lines[commit * 37 % 200] = f"changed in {commit}"
        text = "\n".join(lines) + "\n"
        stream.append(
            f"commit refs/heads/main\ncommitter A <a@example.org> {10**9 + commit} +0000\ndata 6\ncommit\n"
            f"M 644 inline module.py\ndata {len(text)}\n{text}"
        )
    return "\n".join(stream) + "\n"


def test_ten_thousand_commits_of_which_half_are_future_take_seconds(backend, base_image, build, tmp_path_factory):
    context = tmp_path_factory.mktemp("long")
    (context / "stream").write_text(history(10_000))
    (context / "Dockerfile").write_text(
        f"FROM {base_image}\nCOPY stream /stream\nWORKDIR /testbed\n"
        "RUN git init -q -b main && git fast-import --quiet < /stream && rm /stream && git reset -q --hard main~5000\n"
    )
    image = build(context, "long")
    backend_of(backend.type).ensure_image(backend, image, None)
    began = time.monotonic()
    tag = backend_of(backend.type).without_future(backend, image, "/testbed")
    assert time.monotonic() - began < 20
    with open_sandbox(backend, tag) as box:
        assert said(box, "git rev-list --count --all") == "5000\n"
        assert said(box, f"{ALL_OBJECTS} | grep -ac 'changed in 4999$'") != "0\n"
        assert said(box, f"{ALL_OBJECTS} | grep -acE 'changed in [5-9][0-9]{{3}}$' || :") == "0\n"
    if backend.type == "docker":
        remove(tag)
