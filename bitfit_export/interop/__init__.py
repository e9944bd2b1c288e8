"""Tasks that other tools trained, and tasks for other tools: transformers checkpoints and PEFT adapters.

`import_task` makes a delta of a checkpoint in which only bias terms and the head differ from the base model,
`merge_task` makes a checkpoint of a delta. Both run the two models before they answer: the logits must be the same.
"""

from bitfit_export.interop.difference import Difference, TensorChange, compare_with_base
from bitfit_export.interop.importing import import_task, task_of_checkpoint
from bitfit_export.interop.merging import MERGED, merge_task
from bitfit_export.interop.reading import Checkpoint, is_checkpoint, read_checkpoint

__all__ = [
    "MERGED",
    "Checkpoint",
    "Difference",
    "TensorChange",
    "compare_with_base",
    "import_task",
    "is_checkpoint",
    "merge_task",
    "read_checkpoint",
    "task_of_checkpoint",
]
