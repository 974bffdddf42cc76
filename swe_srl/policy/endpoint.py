"""Dialogues → completions of an OpenAI-compatible chat endpoint, with retries, and an account of what was paid for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from pydantic import Field

from swe_srl.dialogue import END_OF_ACTION, Message
from swe_srl.errors import EndpointError
from swe_srl.policy.base import Completion, Sampling
from swe_srl.settings import Config

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletion, ChatCompletionMessageParam
    from tenacity import RetryCallState

CHARS_PER_TOKEN = 3.0
"""To estimate tokens where an endpoint does not tell; low, so that the estimate is rather too high."""

MAX_WAIT_S = 120.0
"""Longest pause before a retry, also where the endpoint asks for a longer one."""


class EndpointConfig(Config):
    """An OpenAI-compatible chat endpoint."""

    type: Literal["endpoint"] = "endpoint"
    base_url: str = "https://api.openai.com/v1"
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. A local server needs none."""
    max_retries: int = Field(6, ge=0)
    """Further attempts after a connection error, a time-out, a 429 or a 5xx."""
    timeout_s: float = Field(300.0, gt=0)
    """Of one attempt."""
    max_wait_s: float = Field(MAX_WAIT_S, ge=0)
    """Longest pause between two attempts."""
    max_parallel: int = Field(16, ge=1)
    """Requests under way at once in one call of `complete`."""
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Sent along with every request, e.g. `{"top_k" = 20}` for vLLM."""

    def build(self) -> EndpointPolicy:
        """The policy; opens no connection yet."""
        return EndpointPolicy(self)


class LostCall(NamedTuple):
    """An attempt whose answer did not arrive, though the endpoint may have worked, and charged, for it."""

    reason: str
    num_prompt_tokens: int
    """Estimated."""
    num_completion_tokens: int
    """The most that was asked for."""


class EndpointPolicy:
    """A policy behind HTTP. Safe to share between threads."""

    def __init__(self, config: EndpointConfig) -> None:
        """Prepare; nothing is sent."""
        self.config = config
        self.name = config.model
        self._lock = threading.Lock()
        self._client: OpenAI | None = None

    def complete(
        self,
        prompts: Sequence[Sequence[Message]],
        sampling: Sampling,
        *,
        num_samples: int = 1,
        seeds: Sequence[int] = (),
    ) -> list[list[Completion]]:
        """`num_samples` answers to each prompt, one request each; sample k is asked for with the prompt's seed + k.

        A prompt longer than the model can read is answered by an empty completion with finish reason `prompt_too_long`.
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

    def ask(
        self, prompt: Sequence[Message], sampling: Sampling, on_lost_call: Callable[[LostCall], None] | None = None
    ) -> Completion:
        """One answer to one prompt; raises as `complete` does.

        `on_lost_call` hears of each attempt that failed and may cost money all the same.
        """
        import openai
        import tenacity

        def before_sleep(state: tenacity.RetryCallState) -> None:
            _report_lost(state.outcome.exception() if state.outcome else None, prompt, sampling, on_lost_call)

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_is_passing),
            wait=_Wait(self.config.max_wait_s),
            stop=tenacity.stop_after_attempt(1 + self.config.max_retries),
            before_sleep=before_sleep,
            reraise=True,
        )
        try:
            response = retrying(self._request, prompt, sampling)
        except openai.OpenAIError as error:
            if _says_prompt_too_long(error):
                return Completion(text="", finish_reason="prompt_too_long")
            _report_lost(error, prompt, sampling, on_lost_call)
            raise EndpointError(self._explain(error)) from error
        return _completion(response, prompt, sampling, self.config.base_url)

    def close(self) -> None:
        """Close the connections; closing twice is harmless."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _request(self, prompt: Sequence[Message], sampling: Sampling) -> ChatCompletion:
        return self._connected().chat.completions.create(
            model=self.config.model,
            messages=cast("list[ChatCompletionMessageParam]", list(prompt)),
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            stop=[sampling.stop] if sampling.stop else None,
            seed=sampling.seed,
            extra_body=self.config.extra_body or None,
        )

    def _connected(self) -> OpenAI:
        import openai

        with self._lock:
            if self._client is None:
                self._client = openai.OpenAI(
                    base_url=self.config.base_url,
                    api_key=os.environ.get(self.config.api_key_env) or "none",
                    timeout=self.config.timeout_s,
                    max_retries=0,  # tenacity does it, so that every attempt is seen
                )
            return self._client

    def _explain(self, error: Exception) -> str:
        import openai

        url = self.config.base_url
        if isinstance(error, openai.APITimeoutError):
            return f"{url} did not answer within {self.config.timeout_s:g} s: is the server overloaded? Call the same command again to go on"
        if isinstance(error, openai.APIConnectionError):
            return f"cannot reach {url} ({error.__cause__ or error}): is the server running, and is --base-url right?"
        if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
            return f"{url} refuses the key in ${self.config.api_key_env}: {_said(error)}"
        if isinstance(error, openai.NotFoundError):
            return f"{url} has no model {self.config.model!r} or no such path: {_said(error)}"
        if isinstance(error, openai.RateLimitError):
            return f"{url} still limits the rate after {1 + self.config.max_retries} attempts: {_said(error)}: wait, or lower --workers"
        return f"{url} refuses the request: {_said(error)}"


class _Wait:
    """Exponential with jitter; the endpoint's Retry-After where it gave one, at most `max_wait_s`."""

    def __init__(self, max_wait_s: float) -> None:
        import tenacity

        self._max_wait_s = max_wait_s
        self._backoff = tenacity.wait_random_exponential(multiplier=1.0, max=min(60.0, max_wait_s))

    def __call__(self, state: RetryCallState) -> float:
        response = getattr(state.outcome.exception() if state.outcome else None, "response", None)
        asked = _retry_after_s(response.headers) if response is not None else None
        return float(self._backoff(state)) if asked is None else min(asked, self._max_wait_s)


