"""`--model` to weights: the frozen base model, its digest, and which of its parameters are bias terms."""

from bitfit_export.base_model.bias_terms import is_bias_term, select_bias_terms
from bitfit_export.base_model.loading import BaseModel, load_base_model, state_digest
from bitfit_export.base_model.source import ALIASES, ModelSource, model_argument, resolve_model

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
