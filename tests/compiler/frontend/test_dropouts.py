"""A graph that does not drop what PyTorch drops in training is refused."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.compiler.frontend.dropouts import check_dropouts, in_training
from bitfit_export.errors import CompileError
from tests.traces import traced


def test_a_graph_without_the_models_dropouts_is_refused_by_the_models_name(tiny_base: BaseModel) -> None:
    graph = ir.from_proto(traced(tiny_base)).graph
    # The embeddings, and two in each of two layers; the fused attention draws by itself.
    with (
        in_training(tiny_base.module, True),
        pytest.raises(CompileError, match="tiny-bert drops something at 5") as error,
    ):
        check_dropouts(tiny_base, graph)
    assert error.value.hint == "train it with --engine torch"
    assert not tiny_base.module.training
    with in_training(tiny_base.module, False):
        check_dropouts(tiny_base, graph)


def test_a_model_that_skips_layers_is_refused(tiny_base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny_base.module.config, "layerdrop", 0.1, raising=False)
    with pytest.raises(CompileError, match="skips layers by chance"):
        check_dropouts(tiny_base, ir.from_proto(traced(tiny_base)).graph)
