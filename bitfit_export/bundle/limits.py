"""The limits of what a reader takes from outside: `docs/files.md`. Sizes are in bytes.

spec/generate.py makes this module from spec/names.toml.
"""

MAX_MANIFEST_SIZE = 16777216
MAX_TOKENIZER_SIZE = 134217728
MAX_MODEL_SIZE = 2147483647
MAX_LINE_SIZE = 16777216
MAX_JSON_DEPTH = 64
MAX_DIMENSIONS = 8
MAX_NAME_BYTES = 1024
