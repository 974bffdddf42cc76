"""The endpoint policy against a real HTTP server on this machine."""

import json
import socket
import threading
import time
import traceback
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from swe_srl.errors import ConfigError, EndpointError
from swe_srl.policy.base import Sampling
from swe_srl.policy.endpoint import EndpointConfig, Unwatched
from swe_srl.policy.gate import Gate
from swe_srl.policy.prices import Price
from swe_srl.policy.refusals import asked_wait_s

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


class Heard(Unwatched):
    """What became of each attempt, and how long was waited."""

    def __init__(self):
        self.said, self.waits = [], []

    def begin(self):
        self.said.append("begin")

    def answered(self, completion):
        self.said.append("answered")

    def lost(self, reason):
        self.said.append("lost")

    def refused(self, reason):
        self.said.append("refused")

    def sleep(self, seconds):
        self.waits.append(seconds)
        super().sleep(min(seconds, 0.5))


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
        assert 0.4 <= time.monotonic() - begun < 4.5
    assert len(requests) == 2


def test_a_server_error_is_tried_again_and_is_heard_of_as_a_lost_call():
    heard = Heard()
    with server(refuses(503), refuses(500), says("ok")) as (url, requests), policy(url) as asked:
        assert asked.ask(PROMPT, Sampling(max_new_tokens=50), heard).text == "ok"
    assert len(requests) == 3
    assert heard.said == ["begin", "lost", "begin", "lost", "begin", "answered"]


def test_an_answer_says_what_it_cost_where_the_price_is_known():
    with server(says("hi")) as (url, _):
        known, unknown = (
            EndpointConfig(base_url=url, model="m", price=price).build()
            for price in (Price(input=2.0, output=10.0), Price())
        )
        costs = [policy.complete([PROMPT], Sampling())[0][0].cost_usd for policy in (known, unknown)]
    assert costs == [pytest.approx((7 * 2.0 + 3 * 10.0) / 1e6), 0.0]


def test_a_limit_on_the_rate_costs_nothing():
    heard = Heard()
    with server(refuses(429), says("ok")) as (url, _), policy(url) as asked:
        asked.ask(PROMPT, Sampling(), heard)
    assert heard.said == ["begin", "refused", "begin", "answered"]


def test_an_endpoint_that_asks_for_more_time_than_is_waited_is_left_at_once():
    refused = pytest.raises(EndpointError, match="come back in 3600 s")
    answer = refuses(429, headers={"Retry-After": "3600"})
    with server(answer) as (url, requests), policy(url, max_wait_s=60.0) as asked, refused:
        asked.complete([PROMPT], Sampling())
    assert len(requests) == 1


