"""`--model` to weights: the frozen base model, its digest, and which of its parameters are bias terms."""

from bitfit_export.base_model.bias_terms import is_bias_term, select_bias_terms
from bitfit_export.base_model.loading import (
    ALIASES,
    BaseModel,
    ModelSource,
    load_base_model,
    model_argument,
    resolve_model,
    state_digest,
)

__all__ = [
    "ALIASES",
    "BaseModel",
    "ModelSource",
    "is_bias_term",
    "load_base_model",
    "model_argument",
    "resolve_model",
    "select_bias_terms",
    "state_digest",
]
