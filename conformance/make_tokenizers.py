"""Make the tokenizer cases: small `tokenizer.json` files, texts, and the tokens that Hugging Face's library makes.

    python conformance/make_tokenizers.py

The library `tokenizers` is the only source of what is expected; nothing of bitfit_export is imported. `index.json` has
the cases of each file. A case has a `text`, a `pair` of texts, or `words`, a text as the list of its words. A token is
`[id, type_id, side, word, start, end]`: side 0 for the text and 1 for the second one of a pair, the number of the
token's word in its side, and the characters of that word, from start to before end, without spaces around it. Side and
word are null for a special token. Start and end are 0 for a special token, and for a word that is nothing but spaces. A
list of words counts as the words with a space between each two.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

HERE = Path(__file__).parent

Text = str | list[str] | tuple[str, str]

TEXTS: list[Text] = [
    "a warm, funny film",
    "A WARM Funny film!",
    "",
    " ",
    "  two   spaces ",
    "tab\tand\nlines\r\n",
    "naïve café",
    "cafe\u0301",
    "日本 film",
    "funny \U0001f600!",
    "unbelievable",
    "xyzzy",
    "x" * 120,
    "a-b.c",
    "isn't it?",
    "[MASK] a [SEP] film",
    "<mask> a</s> film",
    "nul \0 and \ufffd",
    "no\u00a0break\u3000space",
    "zero\u200bwidth\u00adhyphen",
    "ﬁlm ½ ①",
    "İstanbul STRASSE ß",
    ("a film", "funny"),
    ("", "film"),
    ("film", ""),
    ("who is it?", "it is warm,  and funny"),
    ["a", "warm", "film"],
    ["funny", "!"],
    ["un believable", "it's"],
    ["naïve", "", "日本"],
]
#: Texts that are cut to as many tokens, special ones included: the end of the longer side goes first.
CUT: list[tuple[Text, int]] = [
    ("a warm, funny film", 5),
    ("a warm, funny film", 3),
    ("a warm, funny film", 6),
    (("a warm funny film", "it"), 6),
    (("it", "a warm funny film"), 6),
    (("a warm film", "it is funny"), 7),
    (("a warm film", "it is funny"), 8),
    (["a", "warm", "film"], 4),
]
#: Pairs whose second text is read in windows of at most so many tokens. Neighbours share 128 tokens, or half of the
#: room that the second text has where that is less.
WINDOWS: list[tuple[tuple[str, str], int]] = [
    (("who?", "it is a warm film and a funny film"), 9),
    (("who?", "it is a warm film and a funny film"), 12),
    (("is it?", "it is a warm film"), 40),
    (("a film", "warm " * 400), 300),
]
MOST_SHARED = 128

PIECES = [
    *["a", "b", "c", "e", "it", "is", "isn", "t", "who", "two", "no", "nul", "tab", "and", "lines", "film"],
    *["warm", "zero", "funny", "un", "cafe", "naive", "spaces", "space", "break", "width", "hyphen", "s", "ss"],
    *["st", "##s", "##e", "##t", "##believ", "##able", "##n", "##y", "##width", "日", "本", ",", ".", "!", "?"],
    *["-", "'", "##x", "x", "½", "ß", "strasse", "istanbul", "A", "WARM", "Funny", "##ï", "##ve", "na", "caf"],
    *["##é"],
]
MERGES = [
    *[
        "Ġ f",
        "i l",
        "il m",
        "Ġf ilm",
        "f ilm",
        "Ġ a",
        "Ġ w",
        "a r",
        "ar m",
        "Ġw arm",
        "Ġf u",
        "n n",
        "Ġfu nn",
        "Ġfunn y",
    ],
    *["i t", "i s", "Ġ it", "Ġ is", "Ã ¯", "Ã ©", "æ Ĺ", "æĹ ¥", "Ġ Ġ", "x x", "xx xx"],
]
UNIGRAMS = [
    "▁",
    "▁a",
    "▁film",
    "film",
    "▁warm",
    "▁funny",
    "▁it",
    "▁is",
    "s",
    "▁un",
    "believ",
    "able",
    ",",
    "!",
    "?",
    "▁two",
]


def bert(*, lowercase: bool) -> Tokenizer:
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {piece: number for number, piece in enumerate([*specials, *PIECES])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(specials)
    return tokenizer


def roberta() -> Tokenizer:
    specials = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pieces = [*specials, *sorted(pre_tokenizers.ByteLevel.alphabet()), *(pair.replace(" ", "") for pair in MERGES)]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.BPE(vocabulary, [tuple(pair.split(" ")) for pair in MERGES]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = roberta_processor(trim_offsets=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([*specials[:4], AddedToken("<mask>", lstrip=True)])
    return tokenizer


def roberta_processor(*, trim_offsets: bool) -> Any:
    return processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets, add_prefix_space=False)


def unigram() -> Tokenizer:
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [(piece, 0.0) for piece in specials] + [(piece, -2.0 - 0.01 * at) for at, piece in enumerate(UNIGRAMS)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(specials)
    return tokenizer


TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "wordpiece": lambda: bert(lowercase=True),
    "wordpiece_cased": lambda: bert(lowercase=False),
    "byte_level": roberta,
    "unigram": unigram,
}


def encode(tokenizer: Tokenizer, text: Text) -> Any:
    """The library's `Encoding`."""
    if isinstance(text, tuple):
        return tokenizer.encode(*text)
    if isinstance(text, str):
        return tokenizer.encode(text)
    if isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        # A word of a list is read as in a text, where a space stands before it; transformers demands the same.
        tokenizer = Tokenizer.from_str(tokenizer.to_str())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer.encode(text, is_pretokenized=True)


