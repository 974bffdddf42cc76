"""Boxes on two machines of a cluster: where they go, who waits, and what a machine that dies takes along."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="ray is not installed: pip install 'swe-srl[ray]'")

from machines import Machines

from swe_srl.errors import EngineUnavailable, ImageMissing, SandboxError
from swe_srl.runtime import SandboxConfig, open_sandbox, remote
from swe_srl.runtime.open import BoxRequest, open_box
from swe_srl.runtime.remote import RemoteBox
from swe_srl.runtime.rootless.launch import require_bubblewrap
from swe_srl.runtime.roster import Roster

pytestmark = [pytest.mark.docker, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(240)]


@pytest.fixture
def on_cluster(machines: Machines, archives: Path) -> Iterator[SandboxConfig]:
    try:
        require_bubblewrap()
    except EngineUnavailable as error:
        pytest.skip(str(error))
    machines.have(2)
    yield SandboxConfig(type="bubblewrap", archives=archives, cluster=machines.address, cluster_boxes=1)
    remote.leave_all()


def place(box: RemoteBox) -> str:
    return box._member.machine


def both_are_in(config: SandboxConfig, image: str) -> list[RemoteBox]:
    """A box on each machine: the second of them may come some seconds after the first."""
    boxes = [open_sandbox(config, image), open_sandbox(config, image)]
    assert len({place(box) for box in boxes}) == 2
    return boxes


def test_boxes_are_spread_and_who_finds_no_room_waits(on_cluster, base_image):
    first, second = both_are_in(on_cluster, base_image)
    opened: list[RemoteBox] = []
    waiting = threading.Thread(target=lambda: opened.append(open_sandbox(on_cluster, base_image)))
    waiting.start()
    waiting.join(3)
    assert not opened
    second.close()
    waiting.join(60)
    assert place(opened[0]) == place(second)
    for box in (first, *opened):
        box.close()
        box.close()
    with pytest.raises(SandboxError, match="closed"):
        first.run("true", timeout_s=5)


def test_a_box_goes_where_its_image_is(on_cluster, base_image):
    first, second = both_are_in(on_cluster, base_image)
    machines = remote._clusters[on_cluster.cluster, 1]
    for box in (first, second):
        box.close()
    machines._images[place(second)] = {"another"}
    for _ in range(3):
        with open_sandbox(on_cluster, base_image) as box:
            assert place(box) == place(first)


def test_a_machine_that_is_slow_to_begin_holds_nobody_back(on_cluster, base_image, monkeypatch):
    start = Roster._start
    begun: list[str] = []

    def one_is_slow(roster, node):
        before = set(roster.starting)
        start(roster, node)
        begun.append(node["NodeID"])
        if len(begun) == 2:
            (reference,) = roster.starting.keys() - before
            slow = roster._ray.remote(num_cpus=0)(lambda: time.sleep(30))
            roster.starting[slow.remote()] = roster.starting.pop(reference)

    monkeypatch.setattr(Roster, "_start", one_is_slow)
    config = on_cluster.model_copy(update={"cluster_boxes": 3})
    since = time.monotonic()
    with open_sandbox(config, base_image) as first, open_sandbox(config, base_image) as second:
        assert len(begun) == 2
        assert place(first) == place(second) == begun[0]
        assert time.monotonic() - since < 30


def test_what_is_wrong_there_is_said_here_with_the_machine(on_cluster):
    with pytest.raises(ImageMissing, match=r"on [0-9.]+: .*no/such-image"):
        open_box(on_cluster, BoxRequest("no/such-image:1"))


LEAVES = """
import sys
from swe_srl.runtime import SandboxConfig, open_sandbox
config = SandboxConfig(type="bubblewrap", archives=sys.argv[1], cluster=sys.argv[2])
box = open_sandbox(config, sys.argv[3], name="left-behind")
print(box.run("echo there", timeout_s=20).output, end="", flush=True)
"""


def test_a_process_that_ends_leaves_no_box_behind(on_cluster, base_image, store):
    words = [sys.executable, "-c", LEAVES, str(on_cluster.archives), on_cluster.cluster, base_image]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "there\n"), done.stderr
    assert "Traceback" not in done.stderr
    assert not list((store / "boxes").glob("left-behind-*"))


def what_it_says(box: RemoteBox) -> str:
    try:
        return box.run("echo here", timeout_s=20).output
    except SandboxError as error:
        return str(error)


def test_a_machine_that_dies_takes_its_boxes_along_and_no_others(on_cluster, machines, base_image):
    boxes = both_are_in(on_cluster, base_image)
    machines.lose_one()
    deadline = time.monotonic() + 60
    said: list[str] = []
    while time.monotonic() < deadline and not any("was lost" in words for words in said):
        said = [what_it_says(box) for box in boxes]  # what ran there may outlive its machine's Ray for a moment
    assert sorted(words.partition(" 1")[0] for words in said) == ["here\n", "machine"]
    assert any("was lost, and the box with it" in words for words in said)
    for box in boxes:
        box.close()
    with open_sandbox(on_cluster, base_image) as again:
        assert again.run("echo again", timeout_s=20).output == "again\n"
