"""Models of BERT-base's depth, with seeded random weights and random biases: the real ones cannot be loaded offline."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from bitfit_export.base_model.bias_terms import is_bias_term
from bitfit_export.base_model.loading import load_base_model
from bitfit_export.cli import main
from bitfit_export.runtime import BiasSession
from tests.conftest import random_delta

#: Sizes of a model by which BERT-base's are divided: they make it slow, and prove nothing that its depth does not.
SMALLER = 8


def test_bert_base_has_the_bias_terms_of_the_paper() -> None:
    """98 tensors, 102,912 values."""
    with torch.device("meta"):
        module = transformers.BertModel(transformers.BertConfig())
    biases = [value for name, value in module.named_parameters() if is_bias_term(name)]
    assert (len(biases), sum(value.numel() for value in biases)) == (98, 102_912)


@pytest.mark.slow
def test_a_model_as_deep_as_bert_base_compiles_and_verifies(
    tmp_path: Path, minilm_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "bert-base-random"
    torch.manual_seed(0)
    real = transformers.BertConfig()
    config = transformers.BertConfig(
        hidden_size=real.hidden_size // SMALLER, intermediate_size=real.intermediate_size // SMALLER
    )
    module = transformers.BertModel(config)
    for name, parameter in module.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(parameter, std=0.1)
        elif "LayerNorm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.1)
    module.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(minilm_folder).save_pretrained(folder)
    base = load_base_model(str(folder))
    assert (len(base.biases), sum(value.size for value in base.biases.values())) == (98, 102_912 // SMALLER)
    random_delta(base, "rte", labels=("entailment", "not_entailment")).save(tmp_path / "deltas/rte", card="")
    random_delta(base, "sst2", pooling="mean", seed=1).save(tmp_path / "deltas/sst2", card="")
    output = tmp_path / "out"
    words = ["--tasks", "rte,sst2", "--deltas", str(tmp_path / "deltas"), "--output", str(output)]
    status = main(["export", "--model", str(folder), *words])
    report = capsys.readouterr().err
    assert status == 0, report
    session = BiasSession(output, threads=1)
    assert session.tasks == ("rte", "sst2")
    # Folding leaves four terms in each of 12 layers, those of query, attention output and both dense layers, and the
    # pooler's.
    layout = session.manifest.layout
    assert (len(layout.biases), layout.bias_count) == (49, 65_280 // SMALLER)
