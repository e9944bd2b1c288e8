"""The tokenizer that a checkpoint brings must give every text the ids of the base model's, whichever files it is in."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers", reason="needs bitfit-export[export]")

import transformers
from tokenizers import Tokenizer, pre_tokenizers

from bitfit_export.base_model.loading import BaseModel, load_base_model
from bitfit_export.base_model.tokenizers import read_tokenizer
from bitfit_export.errors import DeltaError
from bitfit_export.interop.importing import import_task
from bitfit_export.interop.reading import Checkpoint
from bitfit_export.interop.same_tokenizer import check_tokenizer, tokenizer_parts
from tests.conftest import real_data
from tests.interop.conftest import fine_tuned, saved

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("the", "The", "soup", "was", "cold", "Über", "uber", "##s", "##old", "c", "[unused1]", "中", ",", "x")
SIZE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 32,
}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


def write_vocabulary(folder: Path, words: tuple[str, ...] = SPECIAL + WORDS, **settings: Any) -> Path:
    """The files that BERT's tokenizer had before there was tokenizer.json."""
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    if settings:
        write_json(folder / "tokenizer_config.json", settings)
    return folder


def save_base(folder: Path, config: Any) -> BaseModel:
    model = transformers.AutoModel.from_config(config)
    model.save_pretrained(folder)
    return load_base_model(str(folder))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    """An uncased BERT of a few words."""
    folder = write_vocabulary(tmp_path_factory.mktemp("bases") / "uncased")
    return save_base(folder, transformers.BertConfig(vocab_size=len(SPECIAL + WORDS), **SIZE))


@pytest.fixture(scope="module")
def cased(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    folder = write_vocabulary(tmp_path_factory.mktemp("bases") / "cased", do_lower_case=False)
    return save_base(folder, transformers.BertConfig(vocab_size=len(SPECIAL + WORDS), **SIZE))


ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
MERGES = [("s", "o"), ("so", "u"), ("Ġ", "c"), ("Ġc", "o")]
BYTE_WORDS = ("<s>", "<pad>", "</s>", "<unk>", *ALPHABET, *(left + right for left, right in MERGES), "<mask>")


def write_byte_level(folder: Path, merges: list[tuple[str, str]] = MERGES, **settings: Any) -> Path:
    """The files that RoBERTa's tokenizer had before there was tokenizer.json."""
    folder.mkdir(exist_ok=True)
    write_json(folder / "vocab.json", {word: number for number, word in enumerate(BYTE_WORDS)})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    write_json(folder / "tokenizer_config.json", settings)
    return folder


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    folder = write_byte_level(tmp_path_factory.mktemp("bases") / "roberta")
    config = transformers.RobertaConfig(vocab_size=len(BYTE_WORDS), type_vocab_size=1, pad_token_id=1, **SIZE)
    return save_base(folder, config)


def check(base: BaseModel, folder: Path) -> None:
    check_tokenizer(base, Checkpoint(folder, base.module, "float32"))


def ids(tokenizer: Any, text: str) -> Any:
    return tokenizer(text)["input_ids"]


# What has the base model's own.


def test_a_checkpoint_without_a_tokenizer_was_trained_with_the_base_models(base: BaseModel, tmp_path: Path) -> None:
    check(base, tmp_path)


def test_the_base_models_own_files_are_accepted_in_every_form(
    base: BaseModel, cased: BaseModel, roberta: BaseModel, tmp_path: Path
) -> None:
    check(base, write_vocabulary(tmp_path / "old"))
    check(cased, write_vocabulary(tmp_path / "cased", do_lower_case=False))
    check(roberta, write_byte_level(tmp_path / "bytes"))
    for each in (base, cased, roberta):
        folder = tmp_path / f"new-{each.source.name}"
        each.tokenizer.save_pretrained(folder)
        assert (folder / "tokenizer.json").is_file()
        check(each, folder)


# What reads text otherwise: the part that differs is named, and the first difference in it.

LATER = (*SPECIAL, *WORDS[1:], WORDS[0])
WORD_ON_UNUSED = (*SPECIAL, *(word.replace("[unused1]", "bisque") for word in WORDS))
OTHER_VOCABULARIES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a cased one": (lambda path: write_vocabulary(path, do_lower_case=False), "normaliser: 'lowercase' is False"),
    "accents stay": (lambda path: write_vocabulary(path, strip_accents=False), "normaliser: 'strip_accents' is False"),
    "Chinese is not split": (
        lambda path: write_vocabulary(path, tokenize_chinese_chars=False),
        "normaliser: 'handle_chinese_chars' is False, expected True",
    ),
    "words in another order": (lambda path: write_vocabulary(path, LATER), "vocabulary: 'the' is 18, expected 5"),
    "a word of the domain on an unused id": (
        lambda path: write_vocabulary(path, WORD_ON_UNUSED),
        r"vocabulary: only the base model's has '\[unused1\]'",
    ),
    "one word more": (
        lambda path: write_vocabulary(path, (*SPECIAL, *WORDS, "bisque")),
        "vocabulary: only this one has 'bisque'",
    ),
    "an added token": (
        lambda path: write_vocabulary(path, additional_special_tokens=["<user>"]),
        "added and special tokens: only this one has '<user>'",
    ),
    "another mask token": (
        lambda path: write_vocabulary(path, mask_token="soup"),
        r"added and special tokens: only the base model's has '\[MASK\]'",
    ),
    "another separator": (lambda path: write_vocabulary(path, sep_token="[PAD]"), "post-processor: "),
    "no token types": (
        lambda path: write_vocabulary(path, model_input_names=["input_ids", "attention_mask"]),
        "inputs of the model: only the base model's has 'token_type_ids'",
    ),
    "special tokens that are split": (
        lambda path: write_vocabulary(path, split_special_tokens=True),
        "splitting of special tokens: is True, expected False",
    ),
}


