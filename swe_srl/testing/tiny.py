"""A student of 100,000 random parameters with a real tokenizer, for tests of what does not depend on what a model knows."""

from __future__ import annotations

from pathlib import Path

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CORPUS = (
    "<think>\nI look at the failing test.\n</think>\n<function=bash>\n<parameter=command>ls -la</parameter>\n</function>",
    "<function=str_replace_editor>\n<parameter=command>view</parameter>\n<parameter=path>/testbed/a.py</parameter>\n</function>",
    "def f(value):\n    return value + 1\n[exit 0]\n1 passed in 0.01s",
)


def tiny_student(
    path: Path, *, seed: int = 0, width: int = 32, layers: int = 2, vocabulary: int = 0, mlp: float = 2.0
) -> Path:
    """Write a random Qwen2 model (grouped queries) and a byte-level BPE tokenizer with ChatML to `path`.

    With a larger `vocabulary` than the corpus gives, the rest of the ids stand for nothing. `mlp` is the width of the
    feed-forward layers in times of `width`.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(_SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(_CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=_SPECIAL[2], pad_token=_SPECIAL[0], additional_special_tokens=[_SPECIAL[1]]
    )
    tokenizer.chat_template = CHATML
    config = Qwen2Config(
        vocab_size=max(len(tokenizer), vocabulary), hidden_size=width, intermediate_size=round(mlp * width), num_hidden_layers=layers, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=4096, tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id, bos_token_id=None, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
