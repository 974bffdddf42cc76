"""The endpoint policy against a real HTTP server on this machine."""

import json
import socket
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from swe_srl.errors import EndpointError
from swe_srl.policy.base import Sampling
from swe_srl.policy.endpoint import EndpointConfig

PROMPT = [{"role": "user", "content": "hello"}]


def says(text, finish="stop", usage=True):
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return (
        200,
        {},
        body | ({"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}} if usage else {}),
    )


def refuses(status, message="no", headers=None, code=None):
    return status, headers or {}, {"error": {"message": message, "type": "t", "code": code}}


@contextmanager
def server(*answers):
    """Gives `answers` one after the other, the last one for ever; yields (base URL, requests received)."""
    requests, waiting, lock = [], list(answers), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                requests.append(body)
                answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            status, headers, value = answer(body) if callable(answer) else answer
            data = json.dumps(value).encode()
            self.send_response(status)
            for name, text in {"Content-Type": "application/json", "Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/v1", requests
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


@contextmanager
def policy(url, **settings):
    made = EndpointConfig(model="m", base_url=url, **{"max_wait_s": 0.05, **settings}).build()
    try:
        yield made
    finally:
        made.close()


def test_it_sends_what_was_chosen_and_returns_text_and_tokens():
    with server(says("<think>a</think>\n<function=submit>\n")) as (url, requests), policy(url) as asked:
        [[answer]] = asked.complete([PROMPT], Sampling(temperature=0.5, max_new_tokens=9, seed=4))
    assert answer.text == "<think>a</think>\n<function=submit>\n</function>"
    assert (answer.num_prompt_tokens, answer.num_tokens, answer.finish_reason) == (7, 3, "stop")
    [request] = requests
    assert {
        "model": "m",
        "temperature": 0.5,
        "max_tokens": 9,
        "seed": 4,
        "stop": ["</function>"],
    }.items() <= request.items()


def test_what_follows_the_stop_text_is_cut():
    with server(says("<function=a></function> and more")) as (url, _), policy(url) as asked:
        assert asked.complete([PROMPT], Sampling())[0][0].text == "<function=a></function>"


def test_a_completion_that_was_cut_short_is_not_closed_for_the_model():
    with server(says("<function=bash>", finish="length")) as (url, _), policy(url) as asked:
        [[answer]] = asked.complete([PROMPT], Sampling())
    assert (answer.text, answer.finish_reason) == ("<function=bash>", "length")


def test_prompts_and_samples_come_back_in_their_order():
    def echo(body):
        return says(f"{body['messages'][0]['content']}{body['seed']}")

    with server(echo) as (url, _), policy(url) as asked:
        prompts = [[{"role": "user", "content": name}] for name in "ab"]
        answers = asked.complete(prompts, Sampling(seed=5), num_samples=2)
    assert [[answer.text for answer in row] for row in answers] == [["a5", "a6"], ["b5", "b6"]]


def test_a_429_is_tried_again_after_the_time_that_the_server_asks_for():
    with (
        server(refuses(429, headers={"Retry-After": "0.4"}), says("ok")) as (url, requests),
        policy(url, max_wait_s=5.0) as asked,
    ):
        begun = time.monotonic()
        assert asked.complete([PROMPT], Sampling())[0][0].text == "ok"
        assert 0.4 <= time.monotonic() - begun < 3.0
    assert len(requests) == 2


def test_a_server_error_is_tried_again_and_is_heard_of_as_a_lost_call():
    lost = []
    with server(refuses(503), refuses(500), says("ok")) as (url, requests), policy(url) as asked:
        assert asked.ask(PROMPT, Sampling(max_new_tokens=50), lost.append).text == "ok"
    assert len(requests) == 3
    assert [call.num_completion_tokens for call in lost] == [50, 50]


def test_a_limit_on_the_rate_costs_nothing():
    lost = []
    with server(refuses(429), says("ok")) as (url, _), policy(url) as asked:
        asked.ask(PROMPT, Sampling(), lost.append)
    assert lost == []


def test_retries_end():
    broken = pytest.raises(EndpointError, match="still broken")
    with server(refuses(500, "still broken")) as (url, requests), policy(url, max_retries=2) as asked, broken:
        asked.complete([PROMPT], Sampling())
    assert len(requests) == 3


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (refuses(401, "bad key"), "refuses the key in \\$OPENAI_API_KEY: bad key"),
        (refuses(404, "unknown"), "has no model 'm'"),
        (refuses(400, "odd parameter"), "odd parameter"),
        (refuses(429, "pay first", code="insufficient_quota"), "pay first"),
    ],
)
def test_a_refusal_for_good_is_one_sentence_and_not_tried_again(answer, words):
    refused = pytest.raises(EndpointError, match=words)
    with server(answer) as (url, requests), policy(url) as asked, refused as caught:
        asked.complete([PROMPT], Sampling())
    assert len(requests) == 1
    assert url in str(caught.value)


def test_a_prompt_that_is_too_long_is_an_outcome():
    with (
        server(refuses(400, "maximum context length is 10", code="context_length_exceeded")) as (url, _),
        policy(url) as asked,
    ):
        [[answer]] = asked.complete([PROMPT], Sampling())
    assert (answer.text, answer.finish_reason) == ("", "prompt_too_long")


def test_an_endpoint_that_cannot_be_reached_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with policy(url, max_retries=1) as asked, pytest.raises(EndpointError, match=f"cannot reach {url}"):
        asked.complete([PROMPT], Sampling())


def test_tokens_are_estimated_where_the_endpoint_does_not_tell():
    with server(says("one two three", usage=False)) as (url, _), policy(url) as asked:
        [[answer]] = asked.complete([PROMPT], Sampling())
    assert answer.num_prompt_tokens > 0
    assert answer.num_tokens > 0
