"""Compile a base model and its tasks into one bundle: constant weights, biases as inputs, a small row per task.

example: bitfit-export --model minilm-l6 --tasks rte,sst2 --output bundles/minilm-l6
         bitfit-export --model mpnet-base --tasks rte,sst2 --train-missing --data glue/
         bitfit-export --print-passes --precision int8
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bitfit_export.accelerators.qnn import CHIPS, DEFAULT_CHIP
from bitfit_export.base_model.loading import BaseModel, load_base_model
from bitfit_export.base_model.source import ALIASES, resolve_model
from bitfit_export.bundle import BUNDLE, Manifest, read_manifest
from bitfit_export.bundle.manifest import LAYOUT_KINDS, PRECISIONS, ROW_DTYPES
from bitfit_export.cli.calibration_texts import read_calibration_texts
from bitfit_export.cli.streams import say
from bitfit_export.cli.text_tables import print_comparisons, print_table, size_text
from bitfit_export.cli.words import words
from bitfit_export.compiler import CompileOptions, compile_bundle
from bitfit_export.compiler.options import default_options
from bitfit_export.compiler.targets import TARGETS
from bitfit_export.delta import TaskDelta
from bitfit_export.errors import MissingExtraError, UsageError
from bitfit_export.files import check_output, new_folder
from bitfit_export.files.outputs import refuse_overlap
from bitfit_export.interop.delta_lookup import find_deltas, load_deltas, locate_deltas
from bitfit_export.signing import read_private_key, sign_bundle
from bitfit_export.verification.bundle import verify_bundle
from bitfit_export.verification.comparison import VerifyReport

if TYPE_CHECKING:
    from bitfit_export.compiler.pipeline import Observer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help=f"{', '.join(ALIASES)}, a Hub id, or a folder")
    parser.add_argument(
        "--tasks",
        help="names separated by commas; NAME=PATH is the folder of a delta, a checkpoint or a PEFT adapter; "
        "hub:ORG/NAME a delta on the Hugging Face Hub",
    )
    parser.add_argument("--add-biases", action="store_true", help="give each linear layer without a bias one of zeros")
    parser.add_argument("--revision", help="the base model's revision on the Hub")
    parser.add_argument("--deltas", type=Path, help="folder with a delta for each task")
    parser.add_argument(
        "--train-missing", action="store_true", help="train tasks that have no delta first, as bitfit-train does"
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="their examples, in DIR/TASK (GLUE tasks: from the Hugging Face Hub)"
    )
    parser.add_argument("--output", type=Path, help="the bundle's folder (bundles/MODEL)")
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder if it exists")
    parser.add_argument(
        "--layout", choices=LAYOUT_KINDS, help="how the graph takes biases (table; qnn: packed or named)"
    )
    parser.add_argument("--target", choices=tuple(TARGETS), default="ort", help="what runs the model (%(default)s)")
    parser.add_argument("--precision", choices=PRECISIONS, help="precision of the weights (fp32; qnn: fp16)")
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="texts like yours, for int8, int8-static, w8a16 and int4: JSON or plain lines",
    )
    parser.add_argument("--no-fold", action="store_true", help="keep every bias term in the row")
    parser.add_argument(
        "--static-shape", metavar="B,S", help="fixed batch size and sequence length, for packed or named (qnn: 1,128)"
    )
    parser.add_argument("--keep-padding", action="store_true", help="compute padding too, as an ordinary export does")
    parser.add_argument("--trainable", action="store_true", help="add the program train_step: devices learn rows")
    parser.add_argument("--overridable", action="store_true", help="named inputs keep the base's biases as defaults")
    parser.add_argument(
        "--row-dtype", choices=ROW_DTYPES, default="fp32", help="precision of the row files (%(default)s)"
    )
    parser.add_argument("--sign", type=Path, metavar="KEY", help="sign the bundle and its rows (bitfit keygen)")
    parser.add_argument(
        "--prepack", action="store_true", help="store weights in this processor's own form: larger files, faster start"
    )
    parser.add_argument(
        "--soc", metavar="CHIP", help=f"the chip for qnn: {', '.join(CHIPS)}, or a number ({DEFAULT_CHIP})"
    )
    parser.add_argument("--htp-arch", type=int, metavar="N", help="the chip's version of the HTP, such as 73")
    parser.add_argument(
        "--keep-onnx", action="store_true", help="keep the graph too, for hosts that compile qnn on the device"
    )
    passes = parser.add_argument_group("passes")
    passes.add_argument("--print-passes", action="store_true", help="list the passes for these options and exit")
    passes.add_argument("--dump-passes", type=Path, metavar="DIR", help="write the graph after each pass to DIR")


def run(options: argparse.Namespace) -> int:
    wanted = compile_options(options)
    if options.print_passes:
        print(_passes(wanted))
        return 0
    for name in ("model", "tasks"):
        if getattr(options, name) is None:
            raise UsageError(f"--{name} is missing", hint="bitfit-export --model minilm-l6 --tasks rte,sst2")
    source = resolve_model(options.model)
    output = options.output or Path("bundles") / source.short_name
    replaces = BUNDLE if options.overwrite else None
    check_output(output, inputs=[source.location], replaces=replaces)
    key = None if options.sign is None else read_private_key(options.sign)
    texts = read_calibration_texts(options.calibration) if options.calibration is not None else ()
    folders = _delta_folders(options, source.short_name)
    refuse_overlap(output, filter(None, folders.values()))
    started = time.monotonic()
    say(f"loading {source.name}")
    base = load_base_model(options.model, revision=options.revision, add_biases=options.add_biases)
    if base.tokenizer is None:
        raise UsageError(
            f"{source.name} reads {base.modality}, expected text: other bundles cannot be verified yet",
            hint="compile_bundle of bitfit_export.compiler writes a bundle without verifying it",
        )
    deltas = load_deltas(_trained(folders, base, options.data), base, say=say)
    with new_folder(output, replaces=replaces) as folder:
        say(f"compiling {len(deltas)} tasks")
        model = compile_bundle(base, deltas, folder, wanted, observe=_observer(options.dump_passes), texts=texts)
        compiled = time.monotonic()
        for reason, count in Counter(model.not_quantized.values()).items():
            say(f"matrix products that stay in float32: {count}, for {reason}")
        if model.keeps_padding is not None:
            say(f"padding is computed like text, for {model.keeps_padding}")
        say("verifying against PyTorch")
        report = verify_bundle(folder, base, deltas, packer=model.packer)
        manifest = read_manifest(folder)
        if key is not None:
            sign_bundle(folder, key)
        verified = time.monotonic()
        sizes = {name: (folder / record.file).stat().st_size for name, record in manifest.tasks.items()}
    _print_report(base, deltas, manifest, sizes, report)
    say(f"compiled in {compiled - started:.1f} s, verified in {verified - compiled:.1f} s")
    print(output)
    return 0


def _delta_folders(options: argparse.Namespace, model: str) -> Mapping[str, Path | None]:
    """The folder of each task's delta; None for one to train."""
    if options.data is not None and not options.train_missing:
        raise UsageError("--data without --train-missing, which trains on it", hint="add --train-missing")
    find = locate_deltas if options.train_missing else find_deltas
    return find(model, words(options.tasks), options.deltas)


