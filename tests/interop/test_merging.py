"""A delta merged into its base is a checkpoint with the same logits; read back, that is the delta again."""

from __future__ import annotations

import copy
import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs bitfit-export[export]")

import transformers

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import BaseMismatchError, DeltaError, OutputError
from bitfit_export.interop.importing import import_task
from bitfit_export.interop.merging import merge_task
from tests.conftest import random_delta
from tests.interop.conftest import assert_same_logits, base_of, delta_logits, own_logits

#: Family, problem type, labels, pooling, activation, the class that transformers loads it with.
MERGES: list[tuple[str, str, tuple[str, ...], str, str | None, str]] = [
    ("bert", "single_label", ("ham", "spam"), "pooler", None, "SequenceClassification"),
    ("bert", "multi_label", ("red", "round", "ripe"), "pooler", None, "SequenceClassification"),
    ("bert", "regression", (), "pooler", None, "SequenceClassification"),
    ("bert", "token", ("O", "B-PER", "I-PER"), "tokens", None, "TokenClassification"),
    ("bert", "span", ("start", "end"), "tokens", None, "QuestionAnswering"),
    ("albert", "single_label", ("a", "b", "c"), "pooler", None, "SequenceClassification"),
    ("roberta", "single_label", ("a", "b", "c"), "cls", "tanh", "SequenceClassification"),
    ("roberta", "token", ("a", "b", "c"), "tokens", None, "TokenClassification"),
    ("mpnet", "regression", (), "cls", "tanh", "SequenceClassification"),
    ("electra", "single_label", ("a", "b"), "cls", "gelu", "SequenceClassification"),
    ("distilbert", "single_label", ("a", "b"), "cls", "relu", "SequenceClassification"),
    ("distilbert", "span", ("start", "end"), "tokens", None, "QuestionAnswering"),
    ("deberta", "single_label", ("a", "b"), "cls", "gelu", "SequenceClassification"),
    ("deberta-v2/v3", "single_label", ("a", "b"), "cls", "gelu", "SequenceClassification"),
    ("vit", "single_label", ("cat", "dog"), "cls", None, "ImageClassification"),
]


def delta_for(base: BaseModel, problem_type: str, labels: tuple[str, ...], **settings: Any) -> TaskDelta:
    return random_delta(base, "mine", problem_type=problem_type, labels=labels, **settings)


def load(folder: Path, kind: str) -> Any:
    loader = getattr(transformers, f"AutoModelFor{kind}")
    model, info = loader.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.eval()


@pytest.mark.parametrize(("family", "problem_type", "labels", "pooling", "activation", "kind"), MERGES)
def test_transformers_loads_what_is_merged_with_the_same_logits(
    tmp_path: Path,
    family: str,
    problem_type: str,
    labels: tuple[str, ...],
    pooling: str,
    activation: str | None,
    kind: str,
) -> None:
    base = base_of(family)
    delta = delta_for(base, problem_type, labels, pooling=pooling, activation=activation, max_length=8)
    merge_task(base, delta, tmp_path / "merged")
    model = load(tmp_path / "merged", kind)
    if problem_type not in ("regression", "span"):
        assert model.config.id2label == dict(enumerate(labels))
    assert_same_logits(own_logits(model, base), delta_logits(base, delta), base, tokens=pooling == "tokens")


def smallest_steps(values: np.ndarray) -> np.ndarray:
    """The distance to the next float32."""
    return np.spacing(np.abs(values).astype(np.float32))


@pytest.mark.parametrize(("family", "problem_type", "labels", "pooling", "activation", "kind"), MERGES)
def test_what_is_merged_and_read_back_is_the_delta(
    tmp_path: Path,
    family: str,
    problem_type: str,
    labels: tuple[str, ...],
    pooling: str,
    activation: str | None,
    kind: str,
) -> None:
    """The head and all settings come back exactly. A bias difference d comes back as (b + d) - b: float32 rounds
    twice, by at most half a step of b + d and half a step of the result. A pooler that the head does not read is in
    no checkpoint, so its bias does not come back."""
    base = base_of(family)
    delta = delta_for(base, problem_type, labels, pooling=pooling, activation=activation)
    merge_task(base, delta, tmp_path / "merged")
    again = import_task(base, tmp_path / "merged", "mine")
    read = {name: value for name, value in delta.biases.items() if pooling == "pooler" or "pooler" not in name}
    assert again.config.bias_terms == tuple(read)
    for name in ("problem_type", "pooling", "activation", "labels", "base_digest"):
        assert getattr(again.config, name) == getattr(delta.config, name)
    for name, value in delta.head.items():
        np.testing.assert_array_equal(again.head[name], value)
    for name, value in read.items():
        bound = (smallest_steps(base.biases[name] + value) + smallest_steps(again.biases[name])) / 2
        assert (np.abs(again.biases[name] - value) <= bound).all()


