"""What every sandbox backend promises of a command, in both kinds of session."""

from __future__ import annotations

import time

import pytest

from swe_srl.errors import SandboxError
from swe_srl.runtime import Sandbox
from swe_srl.runtime.shell import Stream

pytestmark = pytest.mark.docker


def said(box: Sandbox, command: str) -> str:
    return box.run(command, timeout_s=20).output


def test_a_command_gives_its_output_and_exit_code(box):
    result = box.run("echo out; echo err >&2; exit_with() { return 7; }; exit_with", timeout_s=20)
    assert (result.output, result.exit_code, result.timed_out) == ("out\nerr\n", 7, False)


def test_a_command_starts_in_the_working_directory(box):
    assert said(box, "pwd") == "/testbed\n"


@pytest.mark.session("persistent")
def test_a_persistent_session_carries_directory_variables_and_functions_over(box):
    box.run('mkdir -p /tmp/here && cd /tmp/here; NUMBER=5; export WORD=w; shout() { echo "shout $1"; }', timeout_s=20)
    assert said(box, "pwd; echo $NUMBER; bash -c 'echo $WORD'; shout x") == "/tmp/here\n5\nw\nshout x\n"


@pytest.mark.session("fresh")
def test_a_fresh_session_carries_nothing_over(box):
    box.run("cd /tmp; NUMBER=5; export WORD=w", timeout_s=20)
    assert said(box, "pwd; echo [$NUMBER$WORD]") == "/testbed\n[]\n"


@pytest.mark.parametrize(
    "text", ["'", '"', "`", "$'\\'", "\\", "é ß 漢 🙂", "%s %d", "!! !x", "a\tb", "*", "\x1e\x01", "eval", "- -n"]
)
def test_any_text_reaches_a_command_unchanged(box, text):
    assert said(box, f"cat <<'END'\n{text}\nEND") == f"{text}\n"


@pytest.mark.parametrize(
    "command",
    ['echo "open', "echo 'open", "if true; then", "cat <<END\nno end", "echo $((", "}", "a=(", "echo `open", ")"],
)
def test_an_unfinished_command_is_a_result_and_the_next_one_works(box, command):
    result = box.run(command, timeout_s=20)
    assert not result.timed_out
    assert result.exit_code != 0 or "no end" in result.output
    assert said(box, "echo fine") == "fine\n"


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
    assert result.duration_s < 15
    assert said(box, "echo fine") == "fine\n"


@pytest.mark.session("persistent")
def test_a_shell_that_ended_is_followed_by_one_in_the_same_directory(box):
    box.run("mkdir -p /tmp/there; cd /tmp/there", timeout_s=20)
    box.run("exit 1", timeout_s=20)
    assert said(box, "pwd") == "/tmp/there\n"


@pytest.mark.session("persistent")
def test_a_shell_that_ends_writes_nothing_into_the_file_its_output_went_to(box):
    assert box.run("exec >/tmp/log; echo logged; exit 2", timeout_s=20)[:2] == ("", 2)
    assert said(box, "cat /tmp/log") == "logged\n"


@pytest.mark.session("persistent")
def test_options_that_would_end_the_shell_do_not_carry_over(box):
    box.run("set -ex", timeout_s=20)
    result = box.run("false", timeout_s=20)
    assert (result.output, result.exit_code) == ("", 1)
    box.run("LEFT=1; set -u", timeout_s=20)
    assert box.run("echo $UNSET_NAME", timeout_s=20).exit_code != 0
    assert said(box, "echo $LEFT; set +u") == "1\n"


def test_a_loop_word_outside_a_loop_does_not_break_the_session(box):
    box.run("break; continue; return 2", timeout_s=20)
    assert said(box, "echo fine") == "fine\n"


def test_a_command_that_reads_its_input_finds_it_empty(box):
    assert said(box, 'cat; read line || echo "end [$line]"') == "end []\n"


def test_a_job_in_the_background_does_not_hold_the_command(box):
    began = time.monotonic()
    assert box.run("sleep 30 & echo started", timeout_s=20).output.endswith("started\n")
    assert time.monotonic() - began < 15
    box.run("pkill sleep -n", timeout_s=20)


