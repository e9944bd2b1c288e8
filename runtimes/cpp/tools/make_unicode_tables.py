"""Write src/unicode_tables.inc: what the Python package tokenizers knows of each character.

usage: make_unicode_tables.py > src/unicode_tables.inc

A model wants the ids that it was trained with. That library has tables of several old Unicode versions, one for each
of its dependencies, so a library of today's Unicode gives other ids for hundreds of characters. The tables are
therefore asked of the library itself, character by character, with the components that tokenizer files name. Only
combining classes come from Python's unicodedata: Unicode never changes one. No character is left out but surrogates.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from tokenizers import Regex, normalizers, pre_tokenizers

CHARACTERS = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
HANGUL = range(0xAC00, 0xD7A4)  # decomposed by a formula
LINE = 116


def bert_normalizer(**steps: bool) -> normalizers.BertNormalizer:
    """The normalizer with these steps alone."""
    none = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return normalizers.BertNormalizer(**none | steps)


def matches(pattern: str) -> Callable[[str], bool]:
    """Whether a character matches a pattern of the library's regular expressions."""
    remove = pre_tokenizers.Split(Regex(pattern), "removed")
    return lambda character: not remove.pre_tokenize_str(character)


def reorders(character: str) -> bool:
    """Whether the library sorts this character among combining marks: its combining class is not 0."""
    # U+0334 has class 1, the lowest, and U+0345 class 240, the highest: whatever is above 0 passes one of them.
    texts = (f"{character}\u0334", f"\u0345{character}")
    return any(normalizers.NFD().normalize_str(text) != text for text in texts)


def ranges(codes: Iterable[int]) -> Iterator[tuple[int, int]]:
    """First and last of each run of successive numbers."""
    run: list[int] = []
    for code in codes:
        if run and code != run[-1] + 1:
            yield run[0], run[-1]
            run = []
        run.append(code)
    if run:
        yield run[0], run[-1]


def runs_of_equal(pairs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
    """First and last of each run of successive numbers with equal values, and the value."""
    run: tuple[int, int, int] | None = None
    for code, value in pairs:
        if run and code == run[1] + 1 and value == run[2]:
            run = (run[0], code, value)
            continue
        if run:
            yield run
        run = (code, code, value)
    if run:
        yield run


def write_table(declaration: str, entries: Iterable[str], note: str) -> None:
    print(f"\n// {note}\nconstexpr {declaration} = {{")
    line = "   "
    for entry in entries:
        if len(line) + len(entry) + 2 > LINE:
            print(line)
            line = "   "
        line += f" {entry},"
    print(f"{line}\n}};")


def write_class(name: str, note: str, member: Callable[[str], bool]) -> None:
    codes = (ord(character) for character in CHARACTERS if member(character))
    write_table(f"Range {name}[]", (f"{{0x{first:X}, 0x{last:X}}}" for first, last in ranges(codes)), note)


def character_classes() -> Iterator[tuple[str, str, Callable[[str], bool]]]:
    """The name of each class of characters that tokenizers ask about, why, and whether a character belongs to it."""
    clean = bert_normalizer(clean_text=True).normalize_str
    strip = bert_normalizer(strip_accents=True).normalize_str
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    decomposed = normalizers.NFD().normalize_str
    yield "controls", "BertNormalizer's clean_text removes them.", lambda each: clean(each) == ""
    yield (
        "nonspacing_marks",
        "BertNormalizer's strip_accents removes them.",
        lambda each: strip(each) == "" and decomposed(each) == each,
    )
    yield "spaces", "BertPreTokenizer drops them between words.", lambda each: len(split(f"a{each}a")) == 2
    yield "punctuation", "BertPreTokenizer makes each a word.", lambda each: len(split(f"a{each}a")) == 3
    yield "letters", r"\p{L} of the regular expression of ByteLevel.", matches(r"\p{L}")
    yield "numbers", r"\p{N} of that regular expression.", matches(r"\p{N}")
    yield "regex_spaces", r"\s of that regular expression.", matches(r"\s")


def write_lowercase() -> None:
    lower = normalizers.Lowercase().normalize_str
    changed = {ord(each): lower(each) for each in CHARACTERS if lower(each) != each}
    longer = {code: text for code, text in changed.items() if len(text) > 1}
    if longer != {0x130: "i\u0307"}:
        raise SystemExit(f"characters with several lower-case ones: {longer}, expected U+0130 alone")
    single = [(code, ord(text) - code) for code, text in changed.items() if len(text) == 1]
    write_table(
        "Shift lowercase[]",
        (f"{{0x{first:X}, 0x{last:X}, {delta}}}" for first, last, delta in runs_of_equal(single)),
        "Lower case, as first and last character and what is added. U+0130 gives two characters and is not here.",
    )


def write_decompositions() -> None:
    decompose = normalizers.NFD().normalize_str
    pool: list[int] = []
    entries = []
    for character in CHARACTERS:
        parts = [ord(each) for each in decompose(character)]
        if parts != [ord(character)] and ord(character) not in HANGUL:
            entries.append(f"{{0x{ord(character):X}, {len(pool)}, {len(parts)}}}")
            pool += parts
    write_table("char32_t decomposed[]", (f"0x{code:X}" for code in pool), "What characters decompose to, for NFD.")
    write_table("Decomposition decompositions[]", entries, "Character, its place in `decomposed`, how many there.")
    classes = [(ord(each), unicodedata.combining(each)) for each in CHARACTERS if unicodedata.combining(each)]
    write_table(
        "CombiningClass combining_classes[]",
        (
            f"{{0x{first:X}, 0x{last:X}, {value}}}"
            for first, last, value in runs_of_equal((code, value) for code, value in classes if reorders(chr(code)))
        ),
        "First and last character, and their canonical combining class where it is not 0.",
    )


def main() -> None:
    print("// Written by tools/make_unicode_tables.py. Every table is in ascending order.")
    for name, note, member in character_classes():
        write_class(name, note, member)
    write_lowercase()
    write_decompositions()


if __name__ == "__main__":
    main()