def test_the_time_an_endpoint_asks_for_is_read_as_seconds_and_as_a_date():
    assert asked_wait_s({"retry-after": "7"}) == 7
    assert asked_wait_s({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert 27 <= asked_wait_s({"retry-after": formatdate(time.time() + 30, usegmt=True)}) <= 30
    assert asked_wait_s({"retry-after": formatdate(time.time() - 30, usegmt=True)}) == 0


@pytest.mark.parametrize("headers", [{}, {"retry-after": "soon"}, {"retry-after": "-1"}])
def test_a_wish_that_cannot_be_read_is_none(headers):
    assert asked_wait_s(headers) is None


def test_a_retry_waits_for_a_date_that_the_endpoint_gives():
    heard = Heard()
    later = formatdate(time.time() + 3, usegmt=True)  # whole seconds
    with (
        server(refuses(503, headers={"Retry-After": later}), says("ok")) as (url, _),
        policy(url, max_wait_s=9) as asked,
    ):
        assert asked.ask(PROMPT, Sampling(), heard).text == "ok"
    assert 1.0 < heard.waits[0] <= 3.0


def test_no_more_requests_are_under_way_than_allowed_however_many_ask():
    busy, most, lock = 0, 0, threading.Lock()

    def slow(body):
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.05)
        with lock:
            busy -= 1
        return says("ok")

    with server(slow) as (url, requests), policy(url, max_parallel=2) as asked:
        threads = [threading.Thread(target=asked.ask, args=(PROMPT, Sampling())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (most, len(requests)) == (2, 8)


def test_requests_are_spread_over_the_minute():
    gate, begun = Gate(4, per_minute=600), time.monotonic()
    for _ in range(4):
        with gate.passage(time.sleep):
            pass
    assert time.monotonic() - begun >= 0.3


def test_a_pause_that_one_call_was_asked_for_holds_for_all():
    gate, waits = Gate(4), []
    gate.pause(30.0)

    def give_up(seconds):
        waits.append(seconds)
        raise InterruptedError

    with pytest.raises(InterruptedError), gate.passage(give_up):
        pass
    assert 29 < waits[0] < 32
    gate = Gate(4)
    with gate.passage(waits.append):
        pass
    assert len(waits) == 1


@contextmanager
def raw_server(*answers):
    """As `server`, but sends bytes as they are and closes the connection."""
    waiting, received = list(answers), []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.wfile.write(waiting.pop(0) if len(waiting) > 1 else waiting[0])
            self.close_connection = True

        def log_message(self, *args):
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}/v1", received
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def http(body, length=None):
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


GOOD = http(json.dumps(says("ok")[2]).encode())


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        http(json.dumps(says("ok")[2]).encode()[:40]),
        http(json.dumps(says("ok")[2]).encode()[:40], length=400),
        http(b"{}"),
        http(b'{"choices": []}'),
        http(b'{"error": {"message": "overloaded"}}'),
        http(b"<html>").replace(b"application/json", b"text/html"),
    ],
    ids=["nothing", "cut JSON", "cut body", "empty", "no choice", "an error with status 200", "a page"],
)
def test_an_answer_that_cannot_be_read_is_lost_and_asked_again(broken):
    heard = Heard()
    with raw_server(broken, GOOD) as (url, received), policy(url) as asked:
        assert asked.ask(PROMPT, Sampling(), heard).text == "ok"
    assert heard.said == ["begin", "lost", "begin", "answered"]
    assert len(received) == 2


def test_an_endpoint_that_only_sends_pages_is_named():
    with raw_server(http(b"<html>")) as (url, _), policy(url, max_retries=1) as asked:
        with pytest.raises(EndpointError, match=f"{url} answered 2 times with what is no chat completion"):
            asked.complete([PROMPT], Sampling())


def openai_refuses(text, param):
    return (
        400,
        {},
        {"error": {"message": text, "type": "invalid_request_error", "param": param, "code": "unsupported_value"}},
    )


