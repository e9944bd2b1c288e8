"""A fine-tuned checkpoint becomes a delta with the checkpoint's logits, or is refused with what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs bitfit-export[export]")

import torch

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import TaskDelta
from bitfit_export.interop.importing import import_task, task_of_checkpoint
from bitfit_export.interop.reading import read_checkpoint
from tests.interop.conftest import (
    BERT,
    SMALL,
    assert_same_logits,
    base_of,
    bert,
    delta_logits,
    edit_config,
    edit_tensors,
    fine_tuned,
    new_classifier,
    own_logits,
    saved,
)

#: Family, its sentence class, and what the head is in a delta's words.
SENTENCE_HEADS = [
    ("bert", "BertForSequenceClassification", "pooler", None),
    ("albert", "AlbertForSequenceClassification", "pooler", None),
    ("roberta", "RobertaForSequenceClassification", "cls", "tanh"),
    ("xlm-roberta", "XLMRobertaForSequenceClassification", "cls", "tanh"),
    ("camembert", "CamembertForSequenceClassification", "cls", "tanh"),
    ("mpnet", "MPNetForSequenceClassification", "cls", "tanh"),
    ("electra", "ElectraForSequenceClassification", "cls", "gelu"),
    ("distilbert", "DistilBertForSequenceClassification", "cls", "relu"),
    ("deberta", "DebertaForSequenceClassification", "cls", "gelu"),
    ("deberta-v2", "DebertaV2ForSequenceClassification", "cls", "gelu"),
    ("deberta-v2/v3", "DebertaV2ForSequenceClassification", "cls", "gelu"),
    ("gpt2", "GPT2ForSequenceClassification", "last", None),
    ("vit", "ViTForImageClassification", "cls", None),
    ("wav2vec2", "Wav2Vec2ForSequenceClassification", "mean", "identity"),
]
#: Families whose token and span classes are checked; their heads are one linear layer in every family.
TOKEN_HEADS = [
    ("bert", "BertForTokenClassification"),
    ("roberta", "RobertaForTokenClassification"),
    ("distilbert", "DistilBertForTokenClassification"),
    ("deberta-v2", "DebertaV2ForTokenClassification"),
    ("albert", "AlbertForQuestionAnswering"),
    ("electra", "ElectraForQuestionAnswering"),
    ("distilbert", "DistilBertForQuestionAnswering"),
]


@pytest.mark.parametrize(("family", "architecture", "pooling", "activation"), SENTENCE_HEADS)
def test_a_sentence_head_of_every_family_gives_the_checkpoints_own_logits(
    tmp_path: Path, family: str, architecture: str, pooling: str, activation: str | None
) -> None:
    base = base_of(family)
    model = fine_tuned(base, architecture, num_labels=3)
    delta = import_task(base, saved(model, tmp_path), "mine")
    assert (delta.config.pooling, delta.config.activation) == (pooling, activation)
    assert_same_logits(delta_logits(base, delta), own_logits(model, base), base)


@pytest.mark.parametrize(("family", "architecture"), TOKEN_HEADS)
def test_token_and_span_heads_give_the_checkpoints_own_logits(tmp_path: Path, family: str, architecture: str) -> None:
    base = base_of(family)
    model = fine_tuned(base, architecture, num_labels=2 if "Question" in architecture else 5)
    delta = import_task(base, saved(model, tmp_path), "mine")
    assert delta.config.problem_type == ("span" if "Question" in architecture else "token")
    assert_same_logits(delta_logits(base, delta), own_logits(model, base), base, tokens=True)


def test_a_delta_says_what_it_is_and_comes_back_from_disk(base: BaseModel, tmp_path: Path) -> None:
    model = bert(id2label={0: "ham", 1: "spam"}, label2id={"ham": 0, "spam": 1})
    delta = import_task(base, saved(model, tmp_path / "checkpoint"), "spam")
    config = delta.config
    assert (config.task, config.method, config.problem_type) == ("spam", "imported", "single_label")
    assert (config.labels, config.base_digest) == (("ham", "spam"), base.digest)
    assert config.bias_terms == tuple(base.biases)
    delta.save(tmp_path / "delta", card="")
    assert TaskDelta.load(tmp_path / "delta").config == config


def test_a_difference_is_the_trained_bias_less_the_base_models(base: BaseModel, tmp_path: Path) -> None:
    model = bert()
    delta = import_task(base, saved(model, tmp_path), "mine")
    name = "encoder.layer.1.intermediate.dense.bias"
    trained = model.state_dict()[f"bert.{name}"].numpy()
    np.testing.assert_array_equal(delta.biases[name], trained - base.biases[name])


def test_bias_terms_that_did_not_change_are_not_in_the_delta(base: BaseModel, tmp_path: Path) -> None:
    model = new_classifier(base, BERT)
    name = "encoder.layer.0.output.dense.bias"
    with torch.no_grad():
        model.get_parameter(f"bert.{name}")[3] += 1e-6
    delta = import_task(base, saved(model, tmp_path), "mine")
    assert delta.config.bias_terms == (name,)
    assert set(delta.biases) == {name}


@pytest.mark.parametrize(
    ("settings", "problem_type", "labels"),
    [
        ({"num_labels": 1}, "regression", ()),
        ({"num_labels": 1, "problem_type": "regression"}, "regression", ()),
        ({"num_labels": 3}, "single_label", ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({"num_labels": 2, "problem_type": "multi_label_classification"}, "multi_label", ("LABEL_0", "LABEL_1")),
        ({"num_labels": 2, "problem_type": "single_label_classification"}, "single_label", ("LABEL_0", "LABEL_1")),
    ],
)
def test_the_problem_type_is_the_configs_or_follows_from_the_number_of_labels(
    base: BaseModel, tmp_path: Path, settings: dict[str, Any], problem_type: str, labels: tuple[str, ...]
) -> None:
    config = import_task(base, saved(bert(**settings), tmp_path), "mine").config
    assert (config.problem_type, config.labels) == (problem_type, labels)


def test_a_checkpoint_in_several_files_is_read(base: BaseModel, tmp_path: Path) -> None:
    model = bert()
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert_same_logits(delta_logits(base, import_task(base, tmp_path, "mine")), own_logits(model, base), base)


def test_a_float32_training_of_a_half_precision_base_is_read(tmp_path: Path) -> None:
    """transformers trains in float32 what it loads from bfloat16; the weights are the same numbers."""
    from bitfit_export.base_model.loading import load_base_model

    whole = base_of("bert")
    half = new_classifier(whole, BERT).bert.to(torch.bfloat16)
    half.save_pretrained(tmp_path / "half")
    whole.tokenizer.save_pretrained(tmp_path / "half")
    base = load_base_model(str(tmp_path / "half"))
    model = fine_tuned(base, BERT, dtype=torch.float32)
    delta = import_task(base, saved(model, tmp_path / "tuned"), "mine")
    assert_same_logits(delta_logits(base, delta), own_logits(model, base), base)


def test_a_pooler_that_the_base_model_lacks_is_part_of_the_head(tmp_path: Path) -> None:
    """Many BERTs were trained without one; their classifiers then train one for the task."""
    from bitfit_export.base_model.loading import load_base_model

    whole = base_of("bert")
    state = {name: value for name, value in whole.module.state_dict().items() if not name.startswith("pooler.")}
    whole.module.save_pretrained(tmp_path / "base", state_dict=state)
    whole.tokenizer.save_pretrained(tmp_path / "base")
    base = load_base_model(str(tmp_path / "base"))
    model = fine_tuned(base, BERT)
    delta = import_task(base, saved(model, tmp_path / "tuned"), "mine")
    assert (delta.config.pooling, delta.config.activation) == ("cls", "tanh")
    np.testing.assert_array_equal(delta.head["dense.weight"], model.bert.pooler.dense.weight.detach().numpy())
    assert_same_logits(delta_logits(base, delta), own_logits(model, base), base)


@pytest.mark.parametrize(
    ("family", "architecture", "settings"),
    [
        ("layoutlm", "LayoutLMForSequenceClassification", SMALL),  # in no table: taken for BERT, and proven
        ("convbert", "ConvBertForSequenceClassification", SMALL | {"embedding_size": 32, "hidden_act": "relu"}),
        ("nystromformer", "NystromformerForSequenceClassification", SMALL | {"hidden_act": "gelu"}),
        ("deberta-v2", "DebertaV2ForSequenceClassification", {"pooler_hidden_act": "tanh"}),
    ],
)
def test_an_activation_that_the_config_names_is_taken_from_there(
    tmp_path: Path, family: str, architecture: str, settings: dict[str, Any]
) -> None:
    base = base_of(family, **settings)
    model = fine_tuned(base, architecture)
    delta = import_task(base, saved(model, tmp_path), "mine")
    assert delta.config.activation == settings.get("pooler_hidden_act", settings.get("hidden_act"))
    assert_same_logits(delta_logits(base, delta), own_logits(model, base), base)


def test_labels_without_names_are_numbered_as_in_transformers(base: BaseModel, tmp_path: Path) -> None:
    saved(bert(num_labels=3), tmp_path)
    edit_config(tmp_path, id2label=None, label2id=None)
    assert import_task(base, tmp_path, "mine").config.labels == ("LABEL_0", "LABEL_1", "LABEL_2")


@pytest.mark.parametrize(("wanted", "labels"), [("regression", ()), ("multi_label", ("LABEL_0",))])
def test_of_one_output_the_problem_type_may_be_named(
    base: BaseModel, tmp_path: Path, wanted: str, labels: tuple[str, ...]
) -> None:
    saved(bert(num_labels=1), tmp_path)
    config = task_of_checkpoint(base, read_checkpoint(base, tmp_path), "mine", problem_type=wanted).config
    assert (config.problem_type, config.labels) == (wanted, labels)


def test_what_was_chosen_for_one_output_is_said(base: BaseModel, tmp_path: Path) -> None:
    said: list[str] = []
    import_task(base, saved(bert(num_labels=1), tmp_path / "open"), "mine", say=said.append)
    assert len(said) == 1
    assert said[0].startswith("mine: taken for a regression, as its head has one output")
    for number, settings in enumerate(({"num_labels": 1, "problem_type": "regression"}, {"num_labels": 2})):
        import_task(base, saved(bert(**settings), tmp_path / str(number)), "mine", say=said.append)
    assert len(said) == 1


def test_an_attention_that_the_config_names_is_not_fetched(base: BaseModel, tmp_path: Path) -> None:
    model = bert()
    saved(model, tmp_path)
    edit_config(tmp_path, attn_implementation="somebody/attention")
    assert_same_logits(delta_logits(base, import_task(base, tmp_path, "mine")), own_logits(model, base), base)


def test_a_pooler_that_the_class_does_not_read_may_be_in_the_file(base: BaseModel, tmp_path: Path) -> None:
    """Tools that copy a base model's tensors and add a head keep it."""
    saved(fine_tuned(base, "BertForTokenClassification"), tmp_path)
    edit_tensors(tmp_path, {"bert.pooler.dense.weight": np.ones((32, 32), np.float32)})
    assert "pooler.dense.bias" not in import_task(base, tmp_path, "mine").biases
