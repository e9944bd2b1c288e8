"""`--target qnn`: Qualcomm's HTP. The graph has one shape, is compiled ahead of time, and leaves no node to the CPU."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx

from bitfit_export.accelerators.qnn import find_chip
from bitfit_export.bundle.interface import MODEL_FILE
from bitfit_export.compiler.ahead_of_time import compile_for_htp
from bitfit_export.compiler.calibration.activation_stats import CollectActivationStats
from bitfit_export.compiler.compilation import Pass
from bitfit_export.compiler.graph.model_files import write_model
from bitfit_export.compiler.options import CompileOptions
from bitfit_export.compiler.passes.quantize_for_htp import Form, QuantizeForHtp
from bitfit_export.compiler.targets.base import PrecisionPasses, Target, Written, fixed_shapes
from bitfit_export.errors import UsageError

__all__ = ["TARGET"]

#: Seen with QNN 2.51: after a LayerNormalization, 14 of 16 rows of a product in integers are wrong. No other number of
#: tokens that was tried, from 1 to 512, has this.
_WRONG_TOKENS = 16
#: The graph before it is compiled.
_SOURCE = "source.onnx"
#: The first version of the HTP with weights of 16 bits in its products.
_FIRST_OF_INT16 = 73
#: Integers of a product by precision, the smallest first, with the largest error of its result. Of MiniLM's products
#: with weights of 8 bits, the feed-forwards' second are off by 0.0064 to 0.0104, others by 0.0037 to 0.0062; with
#: activations of 8 bits too, those of the feed-forwards by 0.06 to 0.9, others by 0.033 to 0.071. Of w8a16's, 17 in
#: 16 bits and not 8 take a quarter off the error of its logits, for a tenth of its binary.
_FORMS: dict[str, tuple[Form, ...]] = {
    "w8a16": (Form(np.int8, np.uint16, 0.005), Form(np.int16, np.uint16)),
    "int8-static": (Form(np.int8, np.uint8, 0.06), Form(np.int8, np.uint16)),
}


class _Qnn(Target):
    name = "qnn"
    precisions: ClassVar[Mapping[str, PrecisionPasses]] = {
        # The graph stays in float32: the HTP's compiler rounds its weights, and it computes in float16.
        "fp16": PrecisionPasses(),
        **dict.fromkeys(_FORMS, PrecisionPasses((CollectActivationStats(),))),
    }

    def check(self, options: CompileOptions) -> None:
        super().check(options)
        if options.layout == "table":
            raise UsageError(
                "--target qnn runs one task at a time, but --layout is table",
                hint="add --layout packed or --layout named",
            )
        if options.static_shape is None:
            raise UsageError("--target qnn takes one shape, but --static-shape is missing", hint="--static-shape 1,128")
        if options.overridable:
            raise UsageError(
                "--overridable does not go with --target qnn, whose programs have no defaults",
                hint="leave --overridable out",
            )
        if options.precision != "fp16" and math.prod(options.static_shape) == _WRONG_TOKENS:
            raise UsageError(
                f"--static-shape has {_WRONG_TOKENS} tokens in all, expected any other number: "
                "QNN's compiler mixes up the rows of products in integers then",
                hint="choose another shape, or --precision fp16",
            )
        find_chip(options.soc, options.htp_arch)

    def lower(self, options: CompileOptions) -> tuple[Pass, ...]:
        forms = _FORMS.get(options.precision)
        if forms is None:
            return fixed_shapes(options)
        if find_chip(options.soc, options.htp_arch).arch < _FIRST_OF_INT16:
            forms = tuple(Form(np.int8, each.activations, each.most_error) for each in forms)
        return (*fixed_shapes(options), QuantizeForHtp(forms))

    def arrange(self, options: CompileOptions) -> tuple[Pass, ...]:
        return ()

    def write_files(self, model: onnx.ModelProto, folder: Path, options: CompileOptions) -> Written:
        names = write_model(model, folder, _SOURCE)
        chip = find_chip(options.soc, options.htp_arch)
        record = compile_for_htp(folder / _SOURCE, folder / MODEL_FILE, chip, keep_source=options.keep_onnx)
        if options.keep_onnx:
            return Written((MODEL_FILE, record.binary, *names), record)
        for name in names:
            (folder / name).unlink()
        return Written((MODEL_FILE, record.binary), record)


TARGET = _Qnn()
