"""A tokenizer.json that would make the tokenizers library panic, abort, hang or fill the memory is refused."""

from __future__ import annotations

import base64
import copy
import json
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from typing import Any

import pytest

from bitfit_export.errors import BundleError, InputError
from bitfit_export.runtime.text.tokenizer import TextEncoder
from bitfit_export.runtime.text.tokenizer_file import check_tokenizer

TEXTS = ["a ab b zz", "", "äé\u0301中 1234 x! ", "a" * 40 + "b", ("a", "b b"), ["a", "b"]]
ADDED = {"id": 0, "content": "[UNK]", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
WORDPIECE = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
    "vocab": {"[UNK]": 0, "a": 1, "b": 2, "##a": 3},
}
BPE = {
    "type": "BPE",
    "dropout": None,
    "unk_token": "a",
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": False,
    "byte_fallback": False,
    "ignore_merges": False,
    "vocab": {"a": 0, "b": 1, "ab": 2},
    "merges": [["a", "b"]],
}
UNIGRAM = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -2.0]], "byte_fallback": False}
WORD_LEVEL = {"type": "WordLevel", "vocab": {"a": 0, "[UNK]": 1}, "unk_token": "[UNK]"}
TEXT_A, TEXT_B = ({"Sequence": {"id": side, "type_id": index}} for index, side in enumerate("AB"))
START = {"SpecialToken": {"id": "[S]", "type_id": 0}}
SPECIAL = {"[S]": {"id": "[S]", "ids": [1], "tokens": ["[S]"]}}
BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


