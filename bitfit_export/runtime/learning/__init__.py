"""Learning a row on the device: the program `train_step`, an optimiser over one row, and nothing else."""

from bitfit_export.runtime.learning.examples import LabelledTexts
from bitfit_export.runtime.learning.plan import Epoch, LearningPlan
from bitfit_export.runtime.learning.settings import LearningSettings
from bitfit_export.runtime.learning.trainer import BiasTrainer, LearnedRow

__all__ = ["BiasTrainer", "Epoch", "LabelledTexts", "LearnedRow", "LearningPlan", "LearningSettings"]
