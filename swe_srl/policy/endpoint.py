"""Dialogues → completions of an OpenAI-compatible chat endpoint, with retries, and an account of what may have been paid for."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import Field

from swe_srl.dialogue import Message
from swe_srl.errors import ConfigError, EndpointError
from swe_srl.policy.base import Completion, Sampling
from swe_srl.policy.chat import Dialect, read_completion
from swe_srl.policy.gate import Gate
from swe_srl.policy.prices import Price, Tokens
from swe_srl.policy.refusals import (
    UnreadableAnswer,
    Wait,
    explain,
    is_passing,
    may_cost,
    outcome_of,
    retry_after_s,
    what_was_said,
)
from swe_srl.policy.secrets import Redactor, public_url, secrets_of_url
from swe_srl.settings import Config

if TYPE_CHECKING:
    from openai import OpenAI

MAX_WAIT_S = 300.0
"""Longest wait before a retry; an endpoint that asks for a longer one ends the run, to be called again later."""

CONNECT_TIMEOUT_S = 15.0


class EndpointConfig(Config):
    """An OpenAI-compatible chat endpoint."""

    type: Literal["endpoint"] = "endpoint"
    base_url: str = "https://api.openai.com/v1"
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. A local server needs none."""
    max_retries: int = Field(6, ge=0)
    """Further attempts after a connection error, a time-out, a 429, a 5xx or an answer that cannot be read."""
    timeout_s: float = Field(600.0, gt=0)
    """Longest silence of the endpoint within one attempt. Long: an answer that is given up may be charged all the same."""
    max_wait_s: float = Field(MAX_WAIT_S, ge=0)
    """Longest pause between two attempts."""
    max_parallel: int = Field(16, ge=1)
    """Requests under way at once, whatever the number of episodes."""
    requests_per_minute: float | None = Field(None, gt=0)
    """Requests begun in a minute, evenly spread; no limit where None."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Sent along with every request, e.g. `{"top_k" = 20}` for vLLM."""
    price: Price = Price()
    """What each answer says it cost is counted by; teaching has an account of its own."""

    def build(self) -> EndpointPolicy:
        """The policy; opens no connection yet."""
        return EndpointPolicy(self)


class CallWatch(Protocol):
    """Who keeps account of one call: each attempt begins, and ends in one of three ways."""

    def begin(self) -> None:
        """An attempt is about to be sent. May raise, and then it is not."""

    def answered(self, completion: Completion) -> None:
        """It was answered."""

    def lost(self, reason: str) -> None:
        """No answer came, though the endpoint may have worked, and charged, for it."""

    def refused(self, reason: str) -> None:
        """It was turned away, or never reached the endpoint: it costs nothing."""

    def sleep(self, seconds: float) -> None:
        """Wait before an attempt. May raise, and then there is none."""