def spec(**changes: Any) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [ADDED | {"special": True}],
        "normalizer": {
            **{"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True},
            **{"strip_accents": None, "lowercase": True},
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": None,
        "model": WORDPIECE,
    } | changes


def template(single: Sequence[Any], pair: Sequence[Any], special: Any = SPECIAL) -> dict[str, Any]:
    processor = {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}
    return {"post_processor": processor}


def model(base: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {"model": base | changes}


def replace(pattern: dict[str, str], content: str = "x") -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def normalizers(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"normalizer": {"type": "Sequence", "normalizers": list(parts)}}


def split(regex: str) -> dict[str, Any]:
    return {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}}


def charsmap(units: Sequence[int], texts: bytes, *, size: int | None = None) -> dict[str, Any]:
    data = struct.pack(f"<I{len(units)}I", 4 * len(units) if size is None else size, *units) + texts
    return {"normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}}


def nested(levels: int) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "Lowercase"}
    for _ in range(levels):
        part = {"type": "Sequence", "normalizers": [part]}
    return {"normalizer": part}


def a_to_b() -> list[int]:
    """A double-array trie with one key: `a` has the text at 0, which is `b`."""
    units = [0] * 256
    units[0] = 0  # the root; its children are where their bytes say
    units[ord("a")] = (256 ^ ord("a")) << 10 | 0x100 | ord("a")  # its value is at 256
    return [*units, 1 << 31, *[0] * 255]


GOOD: dict[str, dict[str, Any]] = {
    "WordPiece": {},
    "BPE": model(BPE),
    "BPE, merges as text": model(BPE, merges=["a b"]),
    "BPE, with a prefix": model(BPE, continuing_subword_prefix="#", vocab={"a": 0, "#b": 1, "ab": 2}, merges=["a #b"]),
    "BPE, with a suffix": model(BPE, end_of_word_suffix="</w>"),
    "Unigram": model(UNIGRAM),
    "WordLevel": model(WORD_LEVEL),
    "no steps": {"normalizer": None, "pre_tokenizer": None},
    "XLM-RoBERTa's normalizer": normalizers(charsmap(a_to_b(), b"b\0")["normalizer"], replace({"Regex": " {2,}"}, " ")),
    "ALBERT's normalizer": normalizers(
        *(replace({"String": "``"}, '"'), replace({"String": "''"}, '"'), {"type": "NFKD"}, {"type": "StripAccents"}),
        *({"type": "Lowercase"}, charsmap(a_to_b(), b"b\0")["normalizer"], replace({"Regex": " {2,}"}, " ")),
    ),
    "Llama's normalizer": normalizers(
        {"type": "Prepend", "prepend": "▁"}, replace({"String": " "}, "▁"), {"type": "NFC"}, {"type": "Nmt"}
    ),
    "CLIP's normalizer": normalizers({"type": "NFC"}, replace({"Regex": r"\s+"}, " "), {"type": "Lowercase"}),
    "Metaspace": {
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    },
    "GPT-2's expression": split(GPT2),
    "GPT-4's expression": split(GPT4),
    "Llama 3": split(GPT4)
    | {
        "post_processor": {
            "type": "Sequence",
            "processors": [BYTE_LEVEL, template([START, TEXT_A], [START, TEXT_A, TEXT_B])["post_processor"]],
        }
    },
    "Falcon's": {
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                *({"type": "Punctuation", "behavior": "Contiguous"}, BYTE_LEVEL),
                *({"type": "Digits", "individual_digits": False}, split("[0-9][0-9][0-9]")["pre_tokenizer"]),
            ],
        }
    },
    "templates": template([START, TEXT_A, START], [START, TEXT_A, START, TEXT_B]),
    "BERT's ends": {"post_processor": {"type": "BertProcessing", "sep": ["[S]", 2], "cls": ["[C]", 1]}},
    "a decoder": {"decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]}},
    "truncation and padding": {
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {
            **{"strategy": {"Fixed": 2**60}, "direction": "Right", "pad_to_multiple_of": 0},
            **{"pad_id": 0, "pad_type_id": 0, "pad_token": "x"},
        },
    },
}
BAD: dict[str, dict[str, Any]] = {
    "no model": {"model": None},
    "an unknown model": model(BPE, type="Unknown"),
    "a model without a type": {"model": {key: value for key, value in BPE.items() if key != "type"}},
    "a negative id": model(WORDPIECE, vocab={"[UNK]": -1}),
    "a large id": model(WORDPIECE, vocab={"[UNK]": 2**31}),
    "a real id": model(WORDPIECE, vocab={"[UNK]": 1.0}),
    "no tokens": model(WORDPIECE, vocab={}),
    "a vocabulary that is a list": model(WORDPIECE, vocab=["[UNK]"]),
    "no unknown token": model(WORDPIECE, vocab={"a": 0}),
    "no unknown word": model(WORD_LEVEL, unk_token="zz"),
    "a prefix that a merge lacks": model(BPE, continuing_subword_prefix="####"),
    "a prefix longer than the token": model(
        BPE, continuing_subword_prefix="ä", vocab={"a": 0, "bß": 1, "aß": 2}, merges=["a bß"]
    ),
    "an unknown piece beyond the end": model(UNIGRAM, unk_id=3),
    "no pieces": model(UNIGRAM, vocab=[], unk_id=None),
    "a score that is no number": model(UNIGRAM, vocab=[["a", None]]),
    "an infinite score": model(UNIGRAM, vocab=[["a", float("inf")]]),
    "an added token with a large id": {"added_tokens": [ADDED | {"id": 2**32 - 1}]},
    "an empty added token": {"added_tokens": [ADDED | {"content": ""}]},
    "an added token that is normalised to nothing": {
        "added_tokens": [
            *spec()["added_tokens"],
            ADDED | {"id": 5, "content": "\u0301", "normalized": True, "special": False},
        ]
    },
    "an unknown normalizer": {"normalizer": {"type": "Unknown"}},
    "a normalizer without a type": {"normalizer": {"strip_left": True, "strip_right": True}},
    "a long text to put in": {"normalizer": {"type": "Prepend", "prepend": "x" * 65}},
    "a long replacement": {"normalizer": replace({"String": "a"}, "x" * 65)},
    "an empty pattern": {"normalizer": replace({"String": ""})},
    "a text that doubles again and again": normalizers(*[replace({"String": "a"}, "aa")] * 7),
    "bytes of bytes of bytes": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTE_LEVEL] * 2}},
    "bytes in both places": {"normalizer": {"type": "ByteLevel"}, "pre_tokenizer": BYTE_LEVEL},
    "too many steps": normalizers(*[{"type": "NFD"}] * 32),
    "too many steps inside each other": nested(32),
    "sequences without end": nested(150),
    "a map without bytes": charsmap([], b"") | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": ""}},
    "a map that is not base64": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "!!"}},
    "a map of four gigabytes": charsmap([0] * 256, b"a\0", size=2**32 - 4),
    "a map of an odd size": charsmap([0] * 256, b"a\0", size=1023),
    "a map of texts that are not UTF-8": charsmap(a_to_b(), b"\xff\0"),
    "a map of ones": charsmap([2**32 - 1] * 256, b"a\0"),
    "a map whose root leads outside": charsmap([1 << 18, *[0] * 255], b"a\0"),
    "a map whose values lie outside": charsmap([*a_to_b()[:256], 1 << 31 | 99, *[0] * 255], b"b\0"),
    "a map whose values are no values": charsmap([*a_to_b()[:256], 0, *[0] * 255], b"b\0"),
    "a map whose values are inside of a letter": charsmap([*a_to_b()[:256], 1 << 31 | 1, *[0] * 255], "ä\0".encode()),
    "an unknown pre-tokenizer": {"pre_tokenizer": {"type": "Unknown"}},
    "pieces of no length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "an expression of many repeats": split("(?:[^a]{1000}|b){1000}"),
    "an expression of a huge repeat": split("a{" + "9" * 5000 + "}"),
    "a long expression": split("a" * 4097),
    "an expression that calls itself": split(r"(?<x>a|b\g<x>c)*"),
    "an expression that does not end": split("("),
    "a decoder's expression": {"decoder": replace({"Regex": "(?:a{1000}){1000}"})},
    "an unknown post-processor": {"post_processor": {"type": "Unknown"}},
    "an unknown decoder": {"decoder": {"type": "Unknown"}},
    "a template without the text": template([START], [TEXT_A, TEXT_B]),
    "a template with the text twice": template([TEXT_A, TEXT_A], [TEXT_A, TEXT_B]),
    "a template of one text for two": template([TEXT_A], [TEXT_A]),
    "a template with the second text alone": template([TEXT_B], [TEXT_A, TEXT_B]),
    "a template with an unknown token": template([START, TEXT_A], [TEXT_A, TEXT_B], {}),
    "a template of many places": template([START] * 40 + [TEXT_A], [TEXT_A, TEXT_B]),
    "a special token without ids": template(
        [START, TEXT_A], [TEXT_A, TEXT_B], {"[S]": {"id": "[S]", "ids": [], "tokens": []}}
    ),
    "a special token of many ids": template(
        [START, TEXT_A], [TEXT_A, TEXT_B], {"[S]": {"id": "[S]", "ids": [1] * 100, "tokens": ["a"] * 100}}
    ),
    "a special token with a large id": template(
        [START, TEXT_A], [TEXT_A, TEXT_B], {"[S]": {"id": "[S]", "ids": [2**32 - 1], "tokens": ["a"]}}
    ),
    "two templates": {
        "post_processor": {
            "type": "Sequence",
            "processors": [{"type": "BertProcessing", "sep": ["[S]", 2], "cls": ["[C]", 1]}] * 2,
        }
    },
    "ends without ids": {"post_processor": {"type": "BertProcessing", "sep": ["[S]"], "cls": ["[C]", 1]}},
}
#: Only the search shows that these never end, and the library stops it by a panic.
SLOW = {name: split(regex) for name, regex in {"nested": "(a+)+$", "alternatives": "(a|aa)+$"}.items()}


