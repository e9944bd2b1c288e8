"""Part of pass 1, lengths: where the exporter can't prove its graph for texts of every length, try them out.

MobileBERT shifts a text by one token, GPT-Neo cuts a mask out of a larger one: the exporter then says that its graph
holds for all lengths but one, though nothing in the graph depends on that length. This pass compares the graph with
PyTorch at every length at which models are known to do something else: the shortest, the longest, and those around
the powers of two, which windows and buffers have for sizes.

Requires: the traced graph of a model that reads text, with dynamic dimensions.
Ensures: the two agree at those lengths.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import torch

from bitfit_export.base_model.loading import BaseModel
from bitfit_export.errors import CompileError

__all__ = ["check_lengths", "lengths_to_check", "text_inputs"]

TOLERANCE = 1e-4
#: Ids that every vocabulary has, after the special ones.
_FIRST_ID, _IDS = 5, 100
#: ONNX Runtime writes its errors to stderr and raises them; once is enough.
_FATAL_ONLY = 4


def lengths_to_check(longest: int) -> list[int]:
    """Lengths from 1 to `longest`, in order."""
    near_powers = {2**power + offset for power in range(longest.bit_length()) for offset in (-1, 0, 1)}
    return sorted(length for length in near_powers | {longest} if 1 <= length <= longest)


def check_lengths(base: BaseModel, model: onnx.ModelProto) -> None:
    """Compare `last_hidden_state` with PyTorch's at `lengths_to_check`.

    Raises:
        CompileError: lengths at which the two differ by more than `TOLERANCE`, or only one of them runs.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    wrong = [length for length in lengths_to_check(base.max_positions) if not _agree(base, session, length)]
    if wrong:
        raise CompileError(
            f"the traced graph of {base.source.name} is wrong for texts of {', '.join(map(str, wrong))} tokens",
            hint="docs/compiler.md says which models the compiler takes",
        )


def text_inputs(base: BaseModel, length: int) -> dict[str, torch.Tensor]:
    """Two items of ids, of which the second is padded after some more than half, where there is room for that."""
    mask = torch.ones(2, length, dtype=torch.int64)
    mask[1, length // 2 + 1 :] = 0
    ids = _FIRST_ID + torch.arange(2 * length).reshape(2, length) % _IDS
    example = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: example[name] for name in base.input_names}


def _agree(base: BaseModel, session: onnxruntime.InferenceSession, length: int) -> bool:
    inputs = text_inputs(base, length)
    expected = base.module(**inputs).last_hidden_state.numpy()
    try:
        (got,) = session.run(["last_hidden_state"], {name: value.numpy() for name, value in inputs.items()})
    except Exception:  # ONNX Runtime has no class of its own for a graph that can't run these sizes
        return False
    kept = inputs["attention_mask"].numpy() > 0 if "attention_mask" in inputs else slice(None)
    return got.shape == expected.shape and bool(np.abs(got - expected)[kept].max() <= TOLERANCE)
