"""What every sandbox backend promises of a box's beginning and end, and of what befalls it from outside."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
import uuid

import pytest

from swe_srl.errors import ImageMissing, SandboxError
from swe_srl.runtime import Sandbox, SandboxConfig, open_sandbox

pytestmark = pytest.mark.docker


def said(box: Sandbox, command: str) -> str:
    return box.run(command, timeout_s=20).output


def test_closing_removes_the_box_twice_is_harmless_and_after_it_every_method_says_so(config, base_image, outside):
    name = f"contract-close-{uuid.uuid4().hex[:12]}"
    with open_sandbox(config, base_image, "/made/on/demand", name=name) as box:
        assert said(box, "pwd") == "/made/on/demand\n"
        assert box.diff() == ""
    box.close()
    assert outside[config.type].boxes(name) == 0
    for use in (
        lambda: box.run("true", timeout_s=5),
        lambda: box.read_file("/x"),
        lambda: box.write_file("/x", b""),
        box.diff,
    ):
        with pytest.raises(SandboxError, match="closed"):
            use()


def test_a_box_that_is_gone_is_an_error_and_not_a_result(config, base_image, outside):
    for use in (
        lambda b: b.run("true", timeout_s=5),
        lambda b: b.read_file("/etc/passwd"),
        lambda b: b.write_file("/x", b"y"),
    ):
        with open_sandbox(config, base_image, name="contract-gone") as box:
            outside[config.type](box).kill()
            with pytest.raises(SandboxError):
                use(box)


@pytest.mark.parametrize("event", ["kill", "remove", "end"])
def test_a_box_that_goes_while_a_command_runs_is_an_error_and_not_the_commands_end(config, base_image, outside, event):
    with open_sandbox(config, base_image, name="contract-goes") as box:
        doom = threading.Timer(0.5, getattr(outside[config.type](box), event))
        doom.start()
        began = time.monotonic()
        with pytest.raises(SandboxError):
            box.run("echo begun; sleep 30", timeout_s=30)
        assert time.monotonic() - began < 20
        doom.join()


@pytest.mark.parametrize(
    "use", [lambda box: box.run("true", timeout_s=60), lambda box: box.read_file("/etc/passwd")], ids=["run", "read"]
)
def test_a_paused_box_is_an_error_that_says_so_and_can_be_closed(config, base_image, outside, use):
    with open_sandbox(config, base_image, name="contract-paused") as box:
        outside[config.type](box).pause()
        began = time.monotonic()
        with pytest.raises(SandboxError, match=r"paused|stopped"):
            use(box)
        assert time.monotonic() - began < 20


USES = {
    "run": lambda box: box.run("exit 1", timeout_s=5),  # a new shell is wanted, and ours is asked where
    "read": lambda box: box.read_file("/etc/passwd"),
    "write": lambda box: box.write_file("/tmp/x", b"x"),
    "diff": lambda box: box.diff(),
}


@pytest.mark.session("persistent")
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("signal", ["KILL", "STOP"])
def test_our_own_shell_in_the_box_killed_or_held_is_an_error_and_not_a_result(
    config, base_image, monkeypatch, use, signal
):
    monkeypatch.setattr("swe_srl.runtime.box.SERVICE_TIMEOUT_S", 1.0)
    with open_sandbox(config, base_image, name="contract-service") as box:
        box.run("cd /testbed && git init -q . && git commit -q --allow-empty -m x", timeout_s=20)
        began = time.monotonic()
        others = "for p in /proc/[0-9]*; do [[ $(cat $p/comm) == bash && ${p#/proc/} != $$ ]] && echo ${p#/proc/}; done"
        box.run(f"kill -{signal} $({others})", timeout_s=5)
        with pytest.raises(SandboxError):
            USES[use](box)
        assert time.monotonic() - began < 20


def test_an_image_that_is_not_there_is_image_missing(config, base_image):
    with pytest.raises(ImageMissing, match="no-such-image"):
        open_sandbox(config, "swe-srl/no-such-image:1")


@pytest.mark.session("persistent")
@pytest.mark.parametrize(
    ("ending", "left"), [("import os; os.kill(os.getpid(), 9)", 1), ("raise SystemExit(3)", 0)], ids=["kill -9", "exit"]
)
def test_nothing_is_left_behind_by_a_process_that_ends_and_after_kill_9_once_another_starts(
    config, base_image, outside, ending, left
):
    # A host of their own: a process of ours that starts beside this test leaves boxes of another host alone.
    host = f"host-{uuid.uuid4().hex[:12]}"
    program = f"""
    import socket
    socket.gethostname = lambda: {host!r}
    from swe_srl.runtime import SandboxConfig, open_sandbox
    box = open_sandbox(SandboxConfig(type={config.type!r}, archives={str(config.archives)!r}), {base_image!r}, name={host!r})
    box.run("sleep 4001 & echo", timeout_s=10)
    """

    def end(ending: str) -> None:
        subprocess.run([sys.executable, "-c", textwrap.dedent(program) + ending], check=False, capture_output=True)

    end(ending)
    assert outside[config.type].boxes(host) == left
    end("box.close()")
    assert outside[config.type].boxes(host) == 0
    assert subprocess.run(["pgrep", "-f", "sleep 4001$"], check=False).returncode == 1


@pytest.mark.parametrize(
    "moment",
    [
        "machine.owner_label",  # the folder is there, and nobody's name in it
        "launch._told_pid",  # bwrap is about to say which process it started
        "machine.start_time",  # the box runs, and nobody knows its number
    ],
)
def test_an_owner_killed_while_its_box_starts_leaves_nothing(base_image, archives, outside, moment):
    """Found by a soak: bwrap died of the broken pipe of an owner that was gone, and its child waited for it for ever."""
    host = f"host-{uuid.uuid4().hex[:12]}"
    program = f"""
    import os, socket
    socket.gethostname = lambda: {host!r}
    from swe_srl.runtime import SandboxConfig, open_sandbox
    from swe_srl.runtime.rootless import launch, machine
    KILL
    box = open_sandbox(SandboxConfig(type="bubblewrap", archives={str(archives)!r}), {base_image!r}, name={host!r})
    box.close()
    """

    def run(kill: str) -> int:
        command = textwrap.dedent(program).replace("KILL", kill)
        return subprocess.run([sys.executable, "-c", command], check=False, capture_output=True).returncode

    if moment == "machine.start_time":  # it is asked once for the folder's name, and again for the box
        kill = "calls = iter(['1']); machine.start_time = lambda pid: next(calls, None) or os.kill(os.getpid(), 9)"
    else:
        kill = f"{moment} = lambda *_: os.kill(os.getpid(), 9)"
    assert run(kill) == -9
    deadline = time.monotonic() + 5
    while subprocess.run(["pgrep", "-f", f"^bwrap.*{host}"], capture_output=True, check=False).returncode == 0:
        assert time.monotonic() < deadline, "bwrap waits for an owner that is dead"
        time.sleep(0.05)
    assert outside["bubblewrap"].boxes(host) == 1
    assert run("") == 0
    assert outside["bubblewrap"].boxes(host) == 0


def test_a_box_without_an_engine_that_cannot_be_set_up_says_what_was_said(base_image, archives, monkeypatch):
    monkeypatch.setattr("swe_srl.runtime.rootless.launch._SHM", "/proc/version/shm")  # no folder can be made there
    with pytest.raises(SandboxError, match=r"did not start: bwrap: .*shm"):
        open_sandbox(SandboxConfig(type="bubblewrap", archives=archives), base_image, name="contract-unset")
