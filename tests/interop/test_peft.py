"""PEFT adapters of biases, made with PEFT: the delta's logits are those of PEFT's own model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("peft", reason="needs PEFT, which makes the adapters of these tests")

import peft
import torch
from safetensors.torch import load_file, save_file

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.errors import BaseMismatchError, DeltaError
from bitfit_export.interop.importing import import_task
from tests.interop.conftest import assert_same_logits, base_of, delta_logits, new_classifier, own_logits

# PEFT speaks of transformers' own deprecations and of how it guesses.
pytestmark = pytest.mark.filterwarnings("ignore")


def adapter(base: BaseModel, architecture: str, config: Any, **settings: Any) -> Any:
    """A PEFT model whose every trainable tensor but LoRA's matrices was changed at random."""
    model = peft.get_peft_model(new_classifier(base, architecture, **settings), config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def beft(**settings: Any) -> Any:
    return peft.BeftConfig(**{"task_type": "SEQ_CLS", "target_modules": ["query", "key", "value", "dense"]} | settings)


def lora(**settings: Any) -> Any:
    return peft.LoraConfig(**{"task_type": "SEQ_CLS", "bias": "all", "r": 2} | settings)


BERT = "BertForSequenceClassification"
ADAPTERS = {
    "BEFT on every linear layer": ("bert", BERT, beft(), False),
    "BEFT on PEFT's own choice": ("bert", BERT, beft(target_modules=None), False),
    "BEFT on RoBERTa": ("roberta", "RobertaForSequenceClassification", beft(target_modules=["value"]), False),
    "BEFT of a token task": ("bert", "BertForTokenClassification", beft(task_type="TOKEN_CLS"), True),
    "BEFT of a span task": ("bert", "BertForQuestionAnswering", beft(task_type="QUESTION_ANS"), True),
    "BEFT without a task type": ("bert", BERT, beft(task_type=None, modules_to_save=["classifier"]), False),
    "LoRA with every bias": ("bert", BERT, lora(), False),
    "LoRA with its layers' biases": ("bert", BERT, lora(bias="lora_only"), False),
    "LoRA on embeddings": ("bert", BERT, lora(target_modules=["query", "word_embeddings"]), False),
    "LoRA on DistilBERT": (
        "distilbert",
        "DistilBertForSequenceClassification",
        lora(target_modules=["q_lin"], modules_to_save=["classifier", "pre_classifier"]),
        False,
    ),
    "LoRA on GPT-2": ("gpt2", "GPT2ForSequenceClassification", lora(target_modules=["c_attn"]), False),
    "LoRA of a token task": ("electra", "ElectraForTokenClassification", lora(task_type="TOKEN_CLS"), True),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_of_biases_gives_pefts_own_logits(tmp_path: Path, name: str) -> None:
    family, architecture, config, tokens = ADAPTERS[name]
    base = base_of(family)
    labels = 2 if "Question" in architecture else 3
    model = adapter(base, architecture, config, num_labels=labels)
    model.save_pretrained(tmp_path)
    delta = import_task(base, tmp_path, "mine")
    assert delta.config.bias_terms
    # Inside PEFT's outermost wrapper, which does not hand token_type_ids on where the task is QUESTION_ANS.
    assert_same_logits(delta_logits(base, delta), own_logits(model.base_model, base), base, tokens=tokens)


def bert_adapter(folder: Path, config: Any, **settings: Any) -> BaseModel:
    base = base_of("bert")
    adapter(base, BERT, config, **settings).save_pretrained(folder)
    return base


def test_beft_changes_the_biases_of_its_layers_and_no_others(tmp_path: Path) -> None:
    base = bert_adapter(tmp_path, beft(target_modules=["value"]))
    delta = import_task(base, tmp_path, "mine")
    assert delta.config.bias_terms == tuple(f"encoder.layer.{n}.attention.self.value.bias" for n in (0, 1))


@pytest.mark.parametrize(("labels", "problem_type"), [(1, "regression"), (2, "single_label")])
def test_an_adapter_has_no_label_names_and_one_label_is_a_regression(
    tmp_path: Path, labels: int, problem_type: str
) -> None:
    config = import_task(bert_adapter(tmp_path, beft(), num_labels=labels), tmp_path, "mine").config
    assert config.problem_type == problem_type
    assert config.labels == (() if labels == 1 else ("LABEL_0", "LABEL_1"))


# What is refused.


def test_lora_matrices_that_change_weights_are_refused(tmp_path: Path) -> None:
    base = base_of("bert")
    model = adapter(base, BERT, lora())
    with torch.no_grad():
        matrices = dict(model.named_parameters())
        matrices["base_model.model.bert.encoder.layer.1.attention.self.query.lora_B.default.weight"][0] = 1e-9
    model.save_pretrained(tmp_path)
    with pytest.raises(DeltaError, match=r"changes weights through bert\.encoder\.layer\.1\.att") as caught:
        import_task(base, tmp_path, "mine")
    assert "hint: train with PEFT's BEFT, or with bitfit-train" in str(caught.value)


@pytest.mark.parametrize(
    "config",
    [
        lora(use_dora=True),
        peft.IA3Config(task_type="SEQ_CLS"),
        peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2),
        peft.LNTuningConfig(task_type="SEQ_CLS", target_modules=["LayerNorm"]),
    ],
    ids=["DoRA", "IA3", "prompt tuning", "norms' weights"],
)
def test_other_methods_are_refused(tmp_path: Path, config: Any) -> None:
    with pytest.raises(DeltaError, match="changes weights through"):
        import_task(bert_adapter(tmp_path, config), tmp_path, "mine")


def test_a_head_that_was_not_saved_is_refused(tmp_path: Path) -> None:
    """PEFT saves DeBERTa's classifier by default, not the pooler before it, which was random."""
    base = base_of("deberta-v2")
    adapter(base, "DebertaV2ForSequenceClassification", beft(target_modules=["value_proj"])).save_pretrained(tmp_path)
    with pytest.raises(DeltaError, match=r"lacks pooler\.dense\.bias of the head[\s\S]*modules_to_save"):
        import_task(base, tmp_path, "mine")


def test_an_adapter_without_a_head_is_refused(tmp_path: Path) -> None:
    base = bert_adapter(tmp_path, beft(task_type=None))
    with pytest.raises(DeltaError, match="has no head, expected a classifier"):
        import_task(base, tmp_path, "mine")


def drop_tensors(folder: Path, lost: Callable[[str], bool]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    kept = {name: value for name, value in tensors.items() if not lost(name)}
    assert len(kept) < len(tensors)
    save_file(kept, path)


def is_body_bias(name: str) -> bool:
    return name.endswith(".bias") and "classifier" not in name


@pytest.mark.parametrize("bias", ["lora_only", "all"])
@pytest.mark.parametrize("which", ["all of them", "one of them"])
def test_biases_that_peft_did_not_save_are_missed(tmp_path: Path, bias: str, which: str) -> None:
    """As PEFT did up to 0.19 with `lora_only`: what is left is the head, trained beside other biases."""
    base = bert_adapter(tmp_path, lora(bias=bias))
    import_task(base, tmp_path, "mine")
    lost = "layer.1.attention.self.query.base_layer.bias"
    drop_tensors(tmp_path, is_body_bias if which == "all of them" else lambda name: name.endswith(lost))
    with pytest.raises(
        DeltaError, match=rf"biases were trained \(bias is '{bias}'\), but its file lacks \d+"
    ) as caught:
        import_task(base, tmp_path, "mine")
    assert "hint: some releases of PEFT do not save them with lora_only" in str(caught.value)


def test_layers_that_are_not_wrapped_need_no_bias_in_the_file(tmp_path: Path) -> None:
    base = bert_adapter(tmp_path, lora(bias="lora_only", target_modules=["value"]))
    terms = import_task(base, tmp_path, "mine").config.bias_terms
    assert terms == tuple(f"encoder.layer.{n}.attention.self.value.bias" for n in (0, 1))


def test_an_adapter_without_any_of_its_tensors_is_refused(tmp_path: Path) -> None:
    base = bert_adapter(tmp_path, lora(bias="lora_only"))
    drop_tensors(tmp_path, lambda name: "classifier" not in name)
    with pytest.raises(DeltaError, match="but its file has none"):
        import_task(base, tmp_path, "mine")


def test_beft_without_its_biases_is_refused(tmp_path: Path) -> None:
    base = bert_adapter(tmp_path, beft())
    drop_tensors(tmp_path, lambda name: name.endswith("beft_bias"))
    with pytest.raises(DeltaError, match="of the type BEFT, but has no beft_bias"):
        import_task(base, tmp_path, "mine")


def test_an_adapter_of_a_compiled_model_is_refused_with_the_wrappers_name(tmp_path: Path) -> None:
    base = bert_adapter(tmp_path, beft())
    path = tmp_path / "adapter_model.safetensors"
    save_file({f"_orig_mod.{name}": value for name, value in load_file(path).items()}, path)
    with pytest.raises(DeltaError, match=r"has '_orig_mod\.' in its names, which torch\.compile puts there"):
        import_task(base, tmp_path, "mine")


def test_an_adapters_own_tokenizer_is_compared(tmp_path: Path) -> None:
    base = bert_adapter(tmp_path, beft())
    base.tokenizer.save_pretrained(tmp_path)
    import_task(base, tmp_path, "mine")
    (tmp_path / "tokenizer.json").unlink()
    words = sorted(base.tokenizer.get_vocab(), key=base.tokenizer.get_vocab().__getitem__)
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in [*words[:5], *reversed(words[5:])]))
    with pytest.raises(DeltaError, match="differs from tiny-bert's in its vocabulary"):
        import_task(base, tmp_path, "mine")