class Unwatched:
    """Keeps no account."""

    def begin(self) -> None:
        """Nothing is noted."""

    def answered(self, completion: Completion) -> None:
        """Nothing is noted."""

    def lost(self, reason: str) -> None:
        """Nothing is noted."""

    def refused(self, reason: str) -> None:
        """Nothing is noted."""

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class EndpointPolicy:
    """A policy behind HTTP. Safe to share between threads.

    The key comes from the environment, and what the endpoint says passes through a Redactor before it goes anywhere:
    errors and answers may repeat what was sent.
    """

    def __init__(self, config: EndpointConfig) -> None:
        """Prepare; nothing is sent. Raises ConfigError for a key that cannot be one."""
        self.config = config
        self.name = config.model
        self._key = os.environ.get(config.api_key_env, "").strip()
        if not self._key.isascii() or not self._key.isprintable():
            raise ConfigError(
                f"the key in ${config.api_key_env} holds a character that no key has: was something else pasted along?"
            )
        self._redact = Redactor([self._key, *secrets_of_url(config.base_url)])
        self._gate = Gate(config.max_parallel, config.requests_per_minute)
        self._dialect = Dialect()
        self._lock = threading.Lock()
        self._client: OpenAI | None = None

    @property
    def left_out(self) -> tuple[str, ...]:
        """Sampling settings that the endpoint refused, so that its own hold."""
        return tuple(sorted(self._dialect.left_out))

    def complete(
        self,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        *,
        num_samples: int = 1,
        seeds: Sequence[int] = (),
    ) -> list[list[Completion]]:
        """`num_samples` completions for each prompt, in order; sample k is asked for with the prompt's seed + k.

        Raises EndpointError, with the URL and what the endpoint said, when it cannot be reached or refuses for good.
        """
        requests = [
            (prompt, sampling.model_copy(update={"seed": seed + k}))
            for prompt, seed in zip(prompts, seeds or [sampling.seed] * len(prompts), strict=True)
            for k in range(num_samples)
        ]
        if len(requests) == 1:
            return [[self.ask(*requests[0])]]
        with ThreadPoolExecutor(max_workers=min(self.config.max_parallel, len(requests) or 1)) as pool:
            answers = list(pool.map(lambda request: self.ask(*request), requests))
        return [answers[i : i + num_samples] for i in range(0, len(answers), num_samples)]

    def ask(self, prompt: Sequence[Message], sampling: Sampling, watch: CallWatch | None = None) -> Completion:
        """One answer to one prompt; raises as `complete` does. `watch` hears of every attempt."""
        import openai
        import tenacity

        watch = watch or Unwatched()
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: is_passing(error, self.config.max_wait_s)),
            wait=Wait(self.config.max_wait_s),
            stop=tenacity.stop_after_attempt(1 + self.config.max_retries),
            sleep=watch.sleep,
            reraise=True,
        )
        try:
            while True:
                answer = retrying(self._attempt, prompt, sampling, watch)
                if answer is not None:
                    return answer
        except (openai.OpenAIError, UnreadableAnswer) as error:
            # `from None`: the cause repeats what the endpoint said, and a traceback would show it as it came
            raise EndpointError(self._explain(error)) from None

    def close(self) -> None:
        """Close the connections; closing twice is harmless."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _attempt(self, prompt: Sequence[Message], sampling: Sampling, watch: CallWatch) -> Completion | None:
        """Send one request; None where the endpoint wants to be asked in another way, which is known from now on."""
        import openai

        with self._gate.passage(watch.sleep):
            watch.begin()
            dialect = self._dialect
            try:
                answer = self._request(prompt, sampling, dialect)
            except (openai.OpenAIError, UnreadableAnswer) as error:
                if reason := outcome_of(error):
                    answer = Completion(text="", finish_reason=reason)
                else:
                    note = watch.lost if may_cost(error) else watch.refused
                    note(self._redact(what_was_said(error)))
                    if self._learns(dialect, error, sampling):
                        return None
                    if is_passing(error, self.config.max_wait_s):
                        self._gate.pause(retry_after_s(error) or 0.0)
                    raise
            watch.answered(answer)
            return answer

    def _learns(self, asked: Dialect, error: Exception, sampling: Sampling) -> bool:
        """Whether the refusal teaches how to ask; then the next request is asked so, in every thread."""
        other = asked.after(error, sampling)
        if other is None:
            return False
        with self._lock:
            if self._dialect == asked:  # else another thread has learned something, which is tried first
                self._dialect = other
        return True

    def _request(self, prompt: Sequence[Message], sampling: Sampling, dialect: Dialect) -> Completion:
        client: Any = self._connected()
        try:
            response = client.chat.completions.create(
                model=self.config.model,
                messages=list(prompt),
                extra_body=self.config.extra_body or None,
                **dialect.fields(sampling),
            )
        except ValueError as error:  # JSON that breaks off
            raise UnreadableAnswer(self._redact(str(error))) from error
        return self._priced(read_completion(response, prompt, sampling, self._redact))

    def _priced(self, answer: Completion) -> Completion:
        used = Tokens(
            answer.num_prompt_tokens, answer.num_tokens, answer.num_cached_tokens, answer.num_cache_write_tokens
        )
        return answer.model_copy(update={"cost_usd": self.config.price.rates(used).usd(used)})

    def _connected(self) -> OpenAI:
        import openai

        with self._lock:
            if self._client is None:
                timeout_s = self.config.timeout_s
                self._client = openai.OpenAI(
                    base_url=self.config.base_url,
                    api_key=self._key or "none",
                    timeout=openai.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s)),
                    max_retries=0,  # tenacity does it, so that every attempt is seen
                    # A kept connection that the server closes just as it is used again (vLLM's after 5 s) looks like a
                    # call that was lost, and would be charged as one.
                    default_headers={"Connection": "close"},
                )
            return self._client

    def _explain(self, error: Exception) -> str:
        config = self.config
        return self._redact(
            explain(
                error,
                url=public_url(config.base_url),
                model=config.model,
                key_env=config.api_key_env,
                timeout_s=config.timeout_s,
                max_attempts=1 + config.max_retries,
            )
        )
