"""What every sandbox backend promises of files and of what git sees."""

from __future__ import annotations

import time

import pytest

from swe_srl.runtime import Sandbox
from swe_srl.runtime.history import tree_hash

pytestmark = pytest.mark.docker


def said(box: Sandbox, command: str) -> str:
    return box.run(command, timeout_s=20).output


@pytest.mark.parametrize(
    "content", [b"", b"plain\n", b"no newline", bytes(range(256)) * 5, b"\x1e" * 100, b"exit 3\n" * 400]
)
def test_a_file_comes_back_as_it_was_written(box, content):
    box.write_file("/testbed/new folder/it's $(a) file.bin", content)
    assert box.read_file("/testbed/new folder/it's $(a) file.bin") == content
    assert said(box, 'stat -c %s "/testbed/new folder/it\'s \\$(a) file.bin"') == f"{len(content)}\n"


def test_a_file_of_50_megabytes_comes_back_as_it_was_written(box):
    content = bytes(range(256)) * 200_000
    box.write_file("/tmp/large", content)
    assert box.read_file("/tmp/large") == content
    box.run("rm /tmp/large", timeout_s=20)


def test_writing_keeps_the_mode_of_a_file_and_follows_a_link(box):
    box.run("cd /testbed; echo old > tool; chmod 755 tool; ln -s tool link", timeout_s=20)
    box.write_file("/testbed/link", b"new\n")
    assert said(box, "cd /testbed; stat -c %a tool; cat tool; test -L link && echo link") == "755\nnew\nlink\n"


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


def test_a_full_disk_is_an_error_and_the_box_goes_on(box):
    with pytest.raises(OSError, match="/dev/full"):
        box.write_file("/dev/full", b"rm -rf /testbed\n" * 10_000)
    assert box.read_file("/testbed/f.txt") == b"one\ntwo\n"


def test_a_command_that_fills_the_disk_is_killed_says_so_and_the_box_goes_on(kind):
    began = time.monotonic()
    result = kind.box.run("dd if=/dev/zero of=/tmp/fill bs=1M count=300 2>&1; sleep 60", timeout_s=60)
    assert (result.exit_code, result.timed_out) == (137, False)
    assert result.output.endswith("killed: this box holds more than its 200 MiB of disk\n")
    assert time.monotonic() - began < 20
    assert said(kind.box, "rm /tmp/fill; echo fine") == "fine\n"
    assert kind.box.run("sleep 1.5; echo slept", timeout_s=20).output == "slept\n"


@pytest.mark.parametrize(
    "name", ["-rf", "a b", "new\nline", "é漢", "'", '"$(x)"', "*", "~", "\\", " ", "a" * 255, "\udcff"]
)
def test_a_file_of_any_name_is_written_read_and_in_the_diff(box, name):
    box.write_file(f"/testbed/names/{name}", b"here\n")
    assert box.read_file(f"names/{name}") == b"here\n"
    assert "+here" in box.diff()


def test_a_link_that_points_out_of_the_repository_is_a_link_in_the_diff_and_not_what_it_points_to(box):
    box.run("cd /testbed; ln -s /etc/passwd out; ln -s /nowhere broken; ln -s . loop", timeout_s=20)
    patch = box.diff()
    assert patch.count("new file mode 120000") == 3
    assert "+/etc/passwd" in patch
    assert "root:" not in patch
    with pytest.raises(FileNotFoundError):
        box.read_file("/testbed/broken")
    with pytest.raises(IsADirectoryError):
        box.read_file("/testbed/loop/loop")


def test_a_pipe_or_a_device_in_the_repository_does_not_hold_the_diff(box):
    box.run("cd /testbed; mkfifo pipe; echo more >> f.txt", timeout_s=20)
    assert "+more" in box.diff()


def test_a_pipe_or_a_device_is_not_read_for_ever(box):
    box.run("mkfifo /tmp/pipe", timeout_s=20)
    for path in ("/tmp/pipe", "/dev/zero"):
        with pytest.raises(OSError, match="no regular file"):
            box.read_file(path)
    with pytest.raises(OSError, match="is a pipe"):
        box.write_file("/tmp/pipe", b"x")
    assert said(box, "rm /tmp/pipe; echo fine") == "fine\n"


def test_an_unchanged_repository_has_an_empty_diff(box):
    assert box.diff() == ""


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


def test_the_diff_is_against_the_start_also_after_commits_and_whatever_gits_settings_say(box):
    start = box.run("git -C /testbed rev-parse HEAD", timeout_s=20).output.strip()
    box.run("cd /testbed; echo three >> f.txt", timeout_s=20)
    patch = box.diff()
    settings = "git config color.ui always; git config diff.noprefix true; git config diff.external false; git config core.hooksPath /x; rm .git/index"
    box.run(f"cd /testbed; git add -A; git commit -qm more; {settings}", timeout_s=20)
    assert box.diff() == patch
    undo = "for s in color.ui diff.noprefix diff.external core.hooksPath; do git config --unset $s; done"
    assert box.run(f"cd /testbed; {undo}; git reset -q --hard {start}", timeout_s=20).exit_code == 0


def test_the_tree_hash_is_gits_own_and_leaves_no_trace(box):
    assert tree_hash(box) == said(box, "git -C /testbed rev-parse 'HEAD^{tree}'").strip()
    objects = said(box, "find /testbed/.git -type f | sort | md5sum")
    box.write_file("/testbed/f.txt", b"other\n")
    changed = tree_hash(box)
    assert said(box, "find /testbed/.git -type f | sort | md5sum") == objects
    assert changed == said(box, "cd /testbed && git add -A && git write-tree").strip()


def test_what_is_written_to_a_recorded_pipe_is_kept_outside_and_cannot_be_taken_back(box: Sandbox) -> None:
    recorder = box.record("/tmp/recorded/one/wire")
    try:
        box.run("cd /tmp/recorded/one && printf one >wire; (sleep 0.3; printf two >wire) & wait", timeout_s=20)
        box.run("printf 'x%.0s' {1..200000} >/tmp/recorded/one/wire", timeout_s=20)
        assert recorder.finish() == (b"onetwo" + b"x" * 200_000, True)
    finally:
        recorder.close()


def test_a_recorder_whose_reader_was_killed_says_so_and_keeps_what_it_had(box: Sandbox) -> None:
    recorder = box.record("/tmp/recorded/two/wire")
    try:
        box.run("printf before >/tmp/recorded/two/wire; sleep 0.3", timeout_s=20)
        box.run(
            'for p in /proc/[0-9]*; do read -r name <$p/comm; [ "$name" = cat ] && kill -9 ${p#/proc/}; done 2>/dev/null; true',
            timeout_s=20,
        )
        assert recorder.finish(timeout_s=2) == (b"before", False)
    finally:
        recorder.close()
    assert box.run("echo alive", timeout_s=20).output == "alive\n"
