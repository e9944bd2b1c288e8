"""A task's model is, for every family and kind of task, the model that transformers has for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import ACTIVATIONS, TaskDelta
from bitfit_export.errors import BaseModelError
from bitfit_export.reference.task_model import TaskModel, default_head, merged_model, pool, predict_logits
from bitfit_export.training.trainable import TrainableModel
from tests.conftest import MakeDelta
from tests.families import FAMILIES, randomise

#: family -> (its class, and what its head's layers are called there)
SENTENCE_CLASSES = {
    "bert": ("BertForSequenceClassification", {"classifier": "classifier"}),
    "albert": ("AlbertForSequenceClassification", {"classifier": "classifier"}),
    "roberta": (
        "RobertaForSequenceClassification",
        {"dense": "classifier.dense", "classifier": "classifier.out_proj"},
    ),
    "xlm-roberta": (
        "XLMRobertaForSequenceClassification",
        {"dense": "classifier.dense", "classifier": "classifier.out_proj"},
    ),
    "camembert": (
        "CamembertForSequenceClassification",
        {"dense": "classifier.dense", "classifier": "classifier.out_proj"},
    ),
    "mpnet": ("MPNetForSequenceClassification", {"dense": "classifier.dense", "classifier": "classifier.out_proj"}),
    "electra": (
        "ElectraForSequenceClassification",
        {"dense": "classifier.dense", "classifier": "classifier.out_proj"},
    ),
    "distilbert": (
        "DistilBertForSequenceClassification",
        {"dense": "pre_classifier", "classifier": "classifier"},
    ),
    "deberta": ("DebertaForSequenceClassification", {"dense": "pooler.dense", "classifier": "classifier"}),
    "deberta-v2": ("DebertaV2ForSequenceClassification", {"dense": "pooler.dense", "classifier": "classifier"}),
    "vit": ("ViTForImageClassification", {"classifier": "classifier"}),
    "wav2vec2": ("Wav2Vec2ForSequenceClassification", {"dense": "projector", "classifier": "classifier"}),
    "gpt2": ("GPT2ForSequenceClassification", {"classifier": "score"}),
}
#: Settings of the classes that the base models' tests don't have.
MORE_SETTINGS: dict[str, dict[str, Any]] = {
    "gpt2": {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1},
    "wav2vec2": {"classifier_proj_size": 24},
}
VOCABULARY = 50


def their_model(family: str, class_name: str, labels: int = 3, **settings: Any) -> Any:
    """A small model of transformers with random values everywhere, biases and norms too."""
    config = transformers.AutoConfig.for_model(
        family,
        **FAMILIES[family],
        **MORE_SETTINGS.get(family, {}),
        **({"vocab_size": VOCABULARY} if family != "vit" else {}),
        num_labels=labels,
        **settings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, class_name)(config)
        randomise(model)
    return model.eval()


def our_model(theirs: Any, names: dict[str, str], **options: Any) -> TrainableModel:
    """A `TaskModel` with its loss around the same body, with the same head put in by name."""
    state = theirs.state_dict()
    classifier = state[f"{names['classifier']}.weight"]
    model = TrainableModel(theirs.base_model, labels=len(classifier), inner=classifier.shape[1], **options)
    for ours, name in names.items():
        for kind in ("weight", "bias"):
            value = state.get(f"{name}.{kind}", torch.zeros(len(classifier)))
            model.get_parameter(f"{ours}.{kind}").data.copy_(value)
    return model.eval()


def inputs_of(family: str) -> dict[str, torch.Tensor]:
    """Three items, for text of 9, 4 and 1 tokens: padded on the right, and no id is the padding's within a text."""
    random = torch.Generator().manual_seed(1)
    if family == "vit":
        return {"pixel_values": torch.randn(3, 3, 16, 16, generator=random)}
    if family == "wav2vec2":
        return {"input_values": torch.randn(3, 400, generator=random)}
    mask = (torch.arange(9) < torch.tensor([[9], [4], [1]])).long()
    ids = torch.randint(5, VOCABULARY, (3, 9), generator=random)
    padding = 0 if family == "gpt2" else 1
    return {"input_ids": torch.where(mask.bool(), ids, padding), "attention_mask": mask}


