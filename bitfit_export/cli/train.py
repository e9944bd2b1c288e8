"""Train a task with BitFit: only the bias terms and the head of a frozen base model learn. Other methods are available
for comparison.

example: bitfit-train --model minilm-l6 --task rte --data glue/ --learning-rate 1e-3 --epochs 8
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import fields
from pathlib import Path

from bitfit_export.base_model.loading import BaseModel, load_base_model
from bitfit_export.base_model.source import ALIASES, resolve_model
from bitfit_export.bundle import TASK_NAME
from bitfit_export.cli.streams import say
from bitfit_export.cli.words import add_renamed_option, words
from bitfit_export.delta import DELTA
from bitfit_export.errors import UsageError
from bitfit_export.files import check_output
from bitfit_export.interop.delta_lookup import default_output
from bitfit_export.interop.hub import check_push, push_delta
from bitfit_export.runtime.threads import check_threads
from bitfit_export.training import (
    DELTA_METHODS,
    ENGINES,
    HEAD_ACTIVATIONS,
    HEAD_POOLINGS,
    METHODS,
    PROBLEM_TYPES,
    SCHEDULES,
    TaskData,
    TrainingResult,
    TrainingSettings,
    load_task_data,
    train_task,
)
from bitfit_export.training.constant import find_constant_run
from bitfit_export.training.heads import describe_head
from bitfit_export.training.learning_rates import with_learning_rate
from bitfit_export.training.processes import is_first_process, wait_for_all
from bitfit_export.training.work_folder import claimed_work_folder

_DEFAULTS = TrainingSettings()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help=f"{', '.join(ALIASES)}, a Hub id, or a folder")
    parser.add_argument("--add-biases", action="store_true", help="give each linear layer without a bias one of zeros")
    parser.add_argument("--task", required=True, help="a GLUE task, or any name for your own data")
    parser.add_argument("--revision", help="the base model's revision on the Hub")
    parser.add_argument("--output", type=Path, help="the delta's folder (deltas/MODEL/TASK)")
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder if it exists")
    parser.add_argument(
        "--push-to-hub", metavar="ORG/NAME", help="upload the delta, once it is trained, to the Hugging Face Hub"
    )
    parser.add_argument("--restart", action="store_true", help="start again instead of resuming an interrupted run")
    _add_data_arguments(parser)
    _add_training_arguments(parser)


def _add_data_arguments(parser: argparse.ArgumentParser) -> None:
    data = parser.add_argument_group("data (a GLUE task without --data comes from the Hugging Face Hub)")
    data.add_argument("--data", type=Path, help="folder with train.* and dev.* (JSONL, CSV, TSV, Parquet)")
    data.add_argument("--data-revision", help="commit or tag of the data on the Hub (a fixed commit)")
    data.add_argument("--train-file", type=Path, help="training examples, instead of --data")
    data.add_argument("--validation-file", type=Path, help="validation examples, instead of --data")
    data.add_argument(
        "--columns", help="one text column, or two separated by a comma (sentence, or sentence1,sentence2)"
    )
    data.add_argument("--label-column", help="column of the labels")
    data.add_argument("--labels", help="label names in id order, separated by commas")
    data.add_argument("--problem-type", choices=PROBLEM_TYPES, help="kind of task (found from the columns)")
    add_renamed_option(
        data,
        "--train-examples",
        once="--train-rows",
        type=int,
        help="the number of training examples, chosen at random but always the same (all)",
    )
    add_renamed_option(
        data,
        "--validation-examples",
        once="--validation-rows",
        type=int,
        help="the number of validation examples, chosen likewise (all)",
    )


def _add_training_arguments(parser: argparse.ArgumentParser) -> None:
    training = parser.add_argument_group("training")
    training.add_argument("--method", choices=METHODS, default=_DEFAULTS.method, help="what is trained (%(default)s)")
    training.add_argument("--bias-terms", help="the bias terms to train, such as b_q,b_m2 or query,intermediate (all)")
    training.add_argument(
        "--pooling",
        choices=HEAD_POOLINGS,
        default=_DEFAULTS.pooling,
        help="what the head reads (%(default)s: what the model names, else what its transformers class uses)",
    )
    training.add_argument(
        "--activation",
        choices=HEAD_ACTIVATIONS,
        default=_DEFAULTS.activation,
        help="activation of a dense layer in the head; none for a linear head (%(default)s)",
    )
    training.add_argument(
        "--learning-rate", type=float, help="peak learning rate (the paper's for the task, model and method)"
    )
    training.add_argument("--epochs", type=int, default=_DEFAULTS.epochs, help="the number of epochs (%(default)s)")
    training.add_argument(
        "--batch-size", type=int, default=_DEFAULTS.batch_size, help="examples in a step (%(default)s)"
    )
    training.add_argument(
        "--schedule", choices=SCHEDULES, default=_DEFAULTS.schedule, help="learning rate schedule (%(default)s)"
    )
    training.add_argument(
        "--warmup", type=float, default=_DEFAULTS.warmup, help="warm-up, as a share of the steps (%(default)s)"
    )
    training.add_argument("--seed", type=int, default=_DEFAULTS.seed, help="random seed (%(default)s)")
    training.add_argument(
        "--max-length", type=int, default=_DEFAULTS.max_length, help="longest sequence, in tokens (%(default)s)"
    )
    training.add_argument("--stride", type=int, help="tokens that windows of a long context share (a third of them)")
    training.add_argument("--bf16", action="store_true", help="run the training steps in bfloat16")
    training.add_argument(
        "--patience", type=int, help="stop after this number of epochs without a better metric (never)"
    )
    training.add_argument(
        "--adapter-size", type=int, default=_DEFAULTS.adapter_size, help="width of adapters (%(default)s)"
    )
    training.add_argument(
        "--sparsity",
        type=float,
        default=_DEFAULTS.sparsity,
        help="share of the weights that diff pruning changes (%(default)s)",
    )
    training.add_argument(
        "--l0-penalty", type=float, default=_DEFAULTS.l0_penalty, help="penalty on diff pruning's gates (%(default)s)"
    )
    training.add_argument(
        "--engine",
        choices=ENGINES,
        default=_DEFAULTS.engine,
        help="what computes the steps; onnxruntime trains biases and heads alone (%(default)s)",
    )
    training.add_argument("--threads", type=int, help="CPU threads")


def run(options: argparse.Namespace) -> int:
    if not TASK_NAME.fullmatch(options.task):
        raise UsageError(f"{options.task!r} cannot be a task's name", hint="use letters, digits, '.', '_' and '-'")
    if options.threads is not None:
        check_threads(options.threads, "--threads")
    settings = _settings(options)
    if options.push_to_hub is not None and settings.method not in DELTA_METHODS:
        raise UsageError(f"--push-to-hub with --method {settings.method}, which makes no delta")
    output = _checked_output(options)
    if options.push_to_hub is not None:
        check_push(options.push_to_hub)
    data = load_task_data(
        options.task,
        data=options.data,
        train_file=options.train_file,
        validation_file=options.validation_file,
        columns=words(options.columns),
        label_column=options.label_column,
        problem_type=options.problem_type,
        labels=words(options.labels),
        train_examples=options.train_examples,
        validation_examples=options.validation_examples,
        revision=options.data_revision,
    )
    base = load_base_model(options.model, revision=options.revision, add_biases=options.add_biases)
    train_delta(
        base, data, settings, output, threads=options.threads, overwrite=options.overwrite, restart=options.restart
    )
    if options.push_to_hub is not None and is_first_process():
        print(push_delta(output, options.push_to_hub))
    return 0


def train_delta(
    base: BaseModel,
    data: TaskData,
    settings: TrainingSettings,
    output: Path,
    *,
    threads: int | None = None,
    overwrite: bool = False,
    restart: bool = False,
) -> None:
    """Train a task, say how it goes, and write its delta to `output`.

    Checkpoints are in a folder beside `output` until then, and an interrupted run resumes from them.

    Args, Raises: as `claimed_work_folder`.
    """
    settings = with_learning_rate(settings, data.spec.name, base)
    work_folder = output.parent / f".{output.name}.training"
    with claimed_work_folder(work_folder, base, data, settings, restart=restart):
        result = _train(base, data, settings, work_folder, threads)
        # The first process removes the checkpoints, and the others read the best one of them.
        wait_for_all()
        if not is_first_process():
            return
        _publish(result, settings.method, base, data, output, overwrite=overwrite)
        _warn_if_constant(result, settings, data)
        shutil.rmtree(work_folder, ignore_errors=True)


def _checked_output(options: argparse.Namespace) -> Path:
    """Returns the delta's folder, after checking that it may be written."""
    source = resolve_model(options.model)
    output: Path = options.output or default_output(source.short_name, options.task)
    if is_first_process():
        inputs = [source.location, options.data, options.train_file, options.validation_file]
        check_output(output, inputs=inputs, replaces=DELTA if options.overwrite else None)
    return output


