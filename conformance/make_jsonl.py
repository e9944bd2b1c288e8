"""Make the files that every reader of JSON lines is tested with: `jsonl/`.

python conformance/make_jsonl.py
"""

from __future__ import annotations

from typing import Any

from collection import INT64_MAX, LIMIT, Collection, nested, write

TASK = "sst2"  #: what a reader of JSON lines passes as the task of rows that name none


def jsonl() -> dict[str, bytes]:
    found = Collection("jsonl")
    add_good_lines(found)
    add_bad_lines(found)
    return found.build(task=TASK)


def question(first: str, second: str | None = None, *, task: str = TASK) -> dict[str, Any]:
    return {"task": task, "text": first} if second is None else {"task": task, "text": first, "text_pair": second}


def add_good_lines(found: Collection) -> None:
    def add(name: str, why: str, data: str | bytes, *questions: dict[str, Any]) -> None:
        found.add(name, None, why, data.encode() if isinstance(data, str) else data, questions=list(questions))

    row, one = '{"text": "a film"}', question("a film")
    add("text", "a row", row + "\n", one)
    add("no_last_newline", "the last line may lack its line feed", row + "\n" + row, one, one)
    add("crlf", "a carriage return is white space", row + "\r\n" + row + "\r\n", one, one)
    add("blank_lines", "lines of spaces, tabs and carriage returns are skipped", f"\n \t\r\n{row}\n\n", one)
    add("byte_order_mark", "skipped at the start", b"\xef\xbb\xbf" + row.encode(), one)
    add("byte_order_mark_blank", "skipped at the start", b"\xef\xbb\xbf\n" + row.encode(), one)
    add("task", "a task of its own", '{"task": "rte", "text": "a film"}', question("a film", task="rte"))
    add("pair", "two texts", '{"text": "a", "text_pair": "b"}', question("a", "b"))
    add("pair_null", "null says that there is none", '{"text": "a", "text_pair": null}', question("a"))
    add("sentence", "another name", '{"sentence": "a"}', question("a"))
    add("sentence1", "another name", '{"sentence1": "a", "sentence2": "b"}', question("a", "b"))
    add("text_first", "text counts before sentence", '{"sentence": "b", "text": "a"}', question("a"))
    add("tokens", "a list of words", '{"tokens": ["Ada", "lives"]}', {"task": TASK, "tokens": ["Ada", "lives"]})
    add("tokens_first", "tokens count before text", '{"text": "a", "tokens": ["b"]}', {"task": TASK, "tokens": ["b"]})
    span = '{"question": "Who?", "context": "Ada."}'
    add("question", "a question and its context", span, question("Who?", "Ada."))
    add("question_alone", "without a context it is no question", '{"question": "b", "text": "a"}', question("a"))
    add("unknown_keys", "they are ignored", '{"id": 7, "text": "a", "score": -1.5e3, "x": [{}, null]}', question("a"))
    add("empty_text", "it is a string", '{"text": ""}', question(""))
    add("escapes", "of JSON", '{"text": "\\"\\\\\\/\\b\\f\\n\\r\\t\\u00e4"}', question('"\\/\b\f\n\r\tä'))
    add("pair_of_surrogates", "one character", '{"text": "\\ud83d\\ude00"}', question("\U0001f600"))
    add("utf8", "four bytes", '{"text": "\U0001f600 ä"}', question("\U0001f600 ä"))
    add("nul", "a character as others", '{"text": "a\\u0000b"}', question("a\0b"))
    add("line_separator", "only a line feed ends a line", '{"text": "a\u2028b\u0085c"}', question("a\u2028b\u0085c"))
    add("deepest", f"{LIMIT} levels", '{"text": "a", "x": ' + nested(LIMIT) + "}", question("a"))
    add("int64", "the largest integer", f'{{"text": "a", "x": {INT64_MAX}}}', question("a"))