@pytest.mark.parametrize("family", SENTENCE_CLASSES)
def test_the_default_head_is_the_one_that_transformers_gives_the_family(family: str) -> None:
    class_name, names = SENTENCE_CLASSES[family]
    theirs = their_model(family, class_name)
    pooling, activation = default_head(theirs.base_model)
    ours = our_model(theirs, names, pooling=pooling, activation=activation)
    assert {name.split(".")[0] for name, _ in ours.named_parameters()} == {"base", *names}
    inputs, labels = inputs_of(family), torch.tensor([2, 0, 1])
    with torch.no_grad():
        expected, found = theirs(**inputs, labels=labels), ours(**inputs, labels=labels)
    assert expected.logits.std() > 0.05
    torch.testing.assert_close(found["logits"], expected.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(found["loss"], expected.loss, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("family", "prefix"), [("bert", "Bert"), ("distilbert", "DistilBert"), ("electra", "Electra")])
def test_a_token_task_labels_every_token(family: str, prefix: str) -> None:
    theirs = their_model(family, f"{prefix}ForTokenClassification", labels=5)
    ours = our_model(theirs, {"classifier": "classifier"}, pooling="tokens", problem_type="token")
    inputs = inputs_of(family)
    labels = torch.randint(0, 5, (3, 9), generator=torch.Generator().manual_seed(2))
    labels[:, ::3] = -100
    with torch.no_grad():
        expected, found = theirs(**inputs, labels=labels), ours(**inputs, labels=labels)
    assert found["logits"].shape == (3, 9, 5)
    torch.testing.assert_close(found["logits"], expected.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(found["loss"], expected.loss, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("family", "prefix"), [("bert", "Bert"), ("distilbert", "DistilBert"), ("roberta", "Roberta")])
def test_a_span_task_scores_every_token_as_start_and_as_end(family: str, prefix: str) -> None:
    theirs = their_model(family, f"{prefix}ForQuestionAnswering", labels=2)
    ours = our_model(theirs, {"classifier": "qa_outputs"}, pooling="tokens", problem_type="span")
    inputs, starts, ends = inputs_of(family), torch.tensor([1, 0, 0]), torch.tensor([6, 3, 0])
    with torch.no_grad():
        expected = theirs(**inputs, start_positions=starts, end_positions=ends)
        found = ours(**inputs, labels=torch.stack([starts, ends], -1))
    torch.testing.assert_close(found["logits"][..., 0], expected.start_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(found["logits"][..., 1], expected.end_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(found["loss"], expected.loss, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("problem_type", "their_type", "labels"),
    [
        ("multi_label", "multi_label_classification", torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1]])),
        ("regression", "regression", torch.tensor([0.5, -2.0, 3.0])),
    ],
)
def test_the_losses_of_sentence_tasks(problem_type: str, their_type: str, labels: torch.Tensor) -> None:
    outputs = 3 if problem_type == "multi_label" else 1
    theirs = their_model("bert", "BertForSequenceClassification", labels=outputs, problem_type=their_type)
    ours = our_model(theirs, {"classifier": "classifier"}, pooling="pooler", problem_type=problem_type)
    with torch.no_grad():
        expected = theirs(**inputs_of("bert"), labels=labels).loss
        found = ours(**inputs_of("bert"), labels=labels)["loss"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "class_name", "rates"),
    [
        ("bert", "BertForSequenceClassification", {"hidden_dropout_prob": 0.3}),
        ("bert", "BertForSequenceClassification", {"hidden_dropout_prob": 0.3, "classifier_dropout": 0.4}),
        ("albert", "AlbertForSequenceClassification", {"classifier_dropout_prob": 0.4}),
        ("distilbert", "DistilBertForSequenceClassification", {"dropout": 0.3, "seq_classif_dropout": 0.4}),
        ("deberta-v2", "DebertaV2ForSequenceClassification", {"cls_dropout": 0.3, "pooler_dropout": 0.4}),
        ("roberta", "RobertaForSequenceClassification", {"classifier_dropout": 0.3}),
        ("gpt2", "GPT2ForSequenceClassification", {"resid_pdrop": 0.3}),
        ("vit", "ViTForImageClassification", {}),
        ("wav2vec2", "Wav2Vec2ForSequenceClassification", {}),
    ],
)
def test_a_new_head_has_the_family_s_dropout(family: str, class_name: str, rates: dict[str, float]) -> None:
    """The dropout modules of their head are its own, or those within its layers: RoBERTa applies one twice."""
    theirs = their_model(family, class_name, **rates)
    body = {id(module) for module in theirs.base_model.modules()}
    dropouts = [each.p for each in theirs.modules() if isinstance(each, torch.nn.Dropout) and id(each) not in body]
    if family == "roberta":
        dropouts *= 2
    pooling, activation = default_head(theirs.base_model)
    ours = TaskModel(theirs.base_model, pooling, 3, activation=activation)
    found = [ours.dense_dropout.p, ours.dropout.p] if activation else [ours.dropout.p]
    assert [rate for rate in found if rate] == [rate for rate in dropouts if rate]


