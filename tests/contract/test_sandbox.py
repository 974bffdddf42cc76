"""What every sandbox backend promises, in both kinds of session."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from swe_srl.errors import ImageMissing, SandboxError
from swe_srl.runtime import Limits, Sandbox, SandboxConfig, open_sandbox
from swe_srl.runtime.history import tree_hash
from swe_srl.runtime.shell import Shell

pytestmark = pytest.mark.docker

LIMITS = Limits(cpus=1, memory_mib=256, pids=64, output_bytes=20_000)
BACKENDS = [SandboxConfig(type="docker", session=session, limits=LIMITS) for session in ("persistent", "fresh")]
PERSISTENT = [config for config in BACKENDS if config.session == "persistent"]
FRESH = [config for config in BACKENDS if config.session == "fresh"]
REPOSITORY = """
cd /testbed && git init -q . && git config user.email a@example.org && git config user.name A
printf 'one\\ntwo\\n' > f.txt && printf '*.log\\n' > .gitignore && mkdir d && echo keep > d/g.txt && git add -A && git commit -qm start
"""


class Kind(NamedTuple):
    """A config, and a box of it that holds a small repository."""

    config: SandboxConfig
    box: Sandbox


def _name(config: SandboxConfig) -> str:
    return f"{config.type}-{config.session}"


@pytest.fixture(scope="module")
def shared(base_image: str) -> Iterator[dict[str, Sandbox]]:
    boxes: dict[str, Sandbox] = {}
    try:
        for config in BACKENDS:
            box = boxes[_name(config)] = open_sandbox(config, base_image, name=f"contract-{_name(config)}")
            assert box.run(REPOSITORY, timeout_s=30).exit_code == 0
        yield boxes
    finally:
        for box in boxes.values():
            box.close()


@pytest.fixture
def kind(request: pytest.FixtureRequest, shared: dict[str, Sandbox]) -> Iterator[Kind]:
    """The shared box of one config; what a test changed in the repository is undone after it."""
    box = shared[_name(request.param)]
    yield Kind(request.param, box)
    assert box.run("cd /testbed && git reset -q --hard && git clean -qfdx", timeout_s=30).exit_code == 0


@pytest.fixture
def box(kind: Kind) -> Sandbox:
    return kind.box


every = pytest.mark.parametrize("kind", BACKENDS, ids=_name, indirect=True)
persistent = pytest.mark.parametrize("kind", PERSISTENT, ids=_name, indirect=True)
fresh = pytest.mark.parametrize("kind", FRESH, ids=_name, indirect=True)


def said(box: Sandbox, command: str) -> str:
    return box.run(command, timeout_s=20).output


@every
def test_a_command_gives_its_output_and_exit_code(box):
    result = box.run("echo out; echo err >&2; exit_with() { return 7; }; exit_with", timeout_s=20)
    assert (result.output, result.exit_code, result.timed_out) == ("out\nerr\n", 7, False)


@every
def test_a_command_starts_in_the_working_directory(box):
    assert said(box, "pwd") == "/testbed\n"


@persistent
def test_a_persistent_session_carries_directory_variables_and_functions_over(box):
    box.run('mkdir -p /tmp/here && cd /tmp/here; NUMBER=5; export WORD=w; shout() { echo "shout $1"; }', timeout_s=20)
    assert said(box, "pwd; echo $NUMBER; bash -c 'echo $WORD'; shout x") == "/tmp/here\n5\nw\nshout x\n"


@fresh
def test_a_fresh_session_carries_nothing_over(box):
    box.run("cd /tmp; NUMBER=5; export WORD=w", timeout_s=20)
    assert said(box, "pwd; echo [$NUMBER$WORD]") == "/testbed\n[]\n"


@every
@pytest.mark.parametrize(
    "text", ["'", '"', "`", "$'\\'", "\\", "é ß 漢 🙂", "%s %d", "!! !x", "a\tb", "*", "\x1e\x01", "eval", "- -n"]
)
def test_any_text_reaches_a_command_unchanged(box, text):
    assert said(box, f"cat <<'END'\n{text}\nEND") == f"{text}\n"


@every
@pytest.mark.parametrize(
    "command",
    ['echo "open', "echo 'open", "if true; then", "cat <<END\nno end", "echo $((", "}", "a=(", "echo `open", ")"],
)
def test_an_unfinished_command_is_a_result_and_the_next_one_works(box, command):
    result = box.run(command, timeout_s=20)
    assert not result.timed_out
    assert result.exit_code != 0 or "no end" in result.output
    assert said(box, "echo fine") == "fine\n"


@every
@pytest.mark.parametrize(
    ("command", "output", "exit_code"),
    [
        ("echo a; exit 3", "a\n", 3),
        ("set -e; false; echo never", "", 1),
        ("exec sh -c 'echo b; exit 4'", "b\n", 4),
        ("kill -9 $$", "", 137),
        ("exec >/dev/null 2>&1; echo lost; (exit 5)", "", 5),
        ("exec 0<&- 1>&- 2>&-; (exit 6)", "", 6),
        ("sleep 20 & exit 8", None, 8),
    ],
)
def test_a_command_that_ends_or_alters_its_shell_gives_its_exit_code_and_the_next_one_works(
    box, command, output, exit_code
):
    result = box.run(command, timeout_s=20)
    assert result.exit_code == exit_code
    assert output is None or result.output == output
    assert result.duration_s < 5
    assert said(box, "echo fine") == "fine\n"


@persistent
def test_a_shell_that_ended_is_followed_by_one_in_the_same_directory(box):
    box.run("mkdir -p /tmp/there; cd /tmp/there", timeout_s=20)
    box.run("exit 1", timeout_s=20)
    assert said(box, "pwd") == "/tmp/there\n"


@persistent
def test_a_shell_that_ends_writes_nothing_into_the_file_its_output_went_to(box):
    assert box.run("exec >/tmp/log; echo logged; exit 2", timeout_s=20)[:2] == ("", 2)
    assert said(box, "cat /tmp/log") == "logged\n"


@persistent
def test_options_that_would_end_the_shell_do_not_carry_over(box):
    box.run("set -ex", timeout_s=20)
    result = box.run("false", timeout_s=20)
    assert (result.output, result.exit_code) == ("", 1)
    box.run("LEFT=1; set -u", timeout_s=20)
    assert box.run("echo $UNSET_NAME", timeout_s=20).exit_code != 0
    assert said(box, "echo $LEFT; set +u") == "1\n"


@every
def test_a_loop_word_outside_a_loop_does_not_break_the_session(box):
    box.run("break; continue; return 2", timeout_s=20)
    assert said(box, "echo fine") == "fine\n"


@every
def test_a_command_that_reads_its_input_finds_it_empty(box):
    assert said(box, 'cat; read line || echo "end [$line]"') == "end []\n"


@every
def test_a_job_in_the_background_does_not_hold_the_command(box):
    began = time.monotonic()
    assert box.run("sleep 30 & echo started", timeout_s=20).output.endswith("started\n")
    assert time.monotonic() - began < 5
    box.run("pkill sleep -n", timeout_s=20)


@every
def test_at_the_time_out_output_is_kept_everything_the_command_began_is_dead_and_the_next_works(box):
    deaf = "trap '' INT TERM HUP; (trap '' TERM HUP; setsid sleep 1001 &) ; nohup sleep 1002 >/dev/null & echo before; sleep 1003; echo after"
    began = time.monotonic()
    result = box.run(deaf, timeout_s=1)
    assert (result.exit_code, result.timed_out) == (None, True)
    assert "before\n" in result.output
    assert "after" not in result.output
    assert time.monotonic() - began < 6
    assert said(box, "pgrep -f 'sleep 100[0-9]' || echo none") == "none\n"


@every
@pytest.mark.parametrize(
    "command",
    ["while :; do :; done", "yes", "cat /dev/zero", "sleep 60 | cat; sleep 60", "python -c 'while True: pass'"],
)
def test_a_command_that_does_not_end_is_ended(box, command):
    assert box.run(command, timeout_s=0.5).timed_out
    assert said(box, "echo fine") == "fine\n"


@persistent
def test_state_survives_a_time_out(box):
    box.run("cd /tmp; KEPT=yes", timeout_s=20)
    assert box.run("cd /usr; NEW=too; sleep 60", timeout_s=0.5).timed_out
    assert said(box, "pwd; echo $KEPT $NEW") == "/usr\nyes too\n"


@every
def test_a_time_out_spares_a_server_that_an_earlier_command_began(box):
    box.run("nohup sleep 2001 >/dev/null 2>&1 & echo", timeout_s=20)
    time.sleep(0.2)
    assert box.run("sleep 60", timeout_s=0.5).timed_out
    assert said(box, "pgrep -c -f 'sleep 2001$'; pkill -f 'sleep 2001$'") == "1\n"


@every
def test_a_time_out_ends_what_the_command_began_first_also_when_a_busy_machine_kills_late(box, monkeypatch):
    serve = box.serve
    monkeypatch.setattr(box, "serve", lambda script: (time.sleep(0.3), serve(script))[1])
    assert box.run("setsid sleep 3001 & sleep 60", timeout_s=0.5).timed_out
    assert said(box, "pgrep -f 'sleep 3001$' || echo none") == "none\n"


@every
def test_output_beyond_the_limit_is_counted_and_dropped(box):
    result = box.run("head -c 30000000 /dev/zero | tr '\\0' x; echo; echo end", timeout_s=60)
    assert result.output == "x" * LIMITS.output_bytes
    assert result.num_bytes_dropped == 30_000_000 + len("\nend\n") - LIMITS.output_bytes
    assert result.exit_code == 0


@every
def test_binary_output_is_decoded_with_replacement(box):
    assert said(box, "printf 'a\\377\\000b\\r\\n'") == "a\ufffd\0b\r\n"


@every
def test_output_and_error_keep_their_order(box):
    expected = "".join(f"o{i}\ne{i}\n" for i in range(200))
    assert said(box, "for i in $(seq 0 199); do echo o$i; echo e$i >&2; done") == expected


@every
def test_a_long_command_arrives_whole(box):
    text = "x" * 60_000
    assert said(box, f"printf %s {text} | wc -c").strip() == "60000"


@every
def test_a_command_with_a_nul_byte_is_refused_as_a_result(box):
    assert box.run("echo a\0b", timeout_s=20).exit_code == 2
    assert said(box, "echo fine") == "fine\n"


@every
def test_there_is_no_network_no_capability_and_no_new_privilege(box):
    assert said(box, "ls /sys/class/net") == "lo\n"
    status = said(box, "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status")
    assert status.split() == ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]


@every
def test_the_environment_is_what_the_config_says_and_nothing_of_the_host(monkeypatch, kind):
    names = set(said(kind.box, "env | cut -d= -f1").split())
    assert set(kind.config.environment) <= names
    assert names <= set(kind.config.environment) | {"PATH", "HOME", "HOSTNAME", "PWD", "OLDPWD", "SHLVL", "_", "WORD"}


@every
def test_memory_is_limited_and_running_out_of_it_is_a_result(box):
    result = box.run("python -c 'x = bytearray(2_000_000_000)'", timeout_s=60)
    assert result.exit_code == 137
    assert said(box, "echo fine") == "fine\n"


@every
def test_a_fork_bomb_is_held_and_the_box_goes_on(box):
    box.run("bomb() { while :; do bomb & sleep 1; done; }; bomb", timeout_s=1)
    assert box.run("echo fine", timeout_s=30).output == "fine\n"


@persistent
def test_a_box_that_takes_no_new_shell_is_emptied_for_one(box, monkeypatch):
    refusals = iter([SandboxError("no process is left")])

    def start(*args: object) -> Shell:
        for refusal in refusals:
            raise refusal
        return Shell(*args)

    monkeypatch.setattr("swe_srl.runtime.docker_box.Shell", start)
    assert box.run("setsid sleep 3002 & exit 3", timeout_s=20).exit_code == 3
    assert said(box, "pgrep -f 'sleep 3002$' || echo none") == "none\n"


@every
@pytest.mark.parametrize(
    "content", [b"", b"plain\n", b"no newline", bytes(range(256)) * 5, b"\x1e" * 100, b"exit 3\n" * 400]
)
def test_a_file_comes_back_as_it_was_written(box, content):
    box.write_file("/testbed/new folder/it's $(a) file.bin", content)
    assert box.read_file("/testbed/new folder/it's $(a) file.bin") == content
    assert said(box, 'stat -c %s "/testbed/new folder/it\'s \\$(a) file.bin"') == f"{len(content)}\n"


@every
def test_a_file_of_50_megabytes_comes_back_as_it_was_written(box):
    content = bytes(range(256)) * 200_000
    box.write_file("/tmp/large", content)
    assert box.read_file("/tmp/large") == content
    box.run("rm /tmp/large", timeout_s=20)


@every
def test_writing_keeps_the_mode_of_a_file_and_follows_a_link(box):
    box.run("cd /testbed; echo old > tool; chmod 755 tool; ln -s tool link", timeout_s=20)
    box.write_file("/testbed/link", b"new\n")
    assert said(box, "cd /testbed; stat -c %a tool; cat tool; test -L link && echo link") == "755\nnew\nlink\n"


@every
def test_what_cannot_be_read_or_written_is_said_in_pythons_own_errors(box):
    with pytest.raises(FileNotFoundError):
        box.read_file("/testbed/nothing")
    with pytest.raises(IsADirectoryError):
        box.read_file("/testbed/d")
    with pytest.raises(IsADirectoryError):
        box.write_file("/testbed/d", b"x")
    with pytest.raises(OSError, match=r"testbed/f\.txt"):
        box.write_file("/testbed/f.txt/below", b"x")
    assert box.read_file("/testbed/f.txt") == b"one\ntwo\n"


@every
def test_a_full_disk_is_an_error_and_the_box_goes_on(box):
    with pytest.raises(OSError, match="/dev/full"):
        box.write_file("/dev/full", b"rm -rf /testbed\n" * 10_000)
    assert box.read_file("/testbed/f.txt") == b"one\ntwo\n"


@every
def test_an_unchanged_repository_has_an_empty_diff(box):
    assert box.diff() == ""


@every
def test_the_diff_holds_new_changed_and_deleted_files_but_not_ignored_ones(box):
    box.run(
        "cd /testbed; echo three >> f.txt; rm d/g.txt; mkdir n; echo new > 'n/a b.txt'; echo x > x.log; printf '\\0\\1' > b.bin",
        timeout_s=20,
    )
    status = said(box, "git -C /testbed status --short")
    patch = box.diff()
    assert patch.endswith("\n")
    assert "+three\n" in patch
    assert "deleted file mode 100644" in patch
    assert "n/a b.txt" in patch
    assert "GIT binary patch" in patch
    assert "x.log" not in patch
    assert said(box, "git -C /testbed status --short") == status


@every
def test_the_diff_rebuilds_the_same_tree(box):
    box.run(
        "cd /testbed; printf 'no newline' > f.txt; printf 'caf\\351\\n' > latin1; printf 'a\\r\\nb\\r\\n' > crlf; rm -r d",
        timeout_s=20,
    )
    tree, patch = tree_hash(box), box.diff()
    box.write_file("/tmp/p.diff", patch.encode())
    assert (
        box.run(
            "cd /testbed && git stash -qu && git apply --whitespace=nowarn /tmp/p.diff && git stash drop -q",
            timeout_s=20,
        ).exit_code
        == 0
    )
    assert tree_hash(box) == tree


@every
def test_the_diff_is_against_the_start_also_after_commits_and_whatever_gits_settings_say(box):
    start = box.run("git -C /testbed rev-parse HEAD", timeout_s=20).output.strip()
    box.run("cd /testbed; echo three >> f.txt", timeout_s=20)
    patch = box.diff()
    settings = "git config color.ui always; git config diff.noprefix true; git config diff.external false; git config core.hooksPath /x; rm .git/index"
    box.run(f"cd /testbed; git add -A; git commit -qm more; {settings}", timeout_s=20)
    assert box.diff() == patch
    undo = "for s in color.ui diff.noprefix diff.external core.hooksPath; do git config --unset $s; done"
    assert box.run(f"cd /testbed; {undo}; git reset -q --hard {start}", timeout_s=20).exit_code == 0


@every
def test_the_tree_hash_is_gits_own_and_leaves_no_trace(box):
    assert tree_hash(box) == said(box, "git -C /testbed rev-parse 'HEAD^{tree}'").strip()
    objects = said(box, "find /testbed/.git -type f | sort | md5sum")
    box.write_file("/testbed/f.txt", b"other\n")
    changed = tree_hash(box)
    assert said(box, "find /testbed/.git -type f | sort | md5sum") == objects
    assert changed == said(box, "cd /testbed && git add -A && git write-tree").strip()


@every
def test_a_command_costs_a_few_milliseconds_at_most(kind):
    times = []
    for _ in range(50):
        began = time.perf_counter()
        kind.box.run("true", timeout_s=20)
        times.append(time.perf_counter() - began)
    # An exec per command costs 40 ms; here it is 0.2 (persistent) and 2 (fresh). The best of 50, for busy machines.
    assert min(times) < 0.010


@pytest.mark.parametrize("config", BACKENDS, ids=_name)
def test_closing_removes_the_box_twice_is_harmless_and_after_it_every_method_says_so(config, base_image):
    name = f"contract-close-{uuid.uuid4().hex[:12]}"
    with open_sandbox(config, base_image, "/made/on/demand", name=name) as box:
        assert said(box, "pwd") == "/made/on/demand\n"
        assert box.diff() == ""
    box.close()
    assert (
        subprocess.run(
            ["docker", "ps", "-aq", "--filter", f"label=swe-srl.name={name}"], capture_output=True, check=True
        ).stdout
        == b""
    )
    for use in (
        lambda: box.run("true", timeout_s=5),
        lambda: box.read_file("/x"),
        lambda: box.write_file("/x", b""),
        box.diff,
    ):
        with pytest.raises(SandboxError, match="closed"):
            use()


@pytest.mark.parametrize("config", BACKENDS, ids=_name)
def test_a_box_that_is_gone_is_an_error_and_not_a_result(config, base_image):
    for use in (
        lambda b: b.run("true", timeout_s=5),
        lambda b: b.read_file("/etc/passwd"),
        lambda b: b.write_file("/x", b"y"),
    ):
        with open_sandbox(config, base_image, name="contract-gone") as box:
            subprocess.run(["docker", "kill", box.container_id], check=True, capture_output=True)
            with pytest.raises(SandboxError):
                use(box)


@pytest.mark.parametrize("config", BACKENDS, ids=_name)
def test_an_image_that_is_not_there_is_image_missing(config, base_image):
    with pytest.raises(ImageMissing, match="no-such-image"):
        open_sandbox(config, "swe-srl/no-such-image:1")


@pytest.mark.parametrize(
    ("ending", "left"), [("import os; os.kill(os.getpid(), 9)", 1), ("raise SystemExit(3)", 0)], ids=["kill -9", "exit"]
)
def test_nothing_is_left_behind_by_a_process_that_ends_and_after_kill_9_once_another_starts(base_image, ending, left):
    # A host of their own: a process of ours that starts beside this test leaves boxes of another host alone.
    host = f"host-{uuid.uuid4().hex[:12]}"
    program = f"""
    import socket
    socket.gethostname = lambda: {host!r}
    from swe_srl.runtime import SandboxConfig, open_sandbox
    box = open_sandbox(SandboxConfig(), {base_image!r}, name={host!r})
    """

    def end(ending: str) -> None:
        subprocess.run([sys.executable, "-c", textwrap.dedent(program) + ending], check=False, capture_output=True)

    def boxes() -> list[bytes]:
        listing = ["docker", "ps", "-aq", "--filter", f"label=swe-srl.name={host}"]
        return subprocess.run(listing, capture_output=True, check=True).stdout.split()

    end(ending)
    assert len(boxes()) == left
    end("box.close()")
    assert boxes() == []