def test_at_the_time_out_output_is_kept_everything_the_command_began_is_dead_and_the_next_works(box):
    deaf = "trap '' INT TERM HUP; (trap '' TERM HUP; setsid sleep 1001 &) ; nohup sleep 1002 >/dev/null & echo before; sleep 1003; echo after"
    began = time.monotonic()
    result = box.run(deaf, timeout_s=1)
    assert (result.exit_code, result.timed_out) == (None, True)
    assert "before\n" in result.output
    assert "after" not in result.output
    assert time.monotonic() - began < 15
    assert said(box, "pgrep -f 'sleep 100[0-9]' || echo none") == "none\n"


@pytest.mark.parametrize(
    "command",
    ["while :; do :; done", "yes", "cat /dev/zero", "sleep 60 | cat; sleep 60", "python -c 'while True: pass'"],
)
def test_a_command_that_does_not_end_is_ended(box, command):
    assert box.run(command, timeout_s=0.5).timed_out
    assert said(box, "echo fine") == "fine\n"


@pytest.mark.session("persistent")
def test_state_survives_a_time_out(box):
    box.run("cd /tmp; KEPT=yes", timeout_s=20)
    assert box.run("cd /usr; NEW=too; sleep 60", timeout_s=0.5).timed_out
    assert said(box, "pwd; echo $KEPT $NEW") == "/usr\nyes too\n"


def test_a_time_out_spares_a_server_that_an_earlier_command_began(box):
    box.run("nohup sleep 2001 >/dev/null 2>&1 & echo", timeout_s=20)
    time.sleep(0.2)
    assert box.run("sleep 60", timeout_s=0.5).timed_out
    assert said(box, "pgrep -c -f 'sleep 2001$'; pkill -f 'sleep 2001$'") == "1\n"


def test_a_time_out_ends_what_the_command_began_first_also_when_a_busy_machine_kills_late(box, monkeypatch):
    serve = box.serve
    monkeypatch.setattr(box, "serve", lambda script: (time.sleep(0.3), serve(script))[1])
    assert box.run("setsid sleep 3001 & sleep 60", timeout_s=0.5).timed_out
    assert said(box, "pgrep -f 'sleep 3001$' || echo none") == "none\n"


def test_output_beyond_the_limit_is_counted_and_dropped(kind):
    box, limit = kind.box, kind.config.limits.output_bytes
    result = box.run("head -c 30000000 /dev/zero | tr '\\0' x; echo; echo end", timeout_s=60)
    assert result.output == "x" * limit
    assert result.num_bytes_dropped == 30_000_000 + len("\nend\n") - limit
    assert result.exit_code == 0


def test_binary_output_is_decoded_with_replacement(box):
    assert said(box, "printf 'a\\377\\000b\\r\\n'") == "a\ufffd\0b\r\n"


def test_output_and_error_keep_their_order(box):
    expected = "".join(f"o{i}\ne{i}\n" for i in range(200))
    assert said(box, "for i in $(seq 0 199); do echo o$i; echo e$i >&2; done") == expected


def test_a_long_command_arrives_whole(box):
    text = "x" * 60_000
    assert said(box, f"printf %s {text} | wc -c").strip() == "60000"


def test_a_command_with_a_nul_byte_is_refused_as_a_result(box):
    assert box.run("echo a\0b", timeout_s=20).exit_code == 2
    assert said(box, "echo fine") == "fine\n"


def test_there_is_no_network_no_capability_and_no_new_privilege(box):
    assert said(box, "tail -n +3 /proc/net/dev | cut -d: -f1").split() == ["lo"]
    status = said(box, "grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status")
    assert status.split() == ["CapEff:", "0" * 16, "CapBnd:", "0" * 16, "NoNewPrivs:", "1"]


def test_the_environment_is_what_the_config_says_and_nothing_of_the_host(monkeypatch, kind):
    names = set(said(kind.box, "env | cut -d= -f1").split())
    assert set(kind.config.environment) <= names
    assert names <= set(kind.config.environment) | {"PATH", "HOME", "HOSTNAME", "PWD", "OLDPWD", "SHLVL", "_", "WORD"}


def test_memory_is_limited_and_running_out_of_it_is_a_result(box):
    result = box.run("python -c 'x = bytearray(2_000_000_000)'", timeout_s=60)
    assert result.exit_code in (137, 1), "killed, or told that there is no more"
    assert said(box, "echo fine") == "fine\n"


def test_a_fork_bomb_is_held_and_the_box_goes_on(box):
    box.run("bomb() { while :; do bomb & sleep 1; done; }; bomb", timeout_s=1)
    assert box.run("echo fine", timeout_s=30).output == "fine\n"


