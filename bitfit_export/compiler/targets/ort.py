"""`--target ort`: ONNX Runtime's CPU kernels. The graph is optimised when it is compiled, not at each load."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import onnx

from bitfit_export.compiler.calibration.activation_stats import CollectActivationStats
from bitfit_export.compiler.compilation import Pass
from bitfit_export.compiler.options import CompileOptions
from bitfit_export.compiler.passes.add_biases_in_kernels import AddBiasesInKernels
from bitfit_export.compiler.passes.fuse_attention import FuseAttention
from bitfit_export.compiler.passes.fuse_for_ort import FuseForOrt, prepack
from bitfit_export.compiler.passes.fuse_products import FuseProducts
from bitfit_export.compiler.passes.merge_projections import MergeProjections
from bitfit_export.compiler.passes.quantize_weights import QuantizeWeights
from bitfit_export.compiler.passes.share_equal_weights import ShareEqualWeights
from bitfit_export.compiler.passes.store_in_half import StoreInHalf
from bitfit_export.compiler.targets.base import PrecisionPasses, Target, Written, fixed_shapes
from bitfit_export.errors import UsageError

__all__ = ["TARGET"]


class _Ort(Target):
    name = "ort"
    precisions: ClassVar[Mapping[str, PrecisionPasses]] = {
        "fp32": PrecisionPasses(),
        # Weights are to be widened once, when they are loaded.
        "fp16": PrecisionPasses(store=(StoreInHalf(),), at_load="basic"),
        "int8": PrecisionPasses((CollectActivationStats(),), (QuantizeWeights("int8"),)),
        "int8-static": PrecisionPasses((CollectActivationStats(),), (QuantizeWeights("int8-static"),)),
        "int4": PrecisionPasses((CollectActivationStats(),), (QuantizeWeights("int4"),), store=(ShareEqualWeights(),)),
    }

    fuse_training = (FuseProducts(), FuseForOrt())

    def check(self, options: CompileOptions) -> None:
        # ONNX Runtime 1.31 crashes in some shapes when it reads packed int8 or int4 weights from a file.
        if options.prepack and options.precision != "fp32":
            raise UsageError(
                f"--prepack goes with --precision fp32, not with {options.precision}", hint="leave --prepack out"
            )

    def arrange(self, options: CompileOptions) -> tuple[Pass, ...]:
        return (MergeProjections(), *super().arrange(options))

    def lower(self, options: CompileOptions) -> tuple[Pass, ...]:
        store = self.precisions[options.precision].store
        return (FuseAttention(), *fixed_shapes(options), FuseForOrt(), AddBiasesInKernels(), *store)

    def write_files(self, model: onnx.ModelProto, folder: Path, options: CompileOptions) -> Written:
        written = super().write_files(model, folder, options)
        if options.prepack:
            prepack(*(folder / name for name in written.files))
        return written


TARGET = _Ort()