def test_an_endpoint_that_wants_other_fields_is_asked_with_those_from_then_on():
    answers = [
        (400, {}, {"error": {"message": "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                             "param": "max_tokens", "code": "unsupported_parameter"}}),
        openai_refuses("Unsupported value: 'temperature' does not support 0.5. Only the default (1) value is supported.", "temperature"),
        openai_refuses("Unsupported parameter: 'stop' is not supported with this model.", "stop"),
        says("<function=submit>\n</function> more"),
    ]  # fmt: skip
    heard = Heard()
    with server(*answers) as (url, requests), policy(url) as asked:
        assert (
            asked.ask(PROMPT, Sampling(temperature=0.5, max_new_tokens=9), heard).text
            == "<function=submit>\n</function>"
        )
        asked.ask(PROMPT, Sampling(temperature=0.5, max_new_tokens=9))
        assert asked.left_out == ("stop", "temperature")
    assert [sorted(set(request) - {"messages", "model", "seed"}) for request in requests] == [
        ["max_tokens", "stop", "temperature"],
        ["max_completion_tokens", "stop", "temperature"],
        ["max_completion_tokens", "stop"],
        ["max_completion_tokens"],
        ["max_completion_tokens"],
    ]
    assert heard.said == ["begin", "refused"] * 3 + ["begin", "answered"]


def test_claudes_words_are_understood():
    anthropic = {"error": {"type": "invalid_request_error", "message": "`temperature` is deprecated for this model."}}
    with server((400, {}, anthropic), says("ok")) as (url, requests), policy(url) as asked:
        asked.complete([PROMPT], Sampling(temperature=0.7))
    assert ["temperature" in request for request in requests] == [True, False]


def test_of_temperature_and_top_p_the_temperature_stays_where_only_one_is_taken():
    both = refuses(400, "`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
    with server(both, says("ok")) as (url, requests), policy(url) as asked:
        asked.complete([PROMPT], Sampling(temperature=0.7, top_p=0.9))
    assert [("temperature" in request, "top_p" in request) for request in requests] == [(True, True), (True, False)]


def counted(**usage):
    status, headers, body = says("ok")
    return status, headers, body | {"usage": {"prompt_tokens": 100, "completion_tokens": 3, **usage}}


@pytest.mark.parametrize(
    ("usage", "cached", "written"),
    [
        ({"prompt_tokens_details": {"cached_tokens": 80, "cache_write_tokens": 15}}, 80, 15),
        ({"prompt_tokens_details": {}}, 0, 0),  # Anthropic's compatible endpoint
        ({"prompt_tokens_details": None}, 0, 0),  # vLLM without --enable-prompt-tokens-details
        ({"prompt_cache_hit_tokens": 64}, 64, 0),  # DeepSeek
    ],
)
def test_tokens_of_the_cache_are_told_apart(usage, cached, written):
    with server(counted(**usage)) as (url, _), policy(url) as asked:
        [[answer]] = asked.complete([PROMPT], Sampling())
    assert (answer.num_prompt_tokens, answer.num_cached_tokens, answer.num_cache_write_tokens) == (100, cached, written)
    assert not answer.is_estimated


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_thinking_that_the_server_took_out_stands_before_the_action(name):
    status, headers, body = says("<function=submit>\n</function>")
    body["choices"][0]["message"][name] = "done"
    with server((status, headers, body)) as (url, _), policy(url) as asked:
        assert (
            asked.complete([PROMPT], Sampling())[0][0].text == "<think>\ndone\n</think>\n<function=submit>\n</function>"
        )


def test_what_an_endpoint_repeats_of_the_key_goes_nowhere(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", " sk-very-secret-é\n".replace("é", "e/+"))
    key = "sk-very-secret-e/+"
    with server(says(f"Bearer {key}")) as (url, _), policy(url) as asked:
        assert asked.complete([PROMPT], Sampling())[0][0].text == "Bearer [redacted]"
    for answer in (refuses(401, f"key {key} is wrong"), refuses(500, f"Bearer {key}"), (200, {}, {"error": key})):
        with server(answer) as (url, _), policy(url, max_retries=0) as asked:
            with pytest.raises(EndpointError) as caught:
                asked.complete([PROMPT], Sampling())
        told = "".join(traceback.format_exception(caught.value))
        assert "redacted" in told
        assert "very-secret" not in told


def test_a_password_in_the_url_is_in_no_message():
    with server(refuses(400, "no")) as (url, _):
        secret = url.replace("http://", "http://me:hunter22@")
        with policy(secret) as asked, pytest.raises(EndpointError) as caught:
            asked.complete([PROMPT], Sampling())
    assert "hunter22" not in str(caught.value)
    assert url in str(caught.value)


def test_a_key_with_something_pasted_along_is_the_users_mistake(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-one\nsk-two")
    with pytest.raises(ConfigError, match=r"the key in \$OPENAI_API_KEY") as caught:
        EndpointConfig(model="m").build()
    assert "sk-one" not in str(caught.value)


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


@pytest.mark.parametrize(
    ("code", "message", "reason"),
    [
        ("context_length_exceeded", "maximum context length is 10", "prompt_too_long"),
        (None, "prompt is too long: 210000 tokens > 200000 maximum", "prompt_too_long"),
        (None, "The decoder prompt (length 5000) is longer than the maximum model length of 4096", "prompt_too_long"),
        ("content_filter", "it was filtered", "content_filter"),
    ],
)
def test_a_dialogue_that_will_never_be_answered_is_an_outcome_and_costs_nothing(code, message, reason):
    with server(refuses(400, message, code=code)) as (url, requests), policy(url) as asked:
        [[answer]] = asked.complete([PROMPT], Sampling())
    assert (answer.text, answer.finish_reason, answer.num_prompt_tokens) == ("", reason, 0)
    assert len(requests) == 1


def test_an_endpoint_that_cannot_be_reached_is_named():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    with policy(url, max_retries=1) as asked, pytest.raises(EndpointError, match=f"cannot reach {url}"):
        asked.complete([PROMPT], Sampling())


def test_tokens_are_estimated_where_the_endpoint_does_not_tell():
    with server(says("one two three", usage=False)) as (url, _), policy(url) as asked:
        [[answer]] = asked.complete([PROMPT], Sampling())
    assert answer.is_estimated
    assert answer.num_prompt_tokens > 0
    assert answer.num_tokens > 0