def test_an_adapter_of_a_larger_model_is_refused(tmp_path: Path) -> None:
    large = base_of("bert", hidden_size=64)
    adapter(large, BERT, beft()).save_pretrained(tmp_path)
    with pytest.raises(DeltaError, match=r"of shape \(\d+,( \d+)?\), expected"):
        import_task(base_of("bert"), tmp_path, "mine")


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_adapter_that_names_another_base_model_is_refused(tmp_path: Path) -> None:
    import dataclasses

    base = bert_adapter(tmp_path, beft())
    from_hub = dataclasses.replace(base, source=dataclasses.replace(base.source, name="google-bert/bert-base-cased"))
    edit_config(tmp_path, base_model_name_or_path="google-bert/bert-base-uncased")
    with pytest.raises(BaseMismatchError, match="bert-base-uncased, but the base model is google-bert/bert-base-c"):
        import_task(from_hub, tmp_path, "mine")
    for same in ("bert-base-cased", "google-bert/bert-base-cased", "/home/me/models/mine", None):
        edit_config(tmp_path, base_model_name_or_path=same)
        assert import_task(from_hub, tmp_path, "mine").config.base_model == "google-bert/bert-base-cased"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": None, "task_type": "CAUSAL_LM"}, "task_type CAUSAL_LM, expected one of SEQ_CLS"),
        ({"auto_mapping": {"base_model_class": "BertModel"}}, "is a BertModel"),
        ({"auto_mapping": {}}, "is a None"),
    ],
)
def test_a_config_of_something_else_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    base = bert_adapter(tmp_path, beft())
    edit_config(tmp_path, **changes)
    with pytest.raises(DeltaError, match=message):
        import_task(base, tmp_path, "mine")


def test_an_adapter_for_another_architecture_is_refused(tmp_path: Path) -> None:
    base = bert_adapter(tmp_path, beft())
    edit_config(tmp_path, auto_mapping={"base_model_class": "RobertaForSequenceClassification"})
    with pytest.raises(BaseMismatchError, match=r"for a Roberta\w+, but tiny-bert is of type bert"):
        import_task(base, tmp_path, "mine")


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_truncated_or_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    base = bert_adapter(tmp_path, beft())
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(DeltaError, match=r"is not (valid JSON|a valid safetensors file)"):
        import_task(base, tmp_path, "mine")
    (tmp_path / name).unlink()
    with pytest.raises(DeltaError, match="cannot be read"):
        import_task(base, tmp_path, "mine")


def test_a_tensor_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    base = bert_adapter(tmp_path, beft())
    path = tmp_path / "adapter_model.safetensors"
    save_file(load_file(path) | {"base_model.model.bert.pooler.gate": torch.zeros(1)}, path)
    with pytest.raises(DeltaError, match=r"changes weights through bert\.pooler\.gate"):
        import_task(base, tmp_path, "mine")
