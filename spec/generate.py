"""Write the constants of Python, C++ and C, TypeScript, and tables of the documents, from `row.toml` and `names.toml`.

    python spec/generate.py            write what is stale
    python spec/generate.py --check    write nothing; exit with 1 if something is stale

Some files are generated as a whole, others between two marks. A test compares all of them with this module's output, so
none is edited by hand. The standard library is all that it needs.
"""

from __future__ import annotations

import re
import sys
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

Spec = dict[str, Any]

SPEC = Path(__file__).parent
ROOT = SPEC.parent
WIDTH = 120

#: What a field of each type is to Python's struct module.
_STRUCT_CODES = {"u32": "I", "u64": "Q"}
_NUMPY_TYPES = {"float32": "<f4", "float16": "<f2"}


def read_spec(name: str) -> Spec:
    """Returns one of the two specifications, its numbers put into its texts."""
    spec = tomllib.loads((SPEC / name).read_text(encoding="utf-8"))
    if name == "row.toml":
        words = _words_of(spec)
        for entry in (*spec["fields"], *spec["faults"]):
            entry |= {key: text.format(**words) for key, text in entry.items() if isinstance(text, str)}
        _check_fields(spec)
    return spec


def _words_of(row: Spec) -> dict[str, object]:
    """Returns what the keys in the texts stand for."""
    codes = [kind["code"] for kind in row["problem_types"]]
    return {
        "version": row["version"],
        "magic": row["magic"],
        "header_size": row["header_size"],
        "last_checked": row["header_size"] - 5,
        **row["limits"],
        **row["task_name"],
        "labels": f"{row['limits']['labels']:,}",
        "file_size": f"2^{row['limits']['file_size'].bit_length() - 1}",
        "dtypes": ", ".join(f"{each['code']} {each['name']}" for each in row["dtypes"]),
        "dtype_codes": ", ".join(str(each["code"]) for each in row["dtypes"]),
        "problem_types": ", ".join(f"{each['code']} {each['name']}" for each in row["problem_types"]),
        "problem_codes": f"{min(codes)} to {max(codes)}",
        "fixed_labels": "; ".join(f"{e['name']}: {e['labels']}" for e in row["problem_types"] if "labels" in e),
    }


def _check_fields(row: Spec) -> None:
    """Refuse fields that leave a gap, and numbers that do not fit each other."""
    end = 0
    for field in row["fields"]:
        if field["offset"] != end:
            raise ValueError(f"the field {field['name']} is at {field['offset']}, expected {end}")
        end += field["size"]
    if end != row["header_size"]:
        raise ValueError(f"the fields end at {end}, expected {row['header_size']}")
    sizes = {field["name"]: field["size"] for field in row["fields"]}
    limits = row["limits"]
    slots = limits["head_tensors"] * _slot_size(row)
    if (sizes["head_table"], sizes["task"]) != (slots, limits["task_name"] + 1):
        raise ValueError("the sizes of head_table and task do not fit the limits")


def _slot_size(row: Spec) -> int:
    return 4 * (1 + int(row["limits"]["head_rank"]))


# Python.