@pytest.mark.parametrize("name", OTHER_VOCABULARIES)
def test_a_vocabulary_that_reads_text_otherwise_is_refused(base: BaseModel, tmp_path: Path, name: str) -> None:
    write, message = OTHER_VOCABULARIES[name]
    folder = write(tmp_path / "tuned")
    with pytest.raises(DeltaError, match=rf"differs from uncased's in its .*{message}") as caught:
        check(base, folder)
    assert "hint: name the base model that it was fine-tuned from; if the base model's tokenizer" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


def test_all_parts_that_differ_are_named(base: BaseModel, tmp_path: Path) -> None:
    write_vocabulary(tmp_path, LATER, do_lower_case=False)
    with pytest.raises(DeltaError, match="in its vocabulary, normaliser: 'the' is 18, expected 5"):
        check(base, tmp_path)


def test_a_bare_vocabulary_is_uncased_to_transformers_and_so_not_a_cased_models(
    cased: BaseModel, tmp_path: Path
) -> None:
    with pytest.raises(DeltaError, match="normaliser: 'lowercase' is True, expected False"):
        check(cased, write_vocabulary(tmp_path / "tuned"))


def test_byte_level_files_that_read_text_otherwise_are_refused(roberta: BaseModel, tmp_path: Path) -> None:
    with pytest.raises(DeltaError, match="in its pre-tokeniser: 'add_prefix_space' is True, expected False"):
        check(roberta, write_byte_level(tmp_path / "spaces", add_prefix_space=True))
    with pytest.raises(DeltaError, match=r"in its merges: 2: 0: is 'Ġc', expected 'Ġ'|in its merges: "):
        check(roberta, write_byte_level(tmp_path / "merges", [*MERGES[:1], *MERGES[2:], MERGES[1]]))


def test_an_import_compares_the_tokenizer(base: BaseModel, tmp_path: Path) -> None:
    saved(fine_tuned(base, "BertForSequenceClassification"), tmp_path)
    import_task(base, write_vocabulary(tmp_path), "mine")
    write_vocabulary(tmp_path, do_lower_case=False)
    with pytest.raises(DeltaError, match="in its normaliser"):
        import_task(base, tmp_path, "mine")