def _retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for, be it a number or a date; None where it is absent or unreadable."""
    from datetime import UTC, datetime
    from email.utils import parsedate_to_datetime

    text = headers.get("retry-after")
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() - datetime.now(UTC).timestamp())


def _is_passing(error: BaseException) -> bool:
    """Whether another attempt may succeed."""
    import openai

    if isinstance(error, openai.RateLimitError):
        return error.code != "insufficient_quota"
    return isinstance(error, openai.APIConnectionError | openai.InternalServerError)


def _lost(error: BaseException | None, prompt: Sequence[Message], sampling: Sampling) -> LostCall | None:
    """The call as lost, where the endpoint may have begun to work on it; None where it was turned away or never reached."""
    import openai

    if isinstance(error, openai.APIConnectionError):
        if type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout"):  # of whichever httpx openai brings
            return None
    elif not isinstance(error, openai.InternalServerError):
        return None
    return LostCall(str(error), estimate_tokens(prompt), sampling.max_new_tokens)


def _report_lost(
    error: BaseException | None,
    prompt: Sequence[Message],
    sampling: Sampling,
    report: Callable[[LostCall], None] | None,
) -> None:
    lost = _lost(error, prompt, sampling)
    if lost and report:
        report(lost)


def _says_prompt_too_long(error: Exception) -> bool:
    import openai

    if not isinstance(error, openai.BadRequestError):
        return False
    return (
        error.code == "context_length_exceeded"
        or "context length" in str(error).lower()
        or "too long" in str(error).lower()
    )


def _said(error: Exception) -> str:
    body = getattr(error, "body", None)
    message = body.get("message") if isinstance(body, dict) else None
    return str(message or error)[:500]


def estimate_tokens(prompt: Sequence[Message]) -> int:
    """Tokens of a dialogue, rather too many than too few."""
    return int(sum(len(message["content"]) / CHARS_PER_TOKEN + 8 for message in prompt)) + 1


def _completion(response: ChatCompletion, prompt: Sequence[Message], sampling: Sampling, url: str) -> Completion:
    if not getattr(response, "choices", None):
        raise EndpointError(f"{url} answered without any choice: is it an OpenAI-compatible chat endpoint?")
    choice = response.choices[0]
    text = choice.message.content or ""
    usage = response.usage
    return Completion(
        text=_end_at_stop(text, sampling.stop, choice.finish_reason),
        num_prompt_tokens=usage.prompt_tokens if usage else estimate_tokens(prompt),
        num_tokens=usage.completion_tokens if usage else int(len(text) / CHARS_PER_TOKEN) + 1,
        finish_reason="length" if choice.finish_reason == "length" else "stop",
    )


def _end_at_stop(text: str, stop: str, finish_reason: str | None) -> str:
    """`text` up to and with the stop text, which endpoints leave out of what they return, or ignore."""
    if stop and stop in text:
        return text[: text.index(stop) + len(stop)]
    if stop == END_OF_ACTION and finish_reason == "stop" and "<function=" in text:
        return text.rstrip("\n") + "\n" + stop
    return text
