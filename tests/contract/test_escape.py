"""What a box keeps apart: each test tries to get out, or to find what is not its own, as a hostile patch would.

Every attempt is a program of its own in the box, run as the box's root. A test that passes because its program is broken
would be worth nothing, so attempts that harm nobody are also seen to succeed outside.
"""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from swe_srl.runtime import Sandbox, open_sandbox

pytestmark = [pytest.mark.docker, pytest.mark.session("fresh")]


def python(box: Sandbox, program: str) -> str:
    return box.run(f"python3 -c {shlex.quote(program)}", timeout_s=20).output.strip()


# Each prints GOT when it got what it tried for, and REFUSED otherwise.
TRY = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(what):
    try:
        print("GOT" if what() else "REFUSED")
    except OSError as error:
        print("REFUSED", error.errno)
def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return True
"""
SYS = {"mount": 165, "umount2": 166, "keyctl": 250, "add_key": 248, "bpf": 321, "unshare": 272, "setns": 308, "init_module": 175,
       "kexec_load": 246, "open_by_handle_at": 304, "perf_event_open": 298, "userfaultfd": 323, "pivot_root": 155, "swapon": 167,
       "settimeofday": 164, "sethostname": 170, "io_uring_setup": 425, "syslog": 103, "chroot": 161}  # fmt: skip
"""Numbers of x86-64."""
ATTEMPTS = {
    "a connection to the outside": "attempt(lambda: socket.create_connection(('1.1.1.1', 53), 2))",
    "a name looked up": "attempt(lambda: socket.getaddrinfo('example.org', 80))",
    "a raw socket": "attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))",
    "a packet socket": "attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3))",
    "the engine's socket": "attempt(lambda: any(os.path.exists(p) for p in ('/var/run/docker.sock', '/run/docker.sock', '/run/containerd/containerd.sock', '/run/podman/podman.sock')))",
    "a mount": f"attempt(lambda: call({SYS['mount']}, b'tmpfs', b'/mnt', b'tmpfs', 0, 0))",
    "a mount taken away": f"attempt(lambda: call({SYS['umount2']}, b'/proc', 2))",
    "a user namespace": f"attempt(lambda: call({SYS['unshare']}, 0x10000000))",
    "a mount namespace": f"attempt(lambda: call({SYS['unshare']}, 0x00020000))",
    "another namespace": f"attempt(lambda: call({SYS['setns']}, os.open('/proc/1/ns/net', os.O_RDONLY), 0))",
    "another root": f"attempt(lambda: call({SYS['pivot_root']}, b'/', b'/mnt'))",
    "a change of root": f"attempt(lambda: call({SYS['chroot']}, b'/tmp'))",
    "the session's keys": f"attempt(lambda: call({SYS['keyctl']}, 0, -3, 0))",
    "a key of its own": f"attempt(lambda: call({SYS['add_key']}, b'user', b'k', b'x', 1, -2))",
    "a program in the kernel": f"attempt(lambda: call({SYS['bpf']}, 0, 0, 0))",
    "a module of the kernel": f"attempt(lambda: call({SYS['init_module']}, 0, 0, b''))",
    "another kernel": f"attempt(lambda: call({SYS['kexec_load']}, 0, 0, 0, 0))",
    "the kernel's log": f"attempt(lambda: call({SYS['syslog']}, 3, ctypes.create_string_buffer(100), 100))",
    "counters of the processor": f"attempt(lambda: call({SYS['perf_event_open']}, 0, 0, -1, -1, 0))",
    "a file by its handle": f"attempt(lambda: call({SYS['open_by_handle_at']}, -100, 0, 0))",
    "faults of its pages": f"attempt(lambda: call({SYS['userfaultfd']}, 0))",
    "the clock": f"attempt(lambda: call({SYS['settimeofday']}, 0, 0) and os.path.exists('/never'))",
    "the host's name": f"attempt(lambda: call({SYS['sethostname']}, b'mine', 4))",
    "a swap file": f"attempt(lambda: call({SYS['swapon']}, b'/etc/passwd', 0))",
    "a device of the disk": "os.system('mknod /tmp/disk b 8 0 2>/dev/null'); attempt(lambda: os.open('/tmp/disk', os.O_RDONLY))",
    "the memory of the machine": "attempt(lambda: os.open('/dev/mem', os.O_RDONLY))",
    "the memory through /proc": "attempt(lambda: os.read(os.open('/proc/kcore', os.O_RDONLY), 1))",
    "a setting of the kernel": "attempt(lambda: os.write(os.open('/proc/sys/kernel/core_pattern', os.O_WRONLY), b'|/x'))",
    "a crash on demand": "attempt(lambda: os.write(os.open('/proc/sysrq-trigger', os.O_WRONLY), b'h'))",
    "a setting of the network": "attempt(lambda: os.write(os.open('/proc/sys/net/ipv4/ip_forward', os.O_WRONLY), b'1'))",
    "a control group": "attempt(lambda: os.mkdir('/sys/fs/cgroup/escape') or True)",
    "a control group's agent": "attempt(lambda: os.open('/sys/fs/cgroup/release_agent', os.O_WRONLY))",
    "more than its share of time": "attempt(lambda: (os.nice(-5), True)[1])",
    "a capability by a set bit": "import shutil; shutil.copy('/bin/cat', '/tmp/suid'); os.chmod('/tmp/suid', 0o4755); attempt(lambda: 'CapEff:\\t0000000000000000' not in os.popen('/tmp/suid /proc/self/status').read())",
}  # fmt: skip


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of system calls are those of x86-64")
@pytest.mark.parametrize("what", ATTEMPTS)
def test_a_box_does_not_get(box, what):
    assert python(box, TRY + ATTEMPTS[what]).splitlines()[-1].startswith("REFUSED")


def test_a_box_without_an_engine_does_not_get_rings_of_the_kernel(kind):
    if kind.config.type == "docker":
        pytest.skip("the engine's own rules hold; they refuse it from Docker 25 on")
    rings = f"attempt(lambda: call({SYS['io_uring_setup']}, 1, ctypes.create_string_buffer(200)))"
    assert python(kind.box, TRY + rings) == "REFUSED 1"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may do these things anywhere")
@pytest.mark.parametrize(
    "what", ["a user namespace", "a mount namespace", "the session's keys", "a key of its own", "a raw socket", "more than its share of time"]
)  # fmt: skip
def test_outside_a_box_the_same_program_gets(what):
    shown = subprocess.run(
        [sys.executable, "-c", TRY + ATTEMPTS[what]], capture_output=True, text=True, check=True
    ).stdout
    assert shown.startswith("GOT")


def test_no_variable_file_or_process_of_the_host_is_to_be_seen(box, monkeypatch, tmp_path):
    secret = f"secret-{uuid.uuid4().hex}"
    (tmp_path / "secret").write_text(secret)
    sleeper = subprocess.Popen([sys.executable, "-c", "input()", secret], stdin=subprocess.PIPE, env={"SECRET": secret})
    try:
        assert box.run(f"cat {tmp_path}/secret", timeout_s=20).exit_code == 1
        found = box.run(
            f"grep -l {secret[:20]}'{secret[20:]}' /proc/*/environ /proc/*/cmdline /proc/*/mounts", timeout_s=20
        )
        # The search itself says what it searches for.
        assert all(
            "/self/" in line or "/thread-self/" in line or "cmdline" in line for line in found.output.splitlines()
        )
        assert box.run("ls -d /proc/[0-9]* | wc -l", timeout_s=20).output.strip().isdigit()
        assert str(sleeper.pid) not in box.run("ls /proc", timeout_s=20).output.split()
    finally:
        sleeper.communicate(b"\n")


def test_the_mounts_of_a_box_show_no_folder_of_the_host(box):
    sources = {line.split()[3] for line in box.run("cat /proc/self/mountinfo", timeout_s=20).output.splitlines()}
    homes = ("/home", "/root", "/work", str(Path.home()))
    assert not [source for source in sources if source.startswith(homes) and source != "/"]


def test_two_boxes_share_no_file_process_memory_or_port(config, base_image):
    with open_sandbox(config, base_image) as one, open_sandbox(config, base_image) as other:
        for folder in ("/tmp", "/dev/shm", "/var/tmp", "/testbed", "/root"):
            one.write_file(f"{folder}/mine", b"mine")
            assert other.run(f"ls {folder}/mine", timeout_s=20).exit_code != 0
        one.run("nohup python3 -m http.server 8123 >/dev/null 2>&1 & sleep 0.7", timeout_s=20)
        reach = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8123/', timeout=3).status)"
        assert python(one, reach) == "200"
        assert "refused" in python(other, reach)
        assert "http.server" not in other.run("cat /proc/*/cmdline | tr '\\0' ' '", timeout_s=20).output
        one.run("python3 -c 'import socket; s = socket.socket(socket.AF_UNIX); s.bind(\"\\0mine\"); s.listen(); import time; time.sleep(9)' & sleep 0.5", timeout_s=20)  # fmt: skip
        joined = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('\\0mine'); print('joined')"
        assert "refused" in python(other, joined)


def test_a_change_in_a_box_is_not_in_the_next_box_of_the_same_image(config, base_image):
    with open_sandbox(config, base_image) as box:
        box.run("echo changed > /etc/changed; rm -f /etc/passwd; echo x >> /bin/true", timeout_s=20)
    with open_sandbox(config, base_image) as box:
        assert box.run("ls /etc/passwd && ! ls /etc/changed 2>/dev/null && true", timeout_s=20).exit_code == 0


def test_the_store_of_boxes_is_not_written_by_whom_it_runs_as(base_image, archives):
    from swe_srl.runtime.rootless.store import account, store

    if account() is None:
        pytest.skip("boxes run as the user here")
    owners = {path.stat().st_uid for path in (store(), *(store() / name for name in ("layers", "images", "boxes")))}
    assert owners == {os.geteuid()}
