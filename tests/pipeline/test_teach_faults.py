"""Teaching against an endpoint that fails in every way there is and keeps a ledger of its own, killed -9 twenty times.

The endpoint writes down what each request really used before it says anything. Whoever believes its ledger must find that
no answer that was on disk was asked for again, and that no cap was exceeded by what was really used.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from swe_srl.policy.prices import Price, Tokens
from swe_srl.schema import Usage
from swe_srl.store import Run
from swe_srl.teaching.journal import CALLS, KILLED, Call
from swe_srl.testing import completion

pytestmark = pytest.mark.timeout(280)

SCALE = float(os.environ.get("SWE_SRL_FAULTS_SCALE", "0.02"))
"""Of the clock: 1 is real time, in which a late answer takes 90 seconds."""
LATE_S, TIMEOUT_S = 90 * SCALE, 150 * SCALE

NUM_KILLS = 20
NUM_TASKS = 45
PRICE = Price(input=1.0, cached_input=0.1, output=5.0)  # as in teaching_process.py
WORK = [*["ls"] * 4, "fix"]

ANSWERS = ("good", "late", "prose")
FAULTS = {"good": 60, "late": 5, "prose": 7, "drop": 7, "hang": 3, "limit": 7, "error": 7, "cut": 7}
"""What becomes of a request, and how often."""


class Entry(NamedTuple):
    """A request as the endpoint saw it."""

    task: str
    turn: int
    kind: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def usage(self) -> Usage:
        """What it really used."""
        return PRICE.cost(Tokens(self.prompt_tokens, self.completion_tokens))


class Endpoint(ThreadingHTTPServer):
    """Answers, or fails, by a seed; what it writes into its ledger comes first."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, ledger: Path, kinds: dict[str, int], seed: int, first: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.kinds = kinds
        self.first = first
        self.seed = seed
        self.num_requests = 0
        self.lock = threading.Lock()
        self.file = ledger.open("ab", buffering=0)

    def kind_of_next(self) -> str:
        """The fate of a request."""
        with self.lock:
            self.num_requests += 1
            if self.first and self.num_requests == 1:
                return self.first
            rng = random.Random(f"{self.seed}:{self.num_requests}")
        return rng.choices(list(self.kinds), list(self.kinds.values()))[0]

    def note(self, entry: Entry) -> None:
        """Write down a request."""
        with self.lock:
            self.file.write((json.dumps(entry) + "\n").encode())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed is gone in the middle of an answer."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind = self.server.kind_of_next()
        messages = body["messages"]
        text = "I would rather think about it." if kind == "prose" else action(messages)
        used_in = sum(len(item["content"].encode()) for item in messages) // 3
        # What breaks off may have been written to its end, up to the limit, before it broke.
        used_out = len(text) // 4 if kind in ANSWERS else body["max_tokens"]
        if kind == "limit":
            used_in = used_out = 0
        name = messages[1]["content"].removeprefix("mend ")
        self.server.note(Entry(name, body["seed"], kind, used_in, used_out))
        self.answer(kind, text, used_in, used_out)

    def answer(self, kind: str, text: str, used_in: int, used_out: int) -> None:
        """Do what the kind says."""
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        usage = {"prompt_tokens": used_in, "completion_tokens": used_out, "total_tokens": used_in + used_out}
        whole = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [choice],
            "usage": usage,
        }
        data = json.dumps(whole).encode()
        if kind == "late":
            time.sleep(LATE_S)
        elif kind == "hang":
            time.sleep(1.2 * TIMEOUT_S)
        if kind in ("drop", "hang"):
            self.close_connection = True
        elif kind == "limit":
            self.send(429, b'{"error": {"message": "too many requests"}}', {"Retry-After": "0.1"})
        elif kind == "error":
            self.send(500, b'{"error": {"message": "out of order"}}')
        elif kind == "cut":
            self.send(200, data[: len(data) // 2])
        else:
            self.send(200, data)

    def send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        """A whole response."""
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def action(messages: list[dict[str, str]]) -> str:
    """The next step of the work, by how much of it has been done."""
    done = sum(item["role"] == "assistant" and "<function=" in item["content"] for item in messages)
    return completion(WORK[done]) if done < len(WORK) else completion(tool="submit")


@contextmanager
def serve(ledger: Path, kinds: dict[str, int], seed: int = 0, first: str = "") -> Iterator[str]:
    """The endpoint's base URL. `first` is the fate of the first request; the seed decides on the others."""
    endpoint = Endpoint(ledger, kinds, seed, first)
    thread = threading.Thread(target=endpoint.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{endpoint.server_port}/v1"
    finally:
        endpoint.shutdown()
        endpoint.server_close()
        thread.join()
        endpoint.file.close()


class Teaching:
    """Processes that teach into one run directory, one after the other."""

    def __init__(self, url: str, path: Path, num_tasks: int) -> None:
        self.out = path / "run"
        self.ledger_file = path / "ledger.jsonl"
        self.num_tasks = num_tasks
        command = [sys.executable, str(Path(__file__).with_name("teaching_process.py")), url, str(self.out)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, max_usd: float) -> int:
        """Begin a process under a cap; its id."""
        endpoint = {"timeout_s": TIMEOUT_S, "max_wait_s": 0.2, "max_retries": 12}
        self.process.stdin.write(json.dumps({"max_usd": max_usd, "tasks": self.num_tasks, "endpoint": endpoint}) + "\n")
        self.process.stdin.flush()
        return int(self.said("pid"))

    def said(self, word: str) -> str:
        """What follows `word` on the next line."""
        line = self.process.stdout.readline()
        assert line.startswith(word), line
        return line.split()[1]

    def run(self, max_usd: float) -> dict[str, Any]:
        """Let a process come to its own end; its summary."""
        self.start(max_usd)
        assert self.said("exit") == "0"
        return json.loads((self.out / "summary.json").read_text())

    def ledger(self) -> list[Entry]:
        """What the endpoint wrote down."""
        if not self.ledger_file.is_file():
            return []
        return [Entry(*json.loads(line)) for line in self.ledger_file.read_text().splitlines()]

    def calls(self) -> list[Call]:
        """What the journal holds."""
        return Run(self.out).read(CALLS, Call)

    def close(self) -> None:
        """End the process that forks."""
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def used(entries: list[Entry]) -> float:
    """USD that were really used."""
    return sum(entry.usage.cost_usd for entry in entries)


def charged(calls: list[Call]) -> float:
    """USD that a next start would begin with: what ended, and the worst case of what did not."""
    ended = {(call.trajectory_id, call.turn, call.attempt): call for call in calls if call.status != "begun"}
    begun = {(call.trajectory_id, call.turn, call.attempt): call for call in calls if call.status == "begun"}
    return sum(call.usage.cost_usd for call in (begun | ended).values())


def key(call: Call) -> tuple[str, int]:
    """As the ledger names it: the seed of a first sample is the turn."""
    return call.task_id, call.turn


def kill_at_a_random_moment(teaching: Teaching, rng: random.Random) -> None:
    """Start, let the endpoint see a few requests, kill -9."""
    before, wanted = len(teaching.ledger()), rng.randint(1, 9)
    pid = teaching.start(max_usd=1000.0)
    deadline = time.monotonic() + 60
    while len(teaching.ledger()) < before + wanted and time.monotonic() < deadline:
        time.sleep(0.003)
    time.sleep(rng.uniform(0, 0.06))
    os.kill(pid, signal.SIGKILL)
    assert teaching.said("exit") == str(-signal.SIGKILL), "it ended before it could be killed: give it more tasks"


def test_twenty_kills_and_every_fault_and_nothing_is_asked_twice_or_paid_beyond_the_cap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = int(os.environ.get("SWE_SRL_FAULTS_SEED", random.randrange(10**6)))
    sys.stdout.write(f"SWE_SRL_FAULTS_SEED={seed}\n")  # a failure shows it
    rng, began = random.Random(seed), time.monotonic()
    with serve(tmp_path / "ledger.jsonl", FAULTS, seed) as url:
        teaching = Teaching(url, tmp_path, NUM_TASKS)
        try:
            on_disk: list[tuple[int, set[tuple[str, int]]]] = []
            for _ in range(NUM_KILLS):
                kill_at_a_random_moment(teaching, rng)
                calls = teaching.calls()
                on_disk.append((len(teaching.ledger()), {key(call) for call in calls if call.status == "answered"}))
                assert used(teaching.ledger()) <= charged(calls)

            cap = charged(teaching.calls()) + 0.004
            summary = teaching.run(cap)
            assert summary["exit_status"] == "budget"
            assert used(teaching.ledger()) <= summary["usage"]["cost_usd"] <= cap

            summary = teaching.run(1000.0)
        finally:
            teaching.close()
        ledger, calls = teaching.ledger(), teaching.calls()

    assert (summary["exit_status"], summary["num_accepted"] + summary["num_rejected"]) == ("finished", NUM_TASKS)
    assert summary["num_accepted"] > 0.8 * NUM_TASKS
    assert used(ledger) <= summary["usage"]["cost_usd"] == pytest.approx(charged(calls))

    again = [entry for length, answered in on_disk for entry in ledger[length:] if (entry.task, entry.turn) in answered]
    assert again == []
    sent = Counter((entry.task, entry.turn) for entry in ledger if entry.kind in ANSWERS)
    lost = Counter(key(call) for call in calls if call.status == "lost")
    kept = Counter(key(call) for call in calls if call.status == "answered")
    assert set(kept.values()) == {1}
    assert all(sent[name] <= 1 + lost[name] for name in sent)
    assert set(FAULTS) <= {entry.kind for entry in ledger}
    late = {(entry.task, entry.turn) for entry in ledger if entry.kind == "late"}

    killed = sum(call.note == KILLED for call in calls)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{NUM_KILLS} kills, {len(ledger)} requests ({', '.join(f'{n} {kind}' for kind, n in Counter(e.kind for e in ledger).items())}), "
            f"{len(kept)} answers kept, {sum(sent.values()) - len(kept)} sent and not kept, {len(again)} of those on disk asked again; "
            f"{killed} open at a kill; {len(late & set(kept))} of {len(late)} late ones kept; used {used(ledger):.4f} USD, charged {charged(calls):.4f}; "
            f"{summary['num_accepted']} accepted, {summary['num_rejected']} rejected; {time.monotonic() - began:.0f} s\n"
        )


def test_an_answer_that_takes_ninety_seconds_is_received_and_paid_for_once(tmp_path: Path) -> None:
    with serve(tmp_path / "ledger.jsonl", {"good": 1}, first="late") as url:
        teaching = Teaching(url, tmp_path, num_tasks=1)
        try:
            began = time.monotonic()
            summary = teaching.run(1000.0)
        finally:
            teaching.close()
    assert time.monotonic() - began >= LATE_S
    assert summary["calls"] == {"answered": len(WORK) + 1}
    assert [entry.kind for entry in teaching.ledger()] == ["late", *["good"] * len(WORK)]
    assert summary["usage"]["cost_usd"] == pytest.approx(used(teaching.ledger()))