def row_format_python(row: Spec) -> str:
    """Returns the module with everything about a row that is a number."""
    limits = row["limits"]
    magic = "".join(f"\\x{byte:02x}" for byte in bytes.fromhex(row["magic"]))
    codes = "".join(
        _STRUCT_CODES.get(field["type"], f"{field['size']}s") for field in row["fields"]
    )  # struct pads bytes with zeros
    first, others = row["task_name"]["first"], row["task_name"]["others"]
    lines = [
        f'"""The numbers of the row format, version {row["version"]}: `docs/bias_row.md`.',
        "",
        "The header, all of it little-endian:",
        "",
        *(
            f"    {number:2}. {field['offset']:5}  {field['size']:3} bytes  {field['text']}"
            for number, field in enumerate(row["fields"], start=1)
        ),
        "",
        "spec/generate.py makes this module from spec/row.toml.",
        '"""',
        "",
        "from __future__ import annotations",
        "",
        "import re",
        "import struct",
        "from typing import NamedTuple",
        "",
        f'MAGIC = b"{magic}"',
        f"FORMAT_VERSION = {row['version']}",
        f"HEADER_SIZE = {row['header_size']}",
        "#: Of a file, in bytes.",
        f"MAX_ROW_SIZE = {limits['file_size']}",
        "#: Of a task: every head tensor of every loaded task is as wide as the widest task needs.",
        f"MAX_LABELS = {limits['labels']}",
        "#: Slots for head tensors in the header, and dimensions in each.",
        f"MAX_HEAD_TENSORS = {limits['head_tensors']}",
        f"MAX_HEAD_RANK = {limits['head_rank']}",
        "#: What a task name looks like: a file name on every system, and no path.",
        f'TASK_NAME = re.compile(r"[{first}][{others}]{{0,{limits["task_name"] - 1}}}")',
        "#: numpy's type by the code of a dtype, which is ONNX's.",
        _python_dict("DTYPES", {each["code"]: _NUMPY_TYPES[each["name"]] for each in row["dtypes"]}),
        _python_dict("PROBLEM_CODES", {each["name"]: each["code"] for each in row["problem_types"]}),
        "#: Problem types whose number of labels is fixed.",
        _python_dict("FIXED_LABEL_COUNTS", {e["name"]: e["labels"] for e in row["problem_types"] if "labels" in e}),
        "",
        "# Where each field begins.",
        *(f"{field['name'].upper()}_AT = {field['offset']}" for field in row["fields"]),
        "",
        f'HEADER = struct.Struct("<{codes}")',
        "#: A slot of the head table: rank and dimensions.",
        f'SLOT = struct.Struct("<{1 + limits["head_rank"]}I")',
        "",
        "",
        "class Header(NamedTuple):",
        f'    """The header\'s {len(row["fields"])} fields, in order."""',
        "",
        *(f"    {field['name']}: {'int' if field['type'] in _STRUCT_CODES else 'bytes'}" for field in row["fields"]),
    ]
    return "\n".join(lines) + "\n"


def faults_python(row: Spec) -> str:
    """Returns the members of the enum RowFault."""
    return "".join(f'    {fault["name"]} = "{fault["text"]}"\n' for fault in row["faults"])


def interface_python(names: Spec) -> str:
    """Returns the constants of the interface's names."""
    lines = []
    for key, block in names.items():
        if key == "limits":
            continue
        lines += ["", *textwrap.wrap(block["note"], WIDTH, initial_indent="# ", subsequent_indent="# ")]
        for name, value in block.items():
            if name != "note":
                lines += _assignment(name, value)
    return "\n".join(lines[1:]) + "\n"


def _assignment(name: str, value: object) -> list[str]:
    """Lines of Python, a long tuple with a value in each, as the formatter has it."""
    line = f"{name} = {_python_value(value)}"
    if len(line) <= WIDTH or not isinstance(value, list):
        return [line]
    return [f"{name} = (", *(f"    {_python_value(each)}," for each in value), ")"]


def limits_python(names: Spec) -> str:
    """Returns the module with the limits of what is read."""
    return "\n".join(
        [
            '"""The limits of what a reader takes from outside: `docs/files.md`. Sizes are in bytes.',
            "",
            "spec/generate.py makes this module from spec/names.toml.",
            '"""',
            "",
            *(f"{limit['name']} = {limit['number']}" for limit in names["limits"]),
            "",
        ]
    )


def _python_value(value: object) -> str:
    if isinstance(value, list):
        return f"({', '.join(map(_python_value, value))}{',' if len(value) == 1 else ''})"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _python_dict(name: str, value: dict[Any, Any]) -> str:
    return f"{name} = {{{', '.join(f'{_python_value(key)}: {_python_value(each)}' for key, each in value.items())}}}"


# C++ and C.


def row_format_header(row: Spec) -> str:
    """Returns the header for C and C++ with everything about a row that is a number."""
    return f"""\
/* The numbers of the row format, version {row["version"]}, for C and C++: docs/bias_row.md.
 * spec/generate.py makes this file from spec/row.toml. */

#ifndef BITFIT_ROW_FORMAT_H
#define BITFIT_ROW_FORMAT_H

#include <stdint.h>

{_c_part(row)}
#ifdef __cplusplus

#include <cstddef>
#include <cstdint>

{_cpp_part(row)}
#endif /* __cplusplus */

#endif /* BITFIT_ROW_FORMAT_H */
"""