def encoder(data: bytes | dict[str, Any]) -> TextEncoder:
    data = data if isinstance(data, bytes) else json.dumps(data).encode()
    return TextEncoder(data, max_positions=10_000, pad_token_id=0)


@pytest.mark.parametrize("name", GOOD)
def test_components_that_real_tokenizers_have(name: str) -> None:
    assert len(encoder(spec(**GOOD[name])).tokenize(TEXTS)) == len(TEXTS)


def test_a_charsmap_is_used() -> None:
    given = encoder(spec(**charsmap(a_to_b(), b"b\0")))
    assert given.tokenize("a b")[0].ids == [2, 2]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", BAD)
def test_a_hostile_file_is_refused(name: str) -> None:
    started = time.process_time()
    with pytest.raises(BundleError, match=r"the tokenizer tokenizer\.json cannot be (used|read)") as caught:
        encoder(spec(**BAD[name]))
    assert time.process_time() - started < 1
    assert len(str(caught.value)) < 1000
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("name", SLOW)
def test_a_panic_of_the_library_is_an_error(name: str) -> None:
    given = encoder(spec(**SLOW[name]))
    with pytest.raises(InputError, match="the texts cannot be tokenised: Onig: Regex search error"):
        given.tokenize("a" * 40 + "b")
    assert given.tokenize("b")


def test_the_process_survives() -> None:
    """Each file that is refused is never shown to the library, which would end the process for some."""
    code = """
        import json, sys, tokenizers
        from bitfit_export.errors import BundleError
        from bitfit_export.runtime.text import tokenizer as module

        class Unused:
            from_str = None

        module.Tokenizer = Unused
        for line in sys.stdin:
            try:
                module.read_tokenizer(line.encode(), "t")
            except BundleError as error:
                print("cannot be used" in str(error))
            except TypeError:
                print(None)
    """
    aborting = [name for name in BAD if name.startswith(("a map", "a prefix", "a special token of many", "sequences"))]
    lines = "".join(json.dumps(spec(**BAD[name])) + "\n" for name in aborting)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], input=lines, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True"] * len(aborting)


class TestJson:
    @pytest.mark.parametrize(
        "data",
        [
            b'{"model": {}, "model": {}}',
            b'{"model": {"vocab": {"a": 0, "a": 1}}}',
            b"\xef\xbb\xbf{}",
            "{}".encode("utf-16"),
            b"{} {}",
            b'{"a": ' * 100_000,
        ],
    )
    def test_refused(self, data: bytes) -> None:
        with pytest.raises(BundleError, match="is not valid JSON"):
            check_tokenizer(data, "t")

    def test_every_truncation(self) -> None:
        data = json.dumps(spec()).encode()
        for length in range(len(data)):
            with pytest.raises(BundleError):
                check_tokenizer(data[:length], "t")

    def test_any_member_of_another_type(self) -> None:
        """Whatever stands in a place, it is refused or it tokenises; nothing else is raised."""
        good = spec(**GOOD["ALBERT's normalizer"], **GOOD["templates"])
        for change in (None, 0, -1, 2**70, 1.5, True, "x", [], [None], {}, {"type": None}):
            for path in paths_of(good):
                value = copy.deepcopy(good)
                put(value, path, change)
                try:
                    given = encoder(value)
                except BundleError:
                    continue
                try:
                    given.tokenize(TEXTS)
                except InputError:
                    continue


def paths_of(value: Any) -> list[tuple[Any, ...]]:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found: list[tuple[Any, ...]] = []
    for key, each in members:
        found += [(key,), *((key, *path) for path in paths_of(each))]
    return found


def put(value: Any, path: tuple[Any, ...], new: object) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new