@pytest.mark.here
@pytest.mark.session("persistent")
def test_a_box_that_takes_no_new_shell_is_emptied_for_one(box, monkeypatch):
    refusals = iter([SandboxError("no process is left")])
    start_bash = box.machine.start_bash

    def refuse_once(cwd: str) -> Stream:
        for refusal in refusals:
            raise refusal
        return start_bash(cwd)

    monkeypatch.setattr(box.machine, "start_bash", refuse_once)
    assert box.run("setsid sleep 3002 & exit 3", timeout_s=20).exit_code == 3
    assert said(box, "pgrep -f 'sleep 3002$' || echo none") == "none\n"


def test_a_gigabyte_of_output_is_a_result_and_the_box_goes_on(kind):
    result = kind.box.run("head -c 1000000000 /dev/zero; (exit 4)", timeout_s=120)
    assert (result.exit_code, result.num_bytes_dropped) == (4, 1_000_000_000 - kind.config.limits.output_bytes)
    assert said(kind.box, "echo fine") == "fine\n"


def test_colours_and_carriage_returns_reach_the_reader_as_they_were_printed(box):
    assert said(box, "printf '\\033[31mred\\033[0m\\r50%%\\r100%%\\n'") == "\x1b[31mred\x1b[0m\r50%\r100%\n"


def test_a_command_line_of_a_megabyte_arrives_whole(box):
    text = "x" * 100_000
    script = "\n".join(f"v{i}={text}" for i in range(10))
    assert said(box, f"{script}\necho ${{#v0}} ${{#v9}} $0; exit 3") == "100000 100000 bash\n"


def test_a_word_longer_than_the_kernel_takes_is_a_result(box):
    result = box.run(f"/bin/echo {'x' * 200_000}", timeout_s=20)
    assert result.exit_code == 126
    assert "too long" in result.output
    assert said(box, "echo fine") == "fine\n"


@pytest.mark.parametrize(
    "command",
    ["python", "python -i </dev/tty", "git commit --allow-empty", "git rebase -i HEAD", "top", "bash", "sh -i", "read -p name", "cat -", "git add -p"],
)  # fmt: skip
def test_a_program_that_wants_a_person_ends_or_is_ended_and_the_next_command_works(box, command):
    assert box.run(f"cd /testbed; {command}", timeout_s=5).duration_s < 15
    assert said(box, "echo fine") == "fine\n"
    assert said(box, "rm -rf /testbed/.git/rebase-merge; pgrep -x 'top|python|git' || echo none") == "none\n"


def test_two_time_outs_in_a_row_are_two_results(box):
    for _ in range(2):
        result = box.run("echo before; sleep 60", timeout_s=0.5)
        assert (result.output, result.timed_out) == ("before\n", True)
    assert said(box, "echo fine; pgrep -f 'sleep 60$' || echo none") == "fine\nnone\n"


def test_a_daemon_that_closes_everything_lives_on_and_holds_nothing(box):
    began = time.monotonic()
    box.run("setsid nohup sleep 2002 </dev/null >/dev/null 2>&1 & disown", timeout_s=20)
    assert time.monotonic() - began < 15
    assert said(box, "pgrep -c -f 'sleep 2002$'; pkill -f 'sleep 2002$'") == "1\n"


@pytest.mark.session("persistent")
def test_a_persistent_session_carries_aliases_options_and_an_activated_environment_over(box):
    box.run("python -m venv --without-pip /tmp/venv", timeout_s=60)
    box.run("alias greet='echo hello'; shopt -s nullglob; umask 027; source /tmp/venv/bin/activate", timeout_s=20)
    assert said(box, "greet; echo /no/such/*; umask; which python") == "hello\n\n0027\n/tmp/venv/bin/python\n"
    assert said(box, "deactivate; umask 022; shopt -u nullglob; which python") == "/usr/bin/python\n"


def test_a_signal_to_a_command_itself_is_its_exit_code(box):
    assert box.run("bash -c 'kill -SEGV $$'", timeout_s=20).exit_code == 128 + 11
    assert box.run("bash -c 'kill -INT $$'; exit 5", timeout_s=20).exit_code == 5
    assert said(box, "echo fine") == "fine\n"


def test_a_command_costs_a_few_milliseconds_at_most(kind):
    times = []
    for _ in range(50):
        began = time.perf_counter()
        kind.box.run("true", timeout_s=20)
        times.append(time.perf_counter() - began)
    # An exec per command costs 40 ms; here it is 0.2 (persistent) and 2 (fresh). The best of 50, for busy machines.
    assert min(times) < 0.010