def edited(base: BaseModel, folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """The base's tokenizer.json with a change, in a folder that says to take it as it is."""
    spec = json.loads(base.tokenizer.backend_tokenizer.to_str())
    edit(spec)
    Tokenizer.from_str(json.dumps(spec))  # it is one
    folder.mkdir(exist_ok=True)
    write_json(folder / "tokenizer.json", spec)
    names = {"unk_token": "[UNK]", "sep_token": "[SEP]", "cls_token": "[CLS]", "pad_token": "[PAD]"}
    names |= {"mask_token": "[MASK]"}
    if "<s>" in spec["model"]["vocab"]:
        names = {"unk_token": "<unk>", "sep_token": "</s>", "cls_token": "<s>", "pad_token": "<pad>"}
        names |= {"mask_token": "<mask>", "bos_token": "<s>", "eos_token": "</s>"}
    settings = {"tokenizer_class": "TokenizersBackend", "model_input_names": base.tokenizer.model_input_names}
    write_json(folder / "tokenizer_config.json", names | settings)
    return folder


OTHER_SETTINGS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "longest word": (
        lambda spec: spec["model"].update(max_input_chars_per_word=4),
        "model settings: 'max_input_chars_per_word' is 4, expected 100",
    ),
    "prefix": (lambda spec: spec["model"].update(continuing_subword_prefix="@@"), "model settings: 'continuing"),
    "pre-tokeniser": (lambda spec: spec.update(pre_tokenizer={"type": "Whitespace"}), "pre-tokeniser: 'type' is 'Wh"),
    "no post-processor": (lambda spec: spec.update(post_processor=None), "post-processor"),
    "type of the second text": (
        lambda spec: spec["post_processor"]["pair"][3]["Sequence"].update(type_id=0),
        "post-processor: 'pair': 3: 'Sequence': 'type_id' is 0, expected 1",
    ),
    "a special token in a word": (
        lambda spec: spec["added_tokens"][4].update(lstrip=True),
        r"added and special tokens: '\[MASK\]': 'lstrip' is True, expected False",
    ),
    "where a special token is looked for": (
        lambda spec: spec["added_tokens"][4].update(normalized=True),
        r"added and special tokens: '\[MASK\]': 'normalized' is True, expected False",
    ),
}


@pytest.mark.parametrize("name", OTHER_SETTINGS)
def test_a_tokenizer_json_with_another_setting_is_refused(base: BaseModel, tmp_path: Path, name: str) -> None:
    edit, message = OTHER_SETTINGS[name]
    with pytest.raises(DeltaError, match=message):
        check(base, edited(base, tmp_path, edit))


# What may differ.

TEXTS = ("The soup was cold", "[MASK] soup[SEP] Über", "<mask> so <s>u</s> <pad>", " cold  soup  <mask>", "中x, y")


def random_texts(pieces: tuple[str, ...], number: int) -> list[str]:
    draw = random.Random(1)
    return ["".join(draw.choices(pieces, k=draw.randint(0, 9))) for _ in range(number)]


def looser(spec: dict[str, Any]) -> None:
    """Every difference that may be."""
    spec["truncation"] = {"max_length": 8, "stride": 0, "strategy": "LongestFirst", "direction": "Left"}
    spec["padding"] = {
        "strategy": "BatchLongest",
        "direction": "Left",
        "pad_to_multiple_of": 8,
        "pad_id": 1,
        "pad_type_id": 0,
        "pad_token": "x",
    }
    spec["decoder"] = None
    for part in ("pre_tokenizer", "post_processor"):
        for name in {"trim_offsets"} & spec[part].keys():
            spec[part][name] = not spec[part][name]
    if spec["post_processor"]["type"] == "RobertaProcessing":
        spec["post_processor"]["add_prefix_space"] = not spec["post_processor"]["add_prefix_space"]
    if spec["normalizer"] is None:
        for token in spec["added_tokens"][::2]:
            token["normalized"] = not token["normalized"]


@pytest.mark.parametrize("name", ["base", "roberta"])
def test_what_may_differ_changes_the_ids_of_no_text(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    each: BaseModel = request.getfixturevalue(name)
    folder = edited(each, tmp_path, looser)
    check(each, folder)
    theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert theirs.truncation is not None
    theirs.no_truncation()
    theirs.no_padding()
    ours = each.tokenizer.backend_tokenizer
    tokens = [*theirs.get_added_tokens_decoder().values()]
    pieces = (*(token.content for token in tokens), "so", "u", " ", "  ", "<", ">", "s", "[", "]", "The", "ü", "\n")
    for text in [*TEXTS, *random_texts(pieces, 2000)]:
        for one, other in (
            (ours.encode(text), theirs.encode(text)),
            (ours.encode(text, "so"), theirs.encode(text, "so")),
        ):
            assert (one.ids, one.type_ids) == (other.ids, other.type_ids), text


def byte_level(folder: Path, tokens: list[dict[str, Any]]) -> Any:
    """RoBERTa's tokenizer with more added tokens."""
    write_byte_level(folder)
    spec = json.loads(read_tokenizer(str(folder), config=transformers.RobertaConfig()).backend_tokenizer.to_str())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    added = [plain | token | {"id": len(BYTE_WORDS) + number} for number, token in enumerate(tokens)]
    spec["added_tokens"] += added
    return transformers.PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(spec)))


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ("<a>b", "b<c>", "<a>b<c>"),  # they overlap
        ("<ab>", "ab", "x<ab>"),  # one is in the other
        ("a ", " b", "a b"),
    ],
)
def test_where_tokens_meet_it_matters_which_is_looked_for_first(
    roberta: BaseModel, tmp_path: Path, first: str, second: str, text: str
) -> None:
    one = byte_level(tmp_path, [{"content": first}, {"content": second, "normalized": True}])
    other = byte_level(tmp_path, [{"content": first, "normalized": True}, {"content": second}])
    assert ids(one, text) != ids(other, text)
    assert tokenizer_parts(one, roberta) != tokenizer_parts(other, roberta)


