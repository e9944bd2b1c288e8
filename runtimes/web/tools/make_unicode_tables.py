"""Write src/text/unicode_tables.ts: what the Python package tokenizers knows of each character.

usage: make_unicode_tables.py > src/text/unicode_tables.ts

The library has tables of several old Unicode versions, and a browser has those of its own age. Classes of characters
are therefore the library's own, as `runtimes/cpp/tools/make_unicode_tables.py` asks for them. Decompositions and lower
case never change once a character has them, so those are the browser's, but for the characters that came after the
library's tables.
"""

from __future__ import annotations

import runpy
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from tokenizers import normalizers

CPP = runpy.run_path(str(Path(__file__).parents[2] / "cpp" / "tools" / "make_unicode_tables.py"))
CHARACTERS: list[str] = CPP["CHARACTERS"]
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
#: Characters that newer Unicode decomposes, where the library does not: scripts that came later, by first and last.
LATER = (
    (0x105C9, 0x105E4),
    (0x11383, 0x11391),
    (0x113C5, 0x113C8),
    (0x11938, 0x11938),
    (0x16121, 0x16128),
    (0x16D68, 0x16D6A),
)
LINE = 110


def base36(number: int) -> str:
    digits = DIGITS[number % 36]
    return digits if number < 36 else base36(number // 36) + digits


def write_packed(name: str, note: str, runs: Iterable[tuple[int, ...]]) -> None:
    """Write runs of characters: the gap before each, its length less one, and a value where there is one."""
    words, end = [], 0
    for first, last, *value in runs:
        words.append(",".join(base36(number) for number in (first - end, last - first, *value)))
        end = last + 1
    text = " ".join(words)
    lines = [text[start : start + LINE] for start in range(0, len(text), LINE)]
    print(f"\n// {note}\nexport const {name} =")
    print(" +\n".join(f'  "{line}"' for line in lines) + ";")


def write_class(name: str, note: str, member: Callable[[str], bool]) -> None:
    write_packed(name, note, CPP["ranges"](ord(each) for each in CHARACTERS if member(each)))


def main() -> None:
    decompose = normalizers.NFD().normalize_str
    print("// Written by tools/make_unicode_tables.py from Hugging Face's tokenizers. A run of characters is the gap")
    print("// before it, its length less one and, where there is one, a value, all to the base 36.")
    for name, note, member in CPP["character_classes"]():
        write_class(name.upper(), note, member)
    whole = [(first, last) for first, last in LATER]
    if any(decompose(chr(code)) != chr(code) for first, last in whole for code in range(first, last + 1)):
        raise SystemExit("the library decomposes one of LATER: make that list anew")
    write_packed("UNDECOMPOSED", "The library knows no decomposition of them.", whole)
    classes = [(ord(each), unicodedata.combining(each)) for each in CHARACTERS if unicodedata.combining(each)]
    write_packed(
        "COMBINING_CLASSES",
        "The canonical combining class where it is not 0.",
        CPP["runs_of_equal"]((code, value) for code, value in classes if CPP["reorders"](chr(code))),
    )


if __name__ == "__main__":
    main()