def _settings(options: argparse.Namespace) -> TrainingSettings:
    values = {field.name: getattr(options, field.name) for field in fields(TrainingSettings)}
    return TrainingSettings(**values | {"bias_terms": tuple(words(options.bias_terms) or ())})


def _train(
    base: BaseModel, data: TaskData, settings: TrainingSettings, work_folder: Path, threads: int | None
) -> TrainingResult:
    import torch

    from bitfit_export.cli.progress import EpochReport

    if threads is not None:
        torch.set_num_threads(threads)
    if not is_first_process():
        return train_task(base, data, settings, work_folder)
    if settings.bf16 and not _computes_bf16():
        say("warning: this processor has no instructions for bfloat16; training is much faster without --bf16")
    say(f"head: {describe_head(base, data.spec.problem_type, settings)}")
    say(
        f"learning rate: {settings.learning_rate:g}, {settings.schedule}, warm-up in {settings.warmup:.0%} of the steps"
    )
    return train_task(base, data, settings, work_folder, [EpochReport(data.spec.metrics[0])])


def _computes_bf16() -> bool:
    """Whether what torch trains on multiplies bfloat16 itself; False only where that is known."""
    import torch

    if torch.cuda.is_available() or not hasattr(torch.cpu, "get_capabilities"):
        return True
    found = torch.cpu.get_capabilities()
    return found.get("architecture") != "x86_64" or bool(found["avx512_bf16"] or found["amx_bf16"])


