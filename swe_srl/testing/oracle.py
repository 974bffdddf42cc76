"""A task repo → the teacher `oracle` behind real HTTP: it knows the gold patches and works like a careful engineer.

It speaks OpenAI's chat completions, so that everything between a teacher and its trajectories is the real thing. It keeps
no state: it finds the task by the problem statement in the first user message, and goes through its work again up to
the present turn with the observations of the dialogue, which must be shown in full (`window` = "all").
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from swe_srl.benchmarks.grading_spec import load_specs
from swe_srl.benchmarks.load import load_tasks
from swe_srl.dialogue import Message, format_completion
from swe_srl.errors import ApparatusError
from swe_srl.schema import Command
from swe_srl.testing.edits import changes_of
from swe_srl.testing.engineer import Action, Problem, work

MODEL = "oracle"


class UnknownProblemError(LookupError):
    """The dialogue is about no task of this oracle."""


class Oracle:
    """Knows the gold patches of one task repo."""

    def __init__(self, tasks: str | Path, seed: int = 0) -> None:
        """Read the tasks and their answers. Raises UserError when there are none."""
        specs = load_specs(tasks)
        self._seed = seed
        self._problems: dict[str, list[Problem]] = defaultdict(list)
        for task in load_tasks(tasks):
            if task.task_id in specs and (changes := changes_of(specs[task.task_id].gold_patch)):
                problem = Problem(task.task_id, task.problem_statement, task.workdir, tuple(changes))
                self._problems[task.problem_statement.strip()].append(problem)

    def answer(self, messages: Sequence[Message], seed: int) -> str:
        """The next completion. `seed` is the request's: that of the trajectory plus the index of the turn.

        Raises UnknownProblemError.
        """
        statement = next((message["content"] for message in messages if message["role"] == "user"), "")
        problems = self._candidates(statement)
        actions = sum(message["role"] == "assistant" for message in messages)
        observations = [message["content"] for message in messages if message["role"] == "user"][1:]
        digest = hashlib.sha256(f"{self._seed}:{seed - actions}:{problems[0].statement}".encode()).digest()
        return self._go(problems, random.Random(digest), observations)

    def _candidates(self, statement: str) -> list[Problem]:
        known = self._problems.get(statement.strip())
        if known:
            return known
        # A statement may stand among other words, or have lost its middle to a limit on its length.
        found = [
            problems for full, problems in self._problems.items() if full in statement or full[:200] == statement[:200]
        ]
        if found:
            return [problem for problems in found for problem in problems]
        raise UnknownProblemError(f"the first user message states no problem that the oracle knows: {statement[:80]!r}")

    @staticmethod
    def _go(problems: list[Problem], rng: random.Random, observations: list[str]) -> str:
        doing = work(problems, rng)
        action: Action | None = next(doing)
        for seen in observations:
            try:
                action = doing.send(seen)
            except StopIteration:
                action = Action("I have submitted already.", Command(tool="submit"))
                break
        assert action is not None
        return format_completion(action.thought, action.command)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    oracle: Oracle


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: two would wait 40 ms for each other
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        if self.path.rstrip("/") == "/v1/models":
            self._send(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "owned_by": "swe-srl"}]})
        else:
            self._refuse(404, f"no such path {self.path}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.rstrip("/") != "/v1/chat/completions":
            self._refuse(404, f"no such path {self.path}")
            return
        try:
            request = json.loads(body)
            text = self.server.oracle.answer(request["messages"], int(request.get("seed") or 0))
        except UnknownProblemError as error:
            self._refuse(400, str(error))
        except (ValueError, KeyError, TypeError) as error:
            self._refuse(400, f"not a chat completion request: {error!r}")
        else:
            self._send(200, _response(request, text))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
        """Say nothing."""

    def _refuse(self, status: int, message: str) -> None:
        self._send(status, {"error": {"message": message, "type": "invalid_request_error", "code": None}})

    def _send(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _response(request: dict[str, Any], text: str) -> dict[str, Any]:
    prompt_tokens = sum(len(str(message.get("content", ""))) for message in request["messages"]) // 4
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": len(text) // 4}
    return {
        "id": f"chatcmpl-{hashlib.sha256(text.encode()).hexdigest()[:16]}",
        "object": "chat.completion",
        "created": 0,
        "model": str(request.get("model", MODEL)),
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
        "usage": usage | {"total_tokens": sum(usage.values())},
    }


@contextmanager
def serve_oracle(tasks: str | Path, seed: int = 0, port: int = 0) -> Iterator[str]:
    """Serve the oracle of a task repo on this machine; yields the base URL. `port` 0 is any free one.

    Raises UserError for tasks that cannot be read, ApparatusError for a port that is taken.
    """
    oracle = Oracle(tasks, seed)
    try:
        server = _Server(("127.0.0.1", port), _Handler)
    except OSError as error:
        raise ApparatusError(f"cannot listen on port {port}: {error.strerror}: choose another --port") from error
    server.oracle = oracle
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> None:
    """`python -m swe_srl.testing.oracle --tasks DIR --port N`: serve until interrupted."""
    parser = argparse.ArgumentParser(
        description="A teacher that knows the gold patches, behind an OpenAI-compatible endpoint."
    )
    parser.add_argument("--tasks", required=True, help="task repo, or rows")
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    with serve_oracle(chosen.tasks, chosen.seed, chosen.port) as url:
        sys.stderr.write(f"oracle at {url}\n")
        threading.Event().wait()


if __name__ == "__main__":
    main()
