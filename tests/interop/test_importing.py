"""A fine-tuned checkpoint becomes a delta with the checkpoint's logits, or is refused with what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs bitfit-export[export]")

import torch

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import BaseMismatchError, DeltaError, UsageError
from bitfit_export.interop.difference import compare_with_base
from bitfit_export.interop.importing import import_task, task_of_checkpoint
from bitfit_export.interop.reading import read_checkpoint
from tests.interop.conftest import (
    assert_same_logits,
    base_of,
    delta_logits,
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


BERT = "BertForSequenceClassification"


@pytest.fixture
def base() -> BaseModel:
    return base_of("bert")


def bert(**settings: Any) -> Any:
    return fine_tuned(base_of("bert"), BERT, **settings)


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


SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


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


# What is refused.


def test_one_bit_of_one_weight_is_refused_with_its_name_and_its_size(base: BaseModel, tmp_path: Path) -> None:
    model = bert()
    weight = model.bert.encoder.layer[1].output.dense.weight
    weight.data.view(torch.int32)[0, 0] ^= 1
    with pytest.raises(DeltaError, match=r"1 tensors .* encoder\.layer\.1\.output\.dense\.weight by up to \d"):
        import_task(base, saved(model, tmp_path), "mine")


def test_a_norms_weight_and_an_embedding_are_weights(base: BaseModel, tmp_path: Path) -> None:
    model = bert()
    with torch.no_grad():
        model.bert.embeddings.position_embeddings.weight[5] += 0.5
        model.bert.embeddings.LayerNorm.weight[0] += 0.25
    with pytest.raises(DeltaError, match=r"2 tensors .*position_embeddings\.weight by up to 0\.5; .*LayerNorm\.weight"):
        import_task(base, saved(model, tmp_path), "mine")


def test_full_fine_tuning_is_refused_with_the_number_of_weights(base: BaseModel, tmp_path: Path) -> None:
    model = bert()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01)
    weights = [name for name in base.module.state_dict() if not name.endswith("bias")]
    with pytest.raises(DeltaError, match=f"{len(weights)} tensors .*; and {len(weights) - 3} more") as caught:
        import_task(base, saved(model, tmp_path), "mine")
    assert "bitfit diff" in str(caught.value)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_checkpoint_in_half_precision_is_refused_with_its_dtype(base: BaseModel, tmp_path: Path, dtype: str) -> None:
    model = bert().to(getattr(torch, dtype))
    with pytest.raises(DeltaError, match=rf"was saved in {dtype}, which rounded \d+ weights[\s\S]*dtype float32"):
        import_task(base, saved(model, tmp_path), "mine")


@pytest.mark.parametrize("declared", ["float32", "bfloat16", "float16", None])
def test_the_files_dtype_decides_whatever_the_config_says(
    base: BaseModel, tmp_path: Path, declared: str | None
) -> None:
    model = bert()
    saved(model, tmp_path / "exact")
    edit_config(tmp_path / "exact", dtype=declared)
    assert_same_logits(delta_logits(base, import_task(base, tmp_path / "exact", "x")), own_logits(model, base), base)
    saved(model.to(torch.float16), tmp_path / "half")
    edit_config(tmp_path / "half", dtype=declared)
    with pytest.raises(DeltaError, match=r"was saved in float16, which rounded \d+ weights"):
        import_task(base, tmp_path / "half", "mine")


def test_a_file_with_some_weights_in_half_precision_is_refused_with_their_dtype(
    base: BaseModel, tmp_path: Path
) -> None:
    model = bert()
    saved(model, tmp_path)
    name = "bert.encoder.layer.0.output.dense.weight"
    edit_tensors(tmp_path, {name: model.state_dict()[name].half().numpy()})
    with pytest.raises(DeltaError, match=r"was saved in float16, which rounded 1 weights"):
        import_task(base, tmp_path, "mine")


def test_a_vocabulary_of_another_size_is_refused(base: BaseModel, tmp_path: Path) -> None:
    model = bert()
    model.resize_token_embeddings(base.module.config.vocab_size + 3, mean_resizing=False)
    with pytest.raises(DeltaError, match=r"word_embeddings\.weight \(other shape"):
        import_task(base, saved(model, tmp_path), "mine")


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    model = fine_tuned(base_of("roberta"), "RobertaForSequenceClassification")
    with pytest.raises(BaseMismatchError, match="of type roberta, but tiny-bert is one of type bert"):
        import_task(base_of("bert"), saved(model, tmp_path), "mine")


def test_another_number_of_layers_is_refused(base: BaseModel, tmp_path: Path) -> None:
    model = bert()
    model.bert.encoder.layer = model.bert.encoder.layer[:1]
    model.config.num_hidden_layers = 1
    with pytest.raises(DeltaError, match=r"encoder\.layer\.1\.attention\.self\.query\.weight \(missing\)"):
        import_task(base, saved(model, tmp_path), "mine")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["BertModel"]}, "is a BertModel, expected a class of transformers with a head"),
        ({"architectures": ["BertForMaskedLM"]}, "is a BertForMaskedLM"),
        ({"architectures": ["PoemForSequenceClassification"]}, "is a PoemForSequenceClassification"),
        ({"architectures": None}, "is not a complete configuration"),
        ({"architectures": []}, "is not a complete configuration"),
        (
            {"id2label": {"0": "a", "2": "b"}},
            "names the ids '0, 2', but the head has 2 outputs, expected the ids 0 to 1",
        ),
        # The same weights do something else with other settings.
        ({"hidden_act": "relu"}, "gives other logits than tiny-bert"),
        ({"num_attention_heads": 2}, "gives other logits than tiny-bert"),
        ({"problem_type": "regression"}, "a regression with 2 outputs"),
        ({"id2label": {"0": "same", "1": "same"}}, "two labels of the task have the same name"),
    ],
)
def test_a_config_that_says_something_else_is_refused(
    base: BaseModel, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    saved(bert(), tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(DeltaError, match=message):
        import_task(base, tmp_path, "mine")


def test_a_dense_layer_where_the_family_is_not_known_to_have_one_is_refused_with_its_tensors(tmp_path: Path) -> None:
    base = base_of("big_bird", **SMALL)
    model = fine_tuned(base, "BigBirdForSequenceClassification")
    with pytest.raises(DeltaError, match=r"tensors classifier\.dense\.weight, .* and the activation None is not known"):
        import_task(base, saved(model, tmp_path), "mine")


def test_a_head_that_has_more_tensors_is_refused_with_their_names(tmp_path: Path) -> None:
    base = base_of("wav2vec2")
    model = fine_tuned(base, "Wav2Vec2ForSequenceClassification", use_weighted_layer_sum=True)
    with pytest.raises(DeltaError, match="head with the tensors layer_weights, projector"):
        import_task(base, saved(model, tmp_path), "mine")


def test_a_tokenizer_that_reads_text_otherwise_is_refused(base: BaseModel, tmp_path: Path) -> None:
    saved(bert(), tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    import_task(base, tmp_path, "mine")
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    tokenizer["normalizer"]["lowercase"] = False
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    edit = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"do_lower_case": False}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(edit))
    with pytest.raises(
        DeltaError, match="differs from tiny-bert's in its normaliser: 'lowercase' is False, expected True"
    ):
        import_task(base, tmp_path, "mine")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_truncated_file_is_one_clear_error(base: BaseModel, tmp_path: Path, name: str) -> None:
    saved(bert(), tmp_path)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(DeltaError) as caught:
        import_task(base, tmp_path, "mine")
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(("prefix", "tool"), [("_orig_mod.", "torch.compile"), ("module.", "DistributedDataParallel")])
def test_the_prefix_of_a_wrapper_is_named(base: BaseModel, tmp_path: Path, prefix: str, tool: str) -> None:
    from safetensors.numpy import load_file, save_file

    saved(bert(), tmp_path)
    path = tmp_path / "model.safetensors"
    save_file({f"{prefix}{name}": value for name, value in load_file(path).items()}, path, metadata={"format": "pt"})
    with pytest.raises(DeltaError, match=f"its file has '{prefix}' in its names, which {tool} puts there") as caught:
        import_task(base, tmp_path, "mine")
    assert "hint: take the model out of its wrapper" in str(caught.value)


#: id2label of a head with three outputs.
BAD_NAMES: dict[str, Any] = {
    "fewer": {"0": "a", "1": "b"},
    "more": {"0": "a", "1": "b", "2": "c", "3": "d"},
    "gaps": {"0": "a", "1": "b", "5": "c"},
    "no numbers": {"a": "a", "b": "b", "c": "c"},
    "a list": ["a", "b", "c"],
    "duplicates": {"0": "a", "1": "a", "2": "b"},
    "not names": {"0": None, "1": "", "2": "b"},
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_labels_that_do_not_fit_the_head_are_refused_and_may_be_named(
    base: BaseModel, tmp_path: Path, name: str
) -> None:
    """What the weights are is listed all the same."""
    model = bert(num_labels=3)
    saved(model, tmp_path)
    edit_config(tmp_path, id2label=BAD_NAMES[name])
    checkpoint = read_checkpoint(base, tmp_path)
    assert compare_with_base(base, checkpoint).head == {"classifier.weight": (3, 32), "classifier.bias": (3,)}
    with pytest.raises(DeltaError, match=r"id2label in config|have the same name|is empty"):
        task_of_checkpoint(base, checkpoint, "mine")
    delta = task_of_checkpoint(base, checkpoint, "mine", ["red", "green", "blue"])
    assert delta.config.labels == ("red", "green", "blue")
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


@pytest.mark.parametrize(
    ("architecture", "labels", "wanted", "message"),
    [
        (BERT, 3, "regression", "a regression with 3 outputs, expected one"),
        (BERT, 1, "single_label", "with one output, expected two or more"),
        ("BertForTokenClassification", 3, "multi_label", "--problem-type is multi_label, but BertForToken"),
    ],
)
def test_a_problem_type_that_does_not_fit_the_head_is_refused(
    base: BaseModel, tmp_path: Path, architecture: str, labels: int, wanted: str, message: str
) -> None:
    saved(fine_tuned(base, architecture, num_labels=labels), tmp_path)
    with pytest.raises(UsageError, match=message):
        task_of_checkpoint(base, read_checkpoint(base, tmp_path), "mine", problem_type=wanted)


@pytest.mark.parametrize("named", ["single_label_classification", "ranking", 5])
def test_a_problem_type_of_the_config_that_is_none_is_refused_and_may_be_named(
    base: BaseModel, tmp_path: Path, named: object
) -> None:
    saved(bert(num_labels=1), tmp_path)
    edit_config(tmp_path, problem_type=named)
    with pytest.raises(DeltaError, match="--problem-type multi_label"):
        import_task(base, tmp_path, "mine")
    delta = task_of_checkpoint(base, read_checkpoint(base, tmp_path), "mine", problem_type="regression")
    assert delta.config.problem_type == "regression"


def test_a_weights_file_that_the_config_names_is_not_read(base: BaseModel, tmp_path: Path) -> None:
    saved(bert(), tmp_path)
    edit_config(tmp_path, transformers_weights="adapter_model.bin")
    with pytest.raises(DeltaError, match=r"has no model\.safetensors that config\.json lets transformers load"):
        import_task(base, tmp_path, "mine")


def test_an_attention_that_the_config_names_is_not_fetched(base: BaseModel, tmp_path: Path) -> None:
    model = bert()
    saved(model, tmp_path)
    edit_config(tmp_path, attn_implementation="somebody/attention")
    assert_same_logits(delta_logits(base, import_task(base, tmp_path, "mine")), own_logits(model, base), base)


def test_a_checkpoint_without_safetensors_is_refused(base: BaseModel, tmp_path: Path) -> None:
    saved(bert(), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(DeltaError, match=r"has no model\.safetensors"):
        import_task(base, tmp_path, "mine")


def edit_tensors(folder: Path, changes: dict[str, np.ndarray | None]) -> None:
    from safetensors.numpy import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path) | changes
    save_file({name: value for name, value in tensors.items() if value is not None}, path, metadata={"format": "pt"})


def test_a_missing_tensor_and_one_that_is_not_read_are_refused(base: BaseModel, tmp_path: Path) -> None:
    saved(bert(), tmp_path)
    edit_tensors(tmp_path, {"gate.weight": np.zeros(3, np.float32)})
    with pytest.raises(DeltaError, match=r"has gate\.weight, which BertForSequenceClassification does not read"):
        import_task(base, tmp_path, "mine")
    edit_tensors(tmp_path, {"gate.weight": None, "bert.encoder.layer.0.output.dense.bias": None})
    with pytest.raises(DeltaError, match=r"lacks bert\.encoder\.layer\.0\.output\.dense\.bias"):
        import_task(base, tmp_path, "mine")


def test_a_pooler_that_the_class_does_not_read_may_be_in_the_file(base: BaseModel, tmp_path: Path) -> None:
    """Tools that copy a base model's tensors and add a head keep it."""
    saved(fine_tuned(base, "BertForTokenClassification"), tmp_path)
    edit_tensors(tmp_path, {"bert.pooler.dense.weight": np.ones((32, 32), np.float32)})
    assert "pooler.dense.bias" not in import_task(base, tmp_path, "mine").biases


def test_a_bias_that_is_no_number_is_refused(base: BaseModel, tmp_path: Path) -> None:
    saved(bert(), tmp_path)
    edit_tensors(tmp_path, {"bert.encoder.layer.0.output.dense.bias": np.full(32, np.nan, np.float32)})
    with pytest.raises(DeltaError, match="NaN or an infinity"):
        import_task(base, tmp_path, "mine")