def _publish(
    result: TrainingResult, method: str, base: BaseModel, data: TaskData, output: Path, *, overwrite: bool
) -> None:
    scores = ", ".join(f"{name} {value:.4f}" for name, value in result.metrics.items())
    total = sum(parameter.numel() for parameter in base.module.parameters())
    in_base, in_head = result.trained_parameters
    say(f"best epoch: {result.best_epoch}; on {len(data.validation)} examples: {scores}")
    say(f"trained {in_base:,} of the base model's {total:,} parameters ({in_base / total:.3%}), {in_head:,} of a head")
    if result.delta is None:
        say(f"--method {method} changes more than biases and head: there is no delta to compile, nothing was written")
        return
    from bitfit_export.training.model_card import render_card

    result.delta.save(output, card=render_card(result.delta, base.source.short_name), overwrite=overwrite)
    print(output)


def _warn_if_constant(result: TrainingResult, settings: TrainingSettings, data: TaskData) -> None:
    """Say so where the answers never got clearly better than the same one for every example, and what may help."""
    found = find_constant_run(data.spec, data.validation, result.history)
    if found is None:
        return
    say(
        f"warning: nothing was learnt: {found.metric} reached {found.best:.4f} on {found.examples} examples, "
        f"and the same answer to every example has {found.constant:.4f}"
    )
    ideas = [f"another --learning-rate than {settings.learning_rate:g}", f"more --epochs than {settings.epochs}"]
    if settings.schedule != _DEFAULTS.schedule or settings.warmup < _DEFAULTS.warmup:
        ideas.insert(0, f"--schedule {_DEFAULTS.schedule} --warmup {_DEFAULTS.warmup:g}")
    if result.record["pooling"] not in ("mean", "tokens"):
        ideas.insert(0, "--pooling mean")
    say(f"hint: train again with {', '.join(ideas[:-1])} or {ideas[-1]}")