def test_a_family_without_a_table_entry_reads_its_pooler_or_else_the_first_token() -> None:
    with_pooler = their_model("bert", "BertModel")
    with_pooler.config.model_type = "unheard-of"
    assert default_head(with_pooler) == ("pooler", None)
    without = their_model("distilbert", "DistilBertModel")
    without.config.model_type = "unheard-of"
    assert default_head(without) == ("cls", None)


def test_a_bert_without_a_pooler_gets_one_in_its_head() -> None:
    base = transformers.BertModel(transformers.BertConfig(vocab_size=9, **FAMILIES["bert"]), add_pooling_layer=False)
    assert default_head(base) == ("cls", "tanh")
    with pytest.raises(BaseModelError, match="no pooler"):
        TaskModel(base, "pooler", 2)(input_ids=torch.tensor([[1, 2]]), attention_mask=torch.tensor([[1, 1]]))


@pytest.mark.parametrize(
    ("pooling", "expected"), [("cls", [1, 1]), ("mean", [2, 1]), ("last", [3, 1]), ("tokens", [[1, 2, 3], [1, 9, 9]])]
)
def test_what_a_pooling_reads(pooling: str, expected: Sequence[Any]) -> None:
    """The numbers stand for tokens; 9 is padding."""
    hidden = torch.tensor([[1.0, 2, 3], [1, 9, 9]]).unsqueeze(-1)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    assert pool(pooling, hidden, None, mask).squeeze(-1).tolist() == expected


@pytest.mark.parametrize(("pooling", "expected"), [("mean", 2.0), ("last", 3.0)])
def test_without_a_mask_every_token_counts(pooling: str, expected: float) -> None:
    assert pool(pooling, torch.tensor([[[1.0], [2], [3]]]), None, None).item() == expected


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_delta_s_dense_layer_is_put_in(tiny_base: BaseModel, make_delta: MakeDelta, activation: str) -> None:
    delta = make_delta(tiny_base, "task", activation=activation, inner=20, pooling="cls")
    inputs = tiny_base.tokenizer(["some words"], return_tensors="pt")
    model = merged_model(tiny_base, delta)
    with torch.no_grad():
        pooled = model.base(**inputs).last_hidden_state[:, 0].numpy()
        found = model(**inputs)["logits"].numpy()
    dense = torch.from_numpy(pooled @ delta.head["dense.weight"].T + delta.head["dense.bias"])
    functions = {"tanh": torch.tanh, "relu": torch.relu, "gelu": torch.nn.GELU(), "identity": torch.nn.Identity()}
    expected = functions[activation](dense).numpy() @ delta.head["classifier.weight"].T + delta.head["classifier.bias"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_predictions_of_a_token_task_are_as_long_as_their_texts(tiny_base: BaseModel, make_delta: MakeDelta) -> None:
    delta: TaskDelta = make_delta(tiny_base, "tags", problem_type="token", labels=("a", "b", "c"))
    model = merged_model(tiny_base, delta)
    texts = [("a much longer text than the one beside it",), ("short",), ("", "pair")]
    for pair in ([texts[0], texts[1]], [texts[2]]):
        found = predict_logits(model, tiny_base.tokenizer, pair, max_length=32)
        for text, logits in zip(pair, found, strict=True):
            batch = tiny_base.tokenizer(*text, return_tensors="pt")
            with torch.no_grad():
                expected = model(**batch)["logits"][0].numpy()
            np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_padding_is_on_the_right_even_for_a_tokenizer_that_prefers_the_left(
    tiny_base: BaseModel, make_delta: MakeDelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = merged_model(tiny_base, make_delta(tiny_base, "tags", problem_type="token"))
    texts = [("a much longer text than the one beside it",), ("short",)]
    expected = predict_logits(model, tiny_base.tokenizer, texts, max_length=32)
    monkeypatch.setattr(tiny_base.tokenizer, "padding_side", "left")
    found = predict_logits(model, tiny_base.tokenizer, texts, max_length=32)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