def _c_part(row: Spec) -> str:
    limits = row["limits"]
    numbers = {
        "version": row["version"],
        "header_size": row["header_size"],
        "max_labels": limits["labels"],
        "max_head_tensors": limits["head_tensors"],
        "max_head_rank": limits["head_rank"],
        "max_task_name": limits["task_name"],
        "max_file_size": limits["file_size"],
    }
    enums = [
        ("", _c_enum("", {f"ROW_{name}": number for name, number in numbers.items()})),
        (
            "/* Why a row is refused: the number of the check that failed. */",
            _c_enum("row_fault", {f"ROW_{fault}": number for fault, number in _fault_numbers(row).items()}),
        ),
        (
            "/* The type of all values of a row, as ONNX numbers it. */",
            _c_enum("dtype", {f"dtype_{each['name']}": each["code"] for each in row["dtypes"]}),
        ),
        ("", _c_enum("problem_type", {f"problem_{each['name']}": each["code"] for each in row["problem_types"]})),
    ]
    return "\n".join(f"{comment}\n{enum}" if comment else enum for comment, enum in enums)


def _c_enum(name: str, members: dict[str, int]) -> str:
    values = [f"BITFIT_{member.upper()} = {number}" for member, number in members.items()]
    opening, closing = (f"typedef enum bitfit_{name}", f" bitfit_{name}") if name else ("enum", "")
    line = f"{opening} {{ {', '.join(values)} }}{closing};\n"
    if len(line) <= WIDTH:
        return line
    return f"{opening} {{\n  " + ",\n  ".join(values) + f"\n}}{closing};\n"


def _cpp_part(row: Spec) -> str:
    limits = row["limits"]
    digest = next(field["size"] for field in row["fields"] if field["name"] == "layout_digest")
    constants = [
        ("std::uint32_t", "row_format_version", row["version"]),
        ("std::size_t", "row_header_size", row["header_size"]),
        ("std::size_t", "layout_digest_size", digest),
        ("std::uint32_t", "max_head_tensors", limits["head_tensors"]),
        ("std::uint32_t", "max_head_rank", limits["head_rank"]),
        ("std::uint32_t", "max_labels", limits["labels"]),
        ("std::uint32_t", "max_row_size", limits["file_size"]),
    ]
    fields = [(f"{field['name']}_at", field["offset"]) for field in row["fields"][1:]]
    sizes = [("task_field_size", limits["task_name"] + 1), ("head_slot_size", _slot_size(row))]
    dtypes = ", ".join(f"{each['name']} = {each['code']}" for each in row["dtypes"])
    problems = ", ".join(f"{each['name']} = {each['code']}" for each in row["problem_types"])
    codes = {each["code"] for each in row["problem_types"]}
    names = ", ".join(
        f'"{next((e["name"] for e in row["problem_types"] if e["code"] == code), "")}"'
        for code in range(max(codes) + 1)
    )
    faults = _fault_numbers(row)
    return "\n".join(
        [
            "namespace bitfit {",
            "",
            *(f"inline constexpr {kind} {name} = {value};" for kind, name, value in constants),
            "",
            "// Why a row is refused: the number of the check in docs/bias_row.md that failed.",
            "enum class RowStatus : std::uint8_t {",
            *(f"  {name.lower()} = {number}," for name, number in faults.items()),
            "};",
            "",
            "// A few words in English, the same as the Python reader's. They live as long as the program.",
            "inline const char* row_status_text(RowStatus status) noexcept {",
            "  switch (status) {",
            '    case RowStatus::ok: return "ok";',
            *(f'    case RowStatus::{fault["name"].lower()}: return "{fault["text"]}";' for fault in row["faults"]),
            "  }",
            '  return "unknown status";  // a number that was cast to RowStatus',
            "}",
            "",
            "// The type of all values of a row, as ONNX numbers it.",
            f"enum class Dtype : std::uint32_t {{ {dtypes} }};",
            "",
            f"enum class ProblemType : std::uint32_t {{ {problems} }};",
            "",
            "namespace detail {",
            "",
            "// Where the header's fields are.",
            *(f"inline constexpr std::size_t {name} = {value};" for name, value in (*fields, *sizes)),
            "",
            f"// The bytes {row['magic']}, read as load_u64_big reads them.",
            f"inline constexpr std::uint64_t magic = 0x{row['magic'].replace(' ', '')}u;",
            "",
            "// By code.",
            f"inline constexpr const char* problem_type_names[] = {{{names}}};",
            "",
            "}  // namespace detail",
            "}  // namespace bitfit",
            "",
        ]
    )


def _fault_numbers(row: Spec) -> dict[str, int]:
    return {"OK": 0} | {fault["name"]: number for number, fault in enumerate(row["faults"], start=1)}


#: What the names of a block of constants end in, in C++.
_SUFFIXES = {"outputs": "_output", "training_outputs": "_output", "programs": "_program"}