def tokens_of(encoding: Any, spans: dict[tuple[int, int], tuple[int, int]]) -> list[list[int | None]]:
    found = []
    for number, type_id, side, word in zip(
        encoding.ids, encoding.type_ids, encoding.sequence_ids, encoding.word_ids, strict=True
    ):
        found.append([number, type_id, side, word, *spans.get((side, word), (0, 0))])
    return found


def spans_of(encoding: Any, text: Text) -> dict[tuple[int, int], tuple[int, int]]:
    """The characters of each word, by its side and number."""
    if isinstance(text, list):
        starts = [sum(len(word) + 1 for word in text[:number]) for number in range(len(text))]
        spans = {(0, number): (start, start + len(text[number])) for number, start in enumerate(starts)}
        return {word: span for word, span in spans.items() if span[0] < span[1]}
    sides = text if isinstance(text, tuple) else (text,)
    spans = {}
    for side, word, (start, end) in zip(encoding.sequence_ids, encoding.word_ids, encoding.offsets, strict=True):
        if word is not None:
            first = spans.get((side, word), (start, end))[0]
            spans[side, word] = (first, end)
    for (side, word), (start, end) in spans.items():
        inside = sides[side][start:end]
        start += len(inside) - len(inside.lstrip())
        end = start + len(inside.strip())
        spans[side, word] = (start, end) if start < end else (0, 0)
    return spans


def named(text: Text) -> dict[str, Text]:
    """A text as a case has it, by what it is."""
    return {"pair" if isinstance(text, tuple) else "words" if isinstance(text, list) else "text": text}


def cases_of(tokenizer: Tokenizer) -> dict[str, Any]:
    cases: dict[str, Any] = {"texts": [], "cut": [], "windows": []}
    if isinstance(tokenizer.pre_tokenizer, pre_tokenizers.ByteLevel):
        # Spaces are trimmed by `spans_of`. The library's own trimming takes the first character of a word that
        # follows a special token, where it has put a space before that word itself.
        tokenizer.post_processor = roberta_processor(trim_offsets=False)
    for text in TEXTS:
        encoding = encode(tokenizer, text)
        cases["texts"].append({**named(text), "tokens": tokens_of(encoding, spans_of(encoding, text))})
    for text, limit in CUT:
        spans = spans_of(encode(tokenizer, text), text)
        tokenizer.enable_truncation(limit, strategy="longest_first")
        cases["cut"].append({**named(text), "limit": limit, "tokens": tokens_of(encode(tokenizer, text), spans)})
        tokenizer.no_truncation()
    for pair, limit in WINDOWS:
        whole = encode(tokenizer, pair)
        spans = spans_of(whole, pair)
        room = limit - (len(whole) - whole.sequence_ids.count(1))
        tokenizer.enable_truncation(limit, strategy="only_second", stride=min(MOST_SHARED, room // 2))
        cut = encode(tokenizer, pair)
        windows = [tokens_of(each, spans) for each in (cut, *cut.overflowing)]
        # The library's template does not reach the later windows; their type ids are those of the whole pair.
        types = {side: whole.type_ids[at] for at, side in enumerate(whole.sequence_ids) if side is not None}
        windows = [[[token[0], types.get(token[2], token[1]), *token[2:]] for token in window] for window in windows]
        cases["windows"].append({**named(pair), "limit": limit, "windows": windows})
        tokenizer.no_truncation()
    return cases


def build() -> dict[str, bytes]:
    """Every file of the folder, by name."""
    files, index = {}, {}
    for name, make in TOKENIZERS.items():
        tokenizer = make()
        files[f"{name}.json"] = (
            json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False, indent=1).encode() + b"\n"
        )
        index[f"{name}.json"] = cases_of(tokenizer)
    return files | {"index.json": index_text(index).encode()}


def index_text(index: dict[str, Any]) -> str:
    """The index with a case on each line."""
    parts = []
    for name, cases in index.items():
        kinds = [
            f"  {json.dumps(kind)}: [\n   " + ",\n   ".join(json.dumps(case) for case in found) + "\n  ]"
            for kind, found in cases.items()
        ]
        parts.append(f" {json.dumps(name)}: {{\n" + ",\n".join(kinds) + "\n }")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    (HERE / "tokenizer").mkdir(exist_ok=True)
    for name, data in build().items():
        (HERE / "tokenizer" / name).write_bytes(data)