def _trained(folders: Mapping[str, Path | None], base: BaseModel, data: Path | None) -> dict[str, Path]:
    """The folder of each task's delta, after training those that have none."""
    missing = [task for task, folder in folders.items() if folder is None]
    trained: Mapping[str, Path] = {}
    if missing:
        from bitfit_export.cli.train_missing import train_missing

        trained = train_missing(base, missing, data)
    return {task: folder or trained[task] for task, folder in folders.items()}


def _passes(options: CompileOptions) -> str:
    try:
        from bitfit_export.compiler.pipeline import describe_passes, plan_passes
    except ImportError as error:
        raise MissingExtraError(error.name or "onnx", "export") from error
    return describe_passes(plan_passes(options))


def _observer(folder: Path | None) -> Observer | None:
    if folder is None:
        return None
    from bitfit_export.compiler.dump import GraphDump

    return GraphDump(folder)


def compile_options(options: argparse.Namespace) -> CompileOptions:
    """The options as the compiler takes them.

    Raises:
        UsageError: options that exclude each other, or a shape that is none.
    """
    chosen = default_options(options.target, options.precision)
    chosen |= {name: value for name in ("layout", "precision") if (value := getattr(options, name)) is not None}
    if options.static_shape is not None:
        numbers = words(options.static_shape)
        if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
            raise UsageError(f"--static-shape is {options.static_shape!r}, expected BATCH,SEQUENCE such as 1,128")
        chosen["static_shape"] = (int(numbers[0]), int(numbers[1]))
    return CompileOptions(
        **chosen,
        target=options.target,
        fold=not options.no_fold,
        overridable=options.overridable,
        keep_padding=options.keep_padding,
        trainable=options.trainable,
        row_dtype=options.row_dtype,
        prepack=options.prepack,
        soc=options.soc,
        htp_arch=options.htp_arch,
        keep_onnx=options.keep_onnx,
    )


def _print_report(
    base: BaseModel,
    deltas: Mapping[str, TaskDelta],
    manifest: Manifest,
    row_sizes: Mapping[str, int],
    report: VerifyReport,
) -> None:
    parameters = sum(parameter.numel() for parameter in base.module.parameters())
    values = manifest.layout.bias_count
    changed = sum(value.size for value in base.biases.values())
    model_size = sum(record.size for record in manifest.files.values())
    rows_size = sum(row_sizes.values())
    one_each = len(deltas) * model_size
    print_comparisons(report)
    print_table(
        ("", "size"),
        [
            (f"one full model per task, {len(deltas)} of them", size_text(one_each)),
            ("this bundle: one model", size_text(model_size)),
            (f"  and {len(deltas)} rows", size_text(rows_size)),
            ("bundle / full models", f"{(model_size + rows_size) / one_each:.1%}"),
            ("largest row", size_text(max(row_sizes.values()))),
        ],
    )
    say(f"biases: {changed:,} values, {changed / parameters:.3%} of the model's {parameters:,} parameters")
    if values < changed:
        say(f"a row has {values:,} of them; the others are folded into these")
    allowed = report.comparisons[0].tolerance
    bound = "reported only" if allowed is None else f"at most {allowed:.0e} is allowed"
    say(f"largest difference to PyTorch: {report.max_difference:.2e} ({bound})")