def test_the_checkpoint_has_the_sum_in_float32_and_every_weight_to_the_bit(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    base = base_of("bert")
    delta = delta_for(base, "single_label", ("a", "b"))
    merge_task(base, delta, tmp_path / "merged")
    tensors = load_file(tmp_path / "merged/model.safetensors")
    for name, value in base.module.state_dict().items():
        expected = value.numpy() + delta.biases[name] if name in delta.biases else value.numpy()
        assert tensors[f"bert.{name}"].tobytes() == expected.tobytes()


def test_the_tokenizer_comes_along(tmp_path: Path) -> None:
    base = base_of("bert")
    merge_task(base, delta_for(base, "single_label", ("a", "b")), tmp_path / "merged")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert tokenizer("a funny film")["input_ids"] == base.tokenizer("a funny film")["input_ids"]


def test_gpt2_has_no_bias_on_its_head_so_one_that_is_not_zero_cannot_be_merged(tmp_path: Path) -> None:
    base = base_of("gpt2")
    delta = delta_for(base, "single_label", ("a", "b"), pooling="last")
    with pytest.raises(DeltaError, match=r"GPT2ForSequenceClassification has no classifier\.bias"):
        merge_task(base, delta, tmp_path / "merged")
    zeros = {"classifier.bias": np.zeros(2, np.float32)}
    delta = dataclasses.replace(delta, head={**delta.head, **zeros})
    merge_task(base, delta, tmp_path / "merged")
    assert_same_logits(
        own_logits(load(tmp_path / "merged", "SequenceClassification"), base), delta_logits(base, delta), base
    )


def test_a_decoder_that_names_no_padding_can_be_run_in_batches(tmp_path: Path) -> None:
    """As the real GPT-2: what its class reads is the last token before the padding."""
    base = base_of("gpt2")
    module = copy.deepcopy(base.module)
    module.config.pad_token_id = None
    base = dataclasses.replace(base, module=module)
    delta = delta_for(base, "single_label", ("a", "b"), pooling="last")
    delta = dataclasses.replace(delta, head={**delta.head, "classifier.bias": np.zeros(2, np.float32)})
    merge_task(base, delta, tmp_path / "merged")
    model = load(tmp_path / "merged", "SequenceClassification")
    assert model.config.pad_token_id == base.tokenizer.pad_token_id
    assert_same_logits(own_logits(model, base), delta_logits(base, delta), base)


def test_biases_that_the_architecture_does_not_have_cannot_be_merged(tmp_path: Path) -> None:
    """DeBERTa's `in_proj` has none; `add_biases` gives it one, which transformers' class does not know."""
    from bitfit_export.base_model.loading import load_base_model

    base = load_base_model(base_of("deberta").source.location, add_biases=True)
    added = base.added_biases[0]
    delta = delta_for(base, "single_label", ("a", "b"), pooling="cls", activation="gelu")
    with pytest.raises(DeltaError, match=f"DebertaForSequenceClassification has no {added}"):
        merge_task(base, delta, tmp_path / "merged")
    own = {name: value for name, value in delta.biases.items() if name not in base.added_biases}
    delta = TaskDelta(dataclasses.replace(delta.config, bias_terms=tuple(own)), own, delta.head)
    merge_task(base, delta, tmp_path / "merged")
    again = import_task(base, tmp_path / "merged", "mine")
    assert again.config.bias_terms == tuple(own)
    assert_same_logits(delta_logits(base, again), delta_logits(base, delta), base)


@pytest.mark.parametrize(
    ("family", "pooling", "activation", "message"),
    [
        (
            "bert",
            "mean",
            None,
            "pooling mean and one linear layer, but BertForSequenceClassification has pooling pooler",
        ),
        ("bert", "cls", "tanh", "pooling cls and a dense layer with tanh, but Bert"),
        (
            "roberta",
            "cls",
            None,
            "pooling cls and one linear layer, but RobertaForSequenceClassification has pooling cls",
        ),
        ("electra", "cls", "tanh", "dense layer with tanh, but .* a dense layer with gelu"),
    ],
)
def test_a_head_that_transformers_class_does_not_have_is_refused_with_the_reason(
    tmp_path: Path, family: str, pooling: str, activation: str | None, message: str
) -> None:
    base = base_of(family)
    delta = delta_for(base, "single_label", ("a", "b"), pooling=pooling, activation=activation)
    with pytest.raises(DeltaError, match=message):
        merge_task(base, delta, tmp_path / "merged")
    assert os.listdir(tmp_path) == []


def test_a_dense_layer_of_another_size_is_refused(tmp_path: Path) -> None:
    base = base_of("roberta")
    delta = delta_for(base, "single_label", ("a", "b"), pooling="cls", activation="tanh", inner=7)
    with pytest.raises(DeltaError, match=r"has shape \(7, 32\)|has shape \(2, 7\)|has shape \(7,\)"):
        merge_task(base, delta, tmp_path / "merged")


def test_a_delta_of_another_base_is_refused(tmp_path: Path) -> None:
    base = base_of("bert")
    delta = delta_for(base_of("bert", seed=1), "single_label", ("a", "b"))
    with pytest.raises(BaseMismatchError, match="was trained on tiny-bert with digest"):
        merge_task(base, delta, tmp_path / "merged")


def test_an_existing_folder_is_replaced_only_when_asked_for(tmp_path: Path) -> None:
    base = base_of("bert")
    delta = delta_for(base, "single_label", ("a", "b"))
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged/config.json").write_text("x")
    for overwrite, message in ((False, "exists already"), (True, "is not a merged checkpoint")):
        with pytest.raises(OutputError, match=message):
            merge_task(base, delta, tmp_path / "merged", overwrite=overwrite)
    assert (tmp_path / "merged/config.json").read_text() == "x"
    shutil.rmtree(tmp_path / "merged")
    merge_task(base, delta, tmp_path / "merged")
    merge_task(base, delta, tmp_path / "merged", overwrite=True)
    assert load(tmp_path / "merged", "SequenceClassification").config.num_labels == 2


def test_the_base_model_is_left_as_it_was(tmp_path: Path) -> None:
    from bitfit_export.base_model.loading import state_digest

    base = base_of("bert")
    merge_task(base, delta_for(base, "single_label", ("a", "b")), tmp_path / "merged")
    assert state_digest(base.module.state_dict()) == base.digest
    assert base.module.config.num_labels == transformers.BertConfig().num_labels


@pytest.mark.slow
def test_a_shipped_delta_of_a_real_model_goes_to_transformers_and_back(tmp_path: Path, minilm_folder: Path) -> None:
    from bitfit_export.base_model.loading import load_base_model
    from bitfit_export.interop.delta_lookup import SHIPPED
    from bitfit_export.reference.task_model import merged_model, predict_logits
    from bitfit_export.verification.samples import SAMPLE_TEXTS

    base = load_base_model("minilm-l6")
    delta = TaskDelta.load(SHIPPED / "minilm-l6/rte")
    merge_task(base, delta, tmp_path / "merged")
    model = load(tmp_path / "merged", "SequenceClassification")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "merged")
    pairs = [text for text in SAMPLE_TEXTS if len(text) == 2]
    expected = np.concatenate(
        [model(**tokenizer(*pair, return_tensors="pt")).logits.detach().numpy() for pair in pairs]
    )
    found = predict_logits(merged_model(base, delta), base.tokenizer, pairs, max_length=128)
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)
    again = import_task(base, tmp_path / "merged", "rte")
    assert again.config.bias_terms == delta.config.bias_terms
    assert again.config.labels == delta.config.labels
    for name, value in delta.biases.items():
        bound = (smallest_steps(base.biases[name] + value) + smallest_steps(again.biases[name])) / 2
        assert (np.abs(again.biases[name] - value) <= bound).all()