def names_header(names: Spec) -> str:
    """Returns the header of the C++ runtime with the interface's names and the limits."""
    lines = [
        "// The names of the frozen model's interface, and the limits of what is read: docs/files.md.",
        "// spec/generate.py makes this file from spec/names.toml.",
        "",
        "#ifndef BITFIT_SRC_NAMES_H",
        "#define BITFIT_SRC_NAMES_H",
        "",
        "#include <cstdint>",
        "",
        "namespace bitfit {",
    ]
    for key, block in names.items():
        if key == "limits":
            continue
        lines += ["", *textwrap.wrap(block["note"], WIDTH, initial_indent="// ", subsequent_indent="// ")]
        suffix = "_input" if key.endswith("inputs") else _SUFFIXES.get(key, "")
        for name, value in block.items():
            if isinstance(value, list):
                opening = f"inline constexpr const char* {name.lower()}[] = {{"
                values = ", ".join(f'"{each}"' for each in value)
                indent = " " * len(opening)
                lines += textwrap.wrap(f"{values}}};", WIDTH, initial_indent=opening, subsequent_indent=indent)
            elif name != "note":
                lines.append(f'inline constexpr const char* {name.lower()}{suffix} = "{value}";')
    lines += ["", "// Sizes are in bytes."]
    lines += [f"inline constexpr std::uint64_t {e['name'].lower()} = {e['number']};" for e in names["limits"]]
    lines += ["", "}  // namespace bitfit", "", "#endif  // BITFIT_SRC_NAMES_H", ""]
    return "\n".join(lines)


# TypeScript.


def spec_typescript(row: Spec, names: Spec) -> str:
    """Returns the module of the browser runtime with the numbers of a row, the interface's names and the limits."""
    limits = row["limits"]
    magic = ", ".join(f"0x{byte:02x}" for byte in bytes.fromhex(row["magic"]))
    task = row["task_name"]
    lines = [
        "// The numbers of the row format, the names of the frozen model's interface, and the limits of what is read:",
        "// docs/bias_row.md and docs/files.md. spec/generate.py makes this file from the two TOML files in spec/.",
        "",
        f"export const MAGIC = [{magic}];",
        f"export const FORMAT_VERSION = {row['version']};",
        f"export const HEADER_SIZE = {row['header_size']};",
        f"export const MAX_ROW_SIZE = {limits['file_size']};",
        f"export const MAX_LABELS = {limits['labels']};",
        f"export const MAX_HEAD_TENSORS = {limits['head_tensors']};",
        f"export const MAX_HEAD_RANK = {limits['head_rank']};",
        f"export const TASK_NAME = /^[{task['first']}][{task['others']}]{{0,{limits['task_name'] - 1}}}$/;",
        "",
        "// Where each field of the header is.",
        *_ts_object("AT", {field["name"]: field["offset"] for field in row["fields"]}),
        "// How many bytes each of those has.",
        *_ts_object("SIZE_OF", {field["name"]: field["size"] for field in row["fields"]}),
        "// The types of all values of a row, by ONNX's code: the size of a value in bytes.",
        *_ts_object(
            "DTYPE_SIZES", {each["code"]: each["size"] for each in row["dtypes"]}, "Readonly<Record<number, number>>"
        ),
        *_ts_object("PROBLEM_CODES", {each["name"]: each["code"] for each in row["problem_types"]}),
        "export type ProblemType = keyof typeof PROBLEM_CODES;",
        "// The number of labels that every task of a type has.",
        *_ts_object(
            "FIXED_LABEL_COUNTS",
            {each["name"]: each["labels"] for each in row["problem_types"] if "labels" in each},
            "Readonly<Partial<Record<ProblemType, number>>>",
        ),
        "// Why a row is refused, in the order in which a reader looks for it.",
        *_ts_object("ROW_FAULTS", {fault["name"]: fault["text"] for fault in row["faults"]}),
        "export type RowFault = keyof typeof ROW_FAULTS;",
    ]
    for key, block in names.items():
        if key == "limits":
            continue
        lines += ["", *textwrap.wrap(block["note"], WIDTH, initial_indent="// ", subsequent_indent="// ")]
        for name, value in block.items():
            if name != "note":
                lines += _ts_constant(name, value)
    lines += ["", "// Sizes are in bytes."]
    lines += [f"export const {each['name']} = {each['number']};" for each in names["limits"]]
    return "\n".join([*lines, ""])


def _ts_constant(name: str, value: object) -> list[str]:
    if isinstance(value, list):
        return [f"export const {name} = [{', '.join(map(_python_value, value))}] as const;"]
    return [f"export const {name} = {_python_value(value)};"]


