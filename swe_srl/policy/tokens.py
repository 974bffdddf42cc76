"""Messages → prompt ids; answer → target ids. The chat template is the only authority on what stands between turns.

A prompt is the template's own ids of the history, up to where the assistant begins to speak. A training target is the
ids of the answer's text followed by the end-of-turn token. Both laid end to end, with the template's newline after the
end of the turn, are the ids of the whole dialogue: a test says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from swe_srl.dialogue import Message
from swe_srl.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEFT_OUT = "[… left out …]"


class Prompt(NamedTuple):
    """What a model reads before it answers."""

    ids: tuple[int, ...]
    num_tokens_cut: int = 0
    """Tokens of the dialogue that did not fit."""


class Codec:
    """A Hugging Face tokenizer with a chat template, seen from a dialogue."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises ConfigError when `tokenizer` has no chat template or the template does not end its turns."""
        if not tokenizer.chat_template:
            raise ConfigError(
                f"the tokenizer of {tokenizer.name_or_path} has no chat template: choose an instruction-tuned model"
            )
        self.tokenizer = tokenizer
        self.end_of_turn = self._find_end_of_turn()

    def _find_end_of_turn(self) -> int:
        marker = "answer"
        dialogue = [Message(role="user", content="question"), Message(role="assistant", content=marker)]
        shown = self.tokenizer.apply_chat_template(dialogue, tokenize=False)
        after: list[int] = self.tokenizer.encode(shown.rpartition(marker)[2], add_special_tokens=False)
        if not after or after[0] not in self.tokenizer.all_special_ids:
            raise ConfigError(
                f"the chat template of {self.tokenizer.name_or_path} has no token that ends a turn: choose an instruction-tuned model"
            )
        return after[0]

    def dialogue_ids(self, messages: Sequence[Message], *, answer_next: bool) -> list[int]:
        """The template's ids of `messages`; with `answer_next`, up to where the assistant begins to speak."""
        ids: list[int] = self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=answer_next, tokenize=True, return_dict=False
        )
        return ids

    def prompt(self, messages: Sequence[Message], max_tokens: int | None = None) -> Prompt:
        """Ids of `messages`, cut to at most `max_tokens` by the rule of `fit`."""
        ids = self.dialogue_ids(messages, answer_next=True)
        if max_tokens is None or len(ids) <= max_tokens:
            return Prompt(tuple(ids))
        fitted = fit(
            messages, max_tokens, lambda some: self.dialogue_ids(some, answer_next=True), self.text_ids, self.decode
        )
        kept = self.dialogue_ids(fitted, answer_next=True)
        if len(kept) > max_tokens:
            raise ConfigError(
                f"max_prompt_tokens = {max_tokens} does not even hold the system prompt ({len(kept)} tokens with all else cut): raise it"
            )
        return Prompt(tuple(kept), len(ids) - len(kept))

    def target(self, completion: str) -> tuple[int, ...]:
        """Ids of an answer as a student should write it, the end of the turn included."""
        return (*self.text_ids(completion), self.end_of_turn)

    def text_ids(self, text: str) -> list[int]:
        """Ids of plain text, without any special token around it."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; special tokens leave nothing."""
        text: str = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def ids_with(self, character: str) -> frozenset[int]:
        """Every id whose piece holds `character` (ASCII)."""
        pieces = self.tokenizer.convert_ids_to_tokens(range(len(self.tokenizer)))
        return frozenset(index for index, piece in enumerate(pieces) if piece and character in piece)


def fit(
    messages: Sequence[Message],
    max_tokens: int,
    dialogue_ids: Callable[[Sequence[Message]], list[int]],
    text_ids: Callable[[str], list[int]],
    decode: Callable[[Sequence[int]], str],
) -> list[Message]:
    """Cut a dialogue that is too long, least useful text first.

    1. Observations, the oldest first, lose their beginnings (their ends tell how the command went).
    2. Whole rounds go, the oldest first.
    3. The problem statement loses its end. The system prompt is never cut.
    """
    kept = [Message(role=message["role"], content=message["content"]) for message in messages]
    marker = len(text_ids(LEFT_OUT)) + 2

    def shrink(index: int, *, keep_end: bool) -> None:
        ids = text_ids(kept[index]["content"])
        room = len(ids) - marker
        # Text that is cut within a word may take more ids than it had, so one subtraction need not be enough.
        while room >= 0 and (excess := len(dialogue_ids(kept)) - max_tokens) > 0:
            room -= excess
            text = decode(ids[len(ids) - room :] if keep_end else ids[:room]) if room > 0 else ""
            kept[index]["content"] = f"{LEFT_OUT}\n{text}".rstrip() if keep_end else f"{text}\n{LEFT_OUT}".lstrip()

    for index in range(3, len(kept), 2):
        shrink(index, keep_end=True)
    while len(kept) > 2 and len(dialogue_ids(kept)) > max_tokens:
        del kept[2:4]
    shrink(1, keep_end=False)
    return kept
