"""Tokenizers that differ in what a token's characters are, and the folder of real data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def wordpiece(minilm_folder: Path) -> Any:
    """BERT's kind: splits at punctuation too, and a token's characters are those of its piece."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(minilm_folder)


@pytest.fixture(scope="session")
def byte_level() -> Any:
    """RoBERTa's kind without its trimming of offsets: a token has the space before it among its characters, and here
    no merges, so every byte is a token, and a non-ASCII letter several."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ("<s>", "</s>", "<pad>", "<unk>")
    pieces = [*special, "Ġ", *sorted(set(pre_tokenizers.ByteLevel.alphabet()) - {"Ġ"}), "Ġa", "Ġb"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("Ġ", "a"), ("Ġ", "b")], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", vocabulary["</s>"]), ("<s>", vocabulary["<s>"]), trim_offsets=False, add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
