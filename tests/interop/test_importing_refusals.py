"""A checkpoint that is no BitFit of the base model is refused with what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs bitfit-export[export]")

import torch

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.errors import BaseMismatchError, DeltaError, UsageError
from bitfit_export.interop.difference import compare_with_base
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
    own_logits,
    saved,
)


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


def test_a_checkpoint_without_safetensors_is_refused(base: BaseModel, tmp_path: Path) -> None:
    saved(bert(), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(DeltaError, match=r"has no model\.safetensors"):
        import_task(base, tmp_path, "mine")


def test_a_missing_tensor_and_one_that_is_not_read_are_refused(base: BaseModel, tmp_path: Path) -> None:
    saved(bert(), tmp_path)
    edit_tensors(tmp_path, {"gate.weight": np.zeros(3, np.float32)})
    with pytest.raises(DeltaError, match=r"has gate\.weight, which BertForSequenceClassification does not read"):
        import_task(base, tmp_path, "mine")
    edit_tensors(tmp_path, {"gate.weight": None, "bert.encoder.layer.0.output.dense.bias": None})
    with pytest.raises(DeltaError, match=r"lacks bert\.encoder\.layer\.0\.output\.dense\.bias"):
        import_task(base, tmp_path, "mine")


def test_a_bias_that_is_no_number_is_refused(base: BaseModel, tmp_path: Path) -> None:
    saved(bert(), tmp_path)
    edit_tensors(tmp_path, {"bert.encoder.layer.0.output.dense.bias": np.full(32, np.nan, np.float32)})
    with pytest.raises(DeltaError, match="NaN or an infinity"):
        import_task(base, tmp_path, "mine")