def add_bad_lines(found: Collection) -> None:
    row = '{"text": "a film"}'

    def add(name: str, fault: str, why: str, line: str | bytes) -> None:
        """A good line, then a bad one."""
        data = line.encode() if isinstance(line, str) else line
        found.add(name, fault, why, row.encode() + b"\n" + data + b"\n", line=2)

    def of(value: str) -> str:
        return f'{{"text": "a", "x": {value}}}'

    found.add("empty", "missing", "no row at all", b"", line=None)
    found.add("blank", "missing", "no row at all", b"\n \n\t\r\n", line=None)
    found.add("utf16", "json", "not UTF-8", row.encode("utf-16"), line=1)
    found.add("utf32", "json", "not UTF-8", row.encode("utf-32-le"), line=1)
    found.add("array", "type", "a list in place of lines", f"[{row}, {row}]\n".encode(), line=1)
    found.add("pretty", "json", "an object over several lines", b'{\n "text": "a"\n}\n', line=1)
    found.add("two_marks", "json", "one byte order mark is skipped", b"\xef\xbb\xbf\xef\xbb\xbf" + row.encode(), line=1)
    add("byte_order_mark", "json", "it stands at the start only", b"\xef\xbb\xbf" + row.encode())
    add("truncated", "json", "no end", '{"text": "a')
    add("trailing", "json", "text after the end", row + " " + row)
    add("trailing_comma", "json", "a comma at the end", row + ",")
    add("latin1", "json", "not UTF-8", b'{"text": "\xe4"}')
    add("surrogate_bytes", "json", "not UTF-8", b'{"text": "\xed\xa0\x80"}')
    add("lone_surrogate", "json", "half a pair", '{"text": "\\ud800"}')
    add("lone_surrogate_unused", "json", "half a pair, in a key that nobody reads", of('"\\udc00"'))
    add("lone_surrogate_key", "json", "half a pair", '{"text": "a", "\\ud800": 1}')
    add("raw_tab", "json", "a raw control character", '{"text": "a\tb"}')
    for name in ("NaN", "Infinity", "-Infinity"):
        add(f"word_{name.replace('-', 'minus_')}", "json", "no word of JSON", of(name))
    add("too_large_double", "json", "no double holds it", of("1e999"))
    add("too_large_integer", "json", "int64 holds less", of(str(INT64_MAX + 1)))
    add("long_integer", "json", "int64 holds less", of("9" * 5000))
    add("leading_zero", "json", "no number of JSON", of("01"))
    add("key_twice", "json", "a repeated key", '{"text": "a", "text": "b"}')
    add("key_twice_inside", "json", "a repeated key", of('{"a": 1, "a": 1}'))
    add("too_deep", "json", f"{LIMIT + 1} levels", of(nested(LIMIT + 1)))
    add("very_deep", "json", "nothing of it is read", "[" * 20_000)
    add("form_feed", "json", "no white space of JSON", "\x0c" + row)
    add("form_feed_alone", "json", "the line is not blank", "\x0c")
    add("nul_alone", "json", "the line is not blank", "\0")
    for name, value in {"list": "[]", "text": '"a"', "null": "null", "number": "1"}.items():
        add(f"row_{name}", "type", "a row is an object", value)
    add("no_text", "missing", "no text", "{}")
    add("pair_alone", "missing", "a second text without a first", '{"text_pair": "b"}')
    add("question_alone", "missing", "no context", '{"question": "a"}')
    add("text_null", "type", "the first text is a string", '{"text": null}')
    add("text_number", "type", "the first text is a string", '{"text": 1}')
    add("text_null_sentence", "type", "the first that is there counts", '{"text": null, "sentence": "a"}')
    add("pair_number", "type", "the second text is a string", '{"text": "a", "text_pair": 1}')
    add("context_null", "type", "a context is a string", '{"question": "a", "context": null}')
    add("tokens_text", "type", "tokens are a list", '{"tokens": "a b"}')
    add("tokens_null", "type", "tokens are a list", '{"tokens": null, "text": "a"}')
    add("tokens_number", "type", "tokens are strings", '{"tokens": ["a", 1]}')
    add("tokens_empty", "range", "tokens are one or more", '{"tokens": []}')
    add("task_null", "type", "a task is a string", '{"task": null, "text": "a"}')
    add("task_number", "type", "a task is a string", '{"task": 1, "text": "a"}')


if __name__ == "__main__":
    write("jsonl", jsonl())