def _ts_object(name: str, members: dict[Any, Any], kind: str = "") -> list[str]:
    opening = f"export const {name}{f': {kind}' if kind else ''} = {{"
    values = [f"{key}: {_python_value(value)}" for key, value in members.items()]
    ending = "}" + ("" if kind else " as const") + ";"
    line = f"{opening} {', '.join(values)} {ending}"
    return [line] if len(line) <= WIDTH else [opening, *(f"  {value}," for value in values), ending]


# Documents.


def fields_table(row: Spec) -> str:
    """Returns the table of the header's fields."""
    fields = [
        [number, field["offset"], field["size"], _document_type(row, field), field["text"], field["value"]]
        for number, field in enumerate(row["fields"], start=1)
    ]
    payload = "payload: N bias values, then the head tensors in order"
    fields.append([len(fields) + 1, row["header_size"], "", "values", payload, "finite numbers"])
    return _table(["no.", "offset", "size", "type", "field", "value"], fields)


def _document_type(row: Spec, field: Spec) -> str:
    return f"{row['limits']['head_tensors']} slots" if field["type"] == "slots" else field["type"]


def faults_table(row: Spec) -> str:
    """Returns the table of the checks, in order."""
    faults = [[number, f"`{each['name']}`", each["when"]] for number, each in enumerate(row["faults"], start=1)]
    return _table(["no.", "fault", "refused when"], faults)


def limits_table(row: Spec, names: Spec) -> str:
    """Returns the table of all limits."""
    words = _words_of(row)
    limits: list[list[Any]] = [["labels of a task", words["labels"]], ["a row", f"{words['file_size']} bytes (1 GiB)"]]
    limits += [[limit["text"], limit["value"]] for limit in names["limits"] if "text" in limit]
    return _table(["what", "at most"], limits)


def _table(head: list[str], lines: list[list[Any]]) -> str:
    texts = [head, ["---"] * len(head), *([str(cell) for cell in line] for line in lines)]
    return "".join(re.sub(r"\|  \|", "| |", f"| {' | '.join(cells)} |") + "\n" for cells in texts)


# Files.


def generated() -> dict[str, str]:
    """Returns the text of every file that has something generated, by its path in the repository."""
    row, names = read_spec("row.toml"), read_spec("names.toml")
    whole = {
        "bitfit_export/bundle/row_format.py": row_format_python(row),
        "bitfit_export/bundle/limits.py": limits_python(names),
        "runtimes/cpp/include/bitfit/row_format.h": row_format_header(row),
        "runtimes/cpp/src/names.h": names_header(names),
        "runtimes/web/src/spec.ts": spec_typescript(row, names),
    }
    parts: dict[str, dict[str, Callable[[], str]]] = {
        "bitfit_export/errors.py": {"faults": lambda: faults_python(row)},
        "bitfit_export/bundle/interface.py": {"names": lambda: interface_python(names)},
        "docs/bias_row.md": {"fields": lambda: fields_table(row), "checks": lambda: faults_table(row)},
        "docs/files.md": {"limits": lambda: limits_table(row, names)},
    }
    for path, makers in parts.items():
        text = (ROOT / path).read_text(encoding="utf-8")
        for name, make in makers.items():
            text = _replaced(text, name, make(), path)
        whole[path] = text
    return whole


def _replaced(text: str, name: str, part: str, path: str) -> str:
    """Returns the text with `part` between the two lines that mark where it stands."""
    mark = rf"[^\n]*\b%s: {name}, by spec/generate\.py[^\n]*\n"
    pattern = re.compile(rf"({mark % 'begin'}).*?({mark % 'end'})", re.DOTALL)
    blank = "\n" if path.endswith(".md") else ""
    found, count = pattern.subn(lambda match: f"{match[1]}{blank}{part}{blank}{match[2]}", text)
    if count != 1:
        raise ValueError(f"{path} has {count} places for the part {name}, expected one")
    return found


def stale_files() -> dict[str, str]:
    """Returns the files that differ from what is generated, with their new text."""
    return {
        path: text
        for path, text in generated().items()
        if not (ROOT / path).exists() or (ROOT / path).read_text(encoding="utf-8") != text
    }


def main(words: list[str]) -> int:
    """Writes what is stale, or says what is. Returns the exit status."""
    stale = stale_files()
    for path, text in stale.items():
        if words != ["--check"]:
            (ROOT / path).write_text(text, encoding="utf-8")
        print(f"{path} {'is stale, run: make generate' if words == ['--check'] else 'written'}")
    return 1 if stale and words == ["--check"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
