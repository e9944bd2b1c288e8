"""`--target portable`: standard ONNX operators alone, for OpenVINO, IREE, TensorRT and other readers of ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from bitfit_export.compiler.calibration.activation_stats import CollectActivationStats
from bitfit_export.compiler.passes.convert_to_half import ConvertToHalf
from bitfit_export.compiler.passes.quantize_weights import QuantizeWeights
from bitfit_export.compiler.targets.base import PrecisionPasses, Target

__all__ = ["TARGET"]


class _Portable(Target):
    name = "portable"
    precisions: ClassVar[Mapping[str, PrecisionPasses]] = {
        "fp32": PrecisionPasses(at_load="all"),
        "fp16": PrecisionPasses(store=(ConvertToHalf(),), at_load="all"),
        "int8": PrecisionPasses((CollectActivationStats(),), (QuantizeWeights("int8"),), at_load="all"),
        "int8-static": PrecisionPasses((CollectActivationStats(),), (QuantizeWeights("int8-static"),), at_load="all"),
        "int4": PrecisionPasses((CollectActivationStats(),), (QuantizeWeights("int4"),), at_load="all"),
    }


TARGET = _Portable()