def test_where_no_tokens_meet_it_does_not(roberta: BaseModel, tmp_path: Path) -> None:
    one = byte_level(tmp_path, [{"content": "<a>"}, {"content": "<c>", "normalized": True}])
    other = byte_level(tmp_path, [{"content": "<a>", "normalized": True}, {"content": "<c>"}])
    for text in random_texts(("<a>", "<c>", "<s>", "<", "a", ">", " "), 500):
        assert ids(one, text) == ids(other, text)
    assert tokenizer_parts(one, roberta) == tokenizer_parts(other, roberta)


# What cannot be compared.


def test_settings_without_a_vocabulary_are_refused(base: BaseModel, tmp_path: Path) -> None:
    write_json(tmp_path / "tokenizer_config.json", {"do_lower_case": False})
    with pytest.raises(DeltaError, match="has settings of a tokenizer, but no vocabulary") as caught:
        check(base, tmp_path)
    assert "remove the tokenizer's files from" in str(caught.value)


@pytest.mark.parametrize("name", ["tokenizer.json", "sentencepiece.bpe.model", "spiece.model", "vocab.json"])
def test_files_that_are_no_tokenizer_are_one_clear_error(
    base: BaseModel, roberta: BaseModel, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"\x0a\x05\xff")
    for each in (base, roberta):
        with pytest.raises(DeltaError, match=r"the tokenizer in .* (cannot be loaded|differs)") as caught:
            check(each, tmp_path)
        assert len(str(caught.value).splitlines()) == 2


def test_a_tokenizer_that_stops_its_library_is_one_clear_error(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PanicException(BaseException):  # as that of the library, which cannot be imported
        pass

    def stop(*words: object, **options: object) -> None:
        raise PanicException("index out of bounds")

    write_vocabulary(tmp_path)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", stop)
    with pytest.raises(
        DeltaError, match="cannot be loaded: its files stop the tokenizers library: index out of bounds"
    ):
        check(base, tmp_path)


def test_code_that_a_tokenizer_brings_is_not_run(
    base: BaseModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where somebody answers transformers' question."""
    monkeypatch.setattr("builtins.input", lambda *words: "y")
    saved(fine_tuned(base, "BertForSequenceClassification"), tmp_path)
    write_vocabulary(tmp_path, tokenizer_class="Mine", auto_map={"AutoTokenizer": ["mine.Mine", None]})
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with contextlib.suppress(DeltaError):
        import_task(base, tmp_path, "mine")
    assert not (tmp_path / "ran").exists()


# Real tokenizers.


@pytest.mark.data
def test_the_old_files_of_real_tokenizers(tmp_path: Path) -> None:
    folder = real_data("tokenizers") / "tokenizers"
    bert, roberta = folder / "bert-base-uncased", folder / "roberta-base"

    def old_files(source: Path, target: Path, **settings: Any) -> Path:
        target.mkdir()
        for path in source.iterdir():
            if path.name in ("vocab.txt", "vocab.json", "merges.txt", "special_tokens_map.json"):
                shutil.copy(path, target)
        write_json(target / "tokenizer_config.json", settings)
        return target

    for source, config, change in (
        (bert, transformers.BertConfig(vocab_size=30522, **SIZE), {"do_lower_case": False}),
        (roberta, transformers.RobertaConfig(vocab_size=50265, **SIZE), {"add_prefix_space": True}),
    ):
        home = tmp_path / source.name
        read_tokenizer(str(source)).save_pretrained(home)
        base = save_base(home, config)
        check(base, old_files(source, tmp_path / f"{source.name}-old"))
        with pytest.raises(DeltaError, match=rf"differs from {source.name}'s in its (normaliser|pre-tokeniser)"):
            check(base, old_files(source, tmp_path / f"{source.name}-other", **change))
