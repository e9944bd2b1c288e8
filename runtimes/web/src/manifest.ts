// The manifest: what a bundle holds, and the digests by which it is known. docs/files.md has the rules.

import { BundleError, COPY_AGAIN } from "./errors.js";
import { type Layout, layoutFromRecord } from "./layout.js";
import {
  checkDigest, checkOneOf, checkRange, checkText, firstRepeated, type Integer, type JsonRecord, parseObject,
} from "./record.js";
import { quoted, shown } from "./shown.js";
import * as spec from "./spec.js";

const MANIFEST_VERSION = 2;
const TARGETS = ["ort", "portable", "qnn"];
const PRECISIONS = ["fp32", "fp16", "int8", "int8-static", "w8a16", "int4"];
/** With ranges of activations that are constants. */
const HAS_RANGES = ["int8", "int8-static", "w8a16"];
const ROW_DTYPES = ["fp32", "fp16"];
const INT32_MAX = 2 ** 31 - 1;
const UINT32_MAX = 2 ** 32 - 1;
const INT64_MAX = 2n ** 63n - 1n;
const EXPORT_ANEW = "export the bundle again";

export interface FileRecord {
  readonly sha256: string;
  readonly size: number;
  readonly crc32c: number;
}

export interface TaskRecord {
  readonly name: string;
  readonly file: string;
  readonly sha256: string;
  readonly problemType: spec.ProblemType;
  /** In id order; empty for a regression. */
  readonly labels: readonly string[];
  /** The number of head outputs: one for a regression, else one per label. */
  readonly labelCount: number;
  readonly taskVersion: number;
  /** Tokens to which texts were truncated in training. */
  readonly maxLength: number;
  readonly metrics: ReadonlyMap<string, number>;
}

export interface Port {
  readonly name: string;
  readonly role: string;
  readonly dtype: string;
  /** A number or a symbol for each dimension. */
  readonly shape: readonly (number | string)[];
}

export interface ProgramRecord {
  readonly file: string;
  readonly atLoad: (typeof spec.AT_LOAD)[number];
  readonly inputs: readonly Port[];
  readonly outputs: readonly Port[];
}

export interface Manifest {
  readonly productVersion: string;
  readonly base: { readonly name: string; readonly revision: string | null; readonly digest: string };
  readonly layout: Layout;
  readonly layoutKind: (typeof spec.LAYOUT_KINDS)[number];
  readonly target: string;
  readonly precision: string;
  readonly opset: number;
  readonly modality: string;
  readonly programs: ReadonlyMap<string, ProgramRecord>;
  readonly files: ReadonlyMap<string, FileRecord>;
  readonly tasks: ReadonlyMap<string, TaskRecord>;
  /** The longest sequence in tokens; of a text model alone, as the next two. */
  readonly maxPositions: number;
  readonly vocabSize: number;
  readonly padTokenId: number;
  /** Batch and sequence of the text inputs, where they are fixed. */
  readonly staticShape: readonly [number, number] | null;
  readonly overridable: boolean;
  readonly prepacked: boolean;
  /** What was compiled ahead of time for an accelerator, which no browser runs: the paths of its files. */
  readonly acceleratorFiles: readonly string[];
  /** The most bytes of each part of a file that is served in parts: `bitfit-pack` writes it. */
  readonly parts: ReadonlyMap<string, number>;
}

/**
 * Reads and checks a manifest.
 *
 * @throws BundleError: it is malformed, or does not hold.
 */
export async function readManifest(data: Uint8Array, where: string = spec.MANIFEST_FILE): Promise<Manifest> {
  if (data.length > spec.MAX_MANIFEST_SIZE) {
    throw new BundleError(`${where} has ${data.length} bytes, expected at most ${spec.MAX_MANIFEST_SIZE}`);
  }
  const record = parseObject(data, where);
  const version = record.integer("format_version");
  if (version !== MANIFEST_VERSION) {
    // First: what the other keys mean depends on it.
    throw new BundleError(
      `the manifest has format version ${version}, expected ${MANIFEST_VERSION}`,
      "use the release of bitfit-export that wrote the bundle, or export it again",
    );
  }
  const layout = await layoutFromRecord(record.record("layout"));
  const recorded = record.text("layout_digest");
  if (recorded !== layout.digest) {
    throw new BundleError(
      `the manifest's layout_digest is ${quoted(recorded.slice(0, 12))}, its layout gives '${layout.digest.slice(0, 12)}'`,
      COPY_AGAIN,
    );
  }
  const manifest = fromRecord(record, layout);
  checkTogether(manifest);
  return manifest;
}

/** Returns the longest sequence that the bundle's graphs take, in tokens. */
export function longestSequence(manifest: Manifest): number {
  return manifest.staticShape?.[1] ?? manifest.maxPositions;
}

/** Returns the program that answers. */
export function inferProgram(manifest: Manifest): ProgramRecord {
  return manifest.programs.get(spec.INFER) as ProgramRecord; // a manifest without one was refused
}

function fromRecord(record: JsonRecord, layout: Layout): Manifest {
  const productVersion = record.text("product_version");
  checkText(productVersion, "product_version");
  const word = (key: string, known: readonly string[]): string => {
    const value = record.text(key);
    checkOneOf(value, known, key);
    return value;
  };
  const number = (key: string, least: number, most: number): number => inRange(record.integer(key), least, most, key);
  const modality = word("modality", spec.MODALITIES);
  const readsText = modality === "text";
  const maxPositions = readsText ? number("max_positions", 1, INT32_MAX) : 0;
  const vocabSize = readsText ? number("vocab_size", 1, INT32_MAX) : 0;
  const optional = <Value>(key: string, read: () => Value, otherwise: Value): Value => (record.has(key) ? read() : otherwise);
  optional("row_dtype", () => word("row_dtype", ROW_DTYPES), "fp32");
  const precision = word("precision", PRECISIONS);
  const target = word("target", TARGETS);
  optional("fold_reasons", () => checkFoldReasons(record.namedTexts("fold_reasons"), layout), undefined);
  const layoutKind = word("layout_kind", spec.LAYOUT_KINDS) as Manifest["layoutKind"];
  const checkIntegers = (quantization: JsonRecord): void => {
    checkQuantization(quantization, precision);
    checkBiasScales(quantization, layout, layoutKind);
  };
  optional("quantization", () => checkIntegers(record.record("quantization")), undefined);
  return {
    productVersion,
    base: readBase(record.record("base"), layout),
    layout,
    layoutKind,
    target,
    acceleratorFiles: readAccelerator(record, target),
    precision,
    opset: number("opset", 1, INT32_MAX),
    modality,
    maxPositions,
    vocabSize,
    padTokenId: readsText ? number("pad_token_id", 0, vocabSize - 1) : 0,
    programs: mapped(record.namedRecords("programs"), readProgram),
    files: mapped(record.namedRecords("files"), readFile),
    tasks: mapped(record.namedRecords("tasks"), readTask),
    staticShape: optional("static_shape", () => readStaticShape(record), null),
    overridable: optional("overridable", () => record.boolean("overridable"), false),
    prepacked: optional("prepacked", () => record.boolean("prepacked"), false),
    parts: optional("parts", () => readParts(record), new Map()),
  };
}

function checkTogether(manifest: Manifest): void {
  const readsText = manifest.modality === "text";
  for (const path of manifest.files.keys()) checkPath(path);
  if (!manifest.programs.has(spec.INFER)) {
    throw new BundleError(`the manifest's programs lack ${spec.INFER}`, EXPORT_ANEW);
  }
  const needed = [...manifest.programs.values()].map((program) => program.file);
  needed.push(...manifest.acceleratorFiles);
  if (readsText) needed.push(spec.TOKENIZER_FILE);
  for (const name of needed) {
    if (!manifest.files.has(name)) throw new BundleError(`the manifest's files lack ${shown(name)}`, EXPORT_ANEW);
  }
  for (const task of manifest.tasks.values()) {
    if (readsText && task.maxLength > manifest.maxPositions) {
      throw new BundleError(
        `the task ${task.name} has max_length ${task.maxLength}, expected at most ${manifest.maxPositions}`,
      );
    }
  }
  if (manifest.staticShape) {
    if (manifest.layoutKind === "table") {
      throw new BundleError("the layout table has a static_shape, expected the layout packed or named");
    }
    if (readsText && manifest.staticShape[1] > manifest.maxPositions) {
      throw new BundleError(
        `static_shape has ${manifest.staticShape[1]} tokens, expected at most ${manifest.maxPositions}`,
      );
    }
  }
  if (manifest.overridable && manifest.layoutKind !== "named") {
    throw new BundleError(`the layout ${manifest.layoutKind} is overridable, expected the layout named`);
  }
}

function readBase(record: JsonRecord, layout: Layout): Manifest["base"] {
  const base = { name: record.text("name"), revision: record.textOrNull("revision"), digest: record.text("digest") };
  checkText(base.name, "the base model's name");
  if (base.revision !== null) checkText(base.revision, "the base model's revision");
  checkDigest(base.digest, "the base model's digest");
  if (base.digest !== layout.baseDigest) {
    throw new BundleError(
      `the layout is for the base ${layout.baseDigest.slice(0, 12)}, expected ${base.digest.slice(0, 12)}`,
    );
  }
  return base;
}

function readFile(record: JsonRecord): FileRecord {
  const sha256 = record.text("sha256");
  checkDigest(sha256, "a file's sha256");
  const size = record.integer("size");
  checkRange(size, 0, INT64_MAX, "a file's size");
  return { sha256, size: Number(size), crc32c: inRange(record.integer("crc32c"), 0, UINT32_MAX, "a file's crc32c") };
}

function readTask(record: JsonRecord, name: string): TaskRecord {
  if (!spec.TASK_NAME.test(name)) {
    throw new BundleError(`the task name ${quoted(name)} is malformed, expected letters, digits, '.', '_' or '-'`);
  }
  const what = `the task ${name}`;
  const file = record.text("file");
  if (file !== `tasks/${name}.bias`) {
    throw new BundleError(`${what} has the file ${quoted(file)}, expected 'tasks/${name}.bias'`);
  }
  const sha256 = record.text("sha256");
  checkDigest(sha256, `${what}: sha256`);
  const problemType = record.text("problem_type") as spec.ProblemType;
  checkOneOf(problemType, Object.keys(spec.PROBLEM_CODES), `${what}: problem_type`);
  const labels = record.texts("labels");
  // A regression's one output has no name.
  const count = problemType === "regression" ? 0 : spec.FIXED_LABEL_COUNTS[problemType];
  if (count === undefined ? labels.length < 1 || labels.length > spec.MAX_LABELS : labels.length !== count) {
    throw new BundleError(
      `${what}: a ${problemType} task has ${labels.length} labels, expected ${count ?? `1 to ${spec.MAX_LABELS}`}`,
    );
  }
  checkUnique(labels, `${what}: labels`);
  const metrics = record.numbers("metrics");
  for (const metric of metrics.keys()) checkText(metric, `${what}: a metric's name`);
  return {
    name,
    file,
    sha256,
    problemType,
    labels,
    labelCount: problemType === "regression" ? 1 : labels.length,
    taskVersion: inRange(record.integer("task_version"), 1, UINT32_MAX, `${what}: task_version`),
    maxLength: inRange(record.integer("max_length"), 1, INT32_MAX, `${what}: max_length`),
    metrics,
  };
}

function readProgram(record: JsonRecord): ProgramRecord {
  const file = record.text("file");
  const atLoad = record.text("at_load");
  checkOneOf(atLoad, spec.AT_LOAD, "at_load");
  return {
    file,
    atLoad: atLoad as ProgramRecord["atLoad"],
    inputs: readPorts(record, "inputs", spec.INPUT_ROLES),
    outputs: readPorts(record, "outputs", spec.OUTPUT_ROLES),
  };
}

function readPorts(record: JsonRecord, key: string, roles: readonly string[]): Port[] {
  const ports = record.records(key).map((each) => {
    const name = each.text("name");
    const port = { name, role: each.text("role"), dtype: each.text("dtype"), shape: each.integersOrTexts("shape") };
    checkText(name, `${key}: a name`);
    checkOneOf(port.role, roles, `the role of ${shown(name)}`);
    checkOneOf(port.dtype, spec.DTYPES, `the dtype of ${shown(name)}`);
    checkPortShape(name, port.shape);
    return port as Port;
  });
  if (!ports.length) throw new BundleError(`a program has no ${key}, expected at least one`);
  checkUnique(ports.map((each) => each.name), key);
  return ports;
}

function checkPortShape(name: string, shape: readonly (Integer | string)[]): void {
  if (shape.length > spec.MAX_DIMENSIONS) {
    throw new BundleError(`${shown(name)} has ${shape.length} dimensions, expected at most ${spec.MAX_DIMENSIONS}`);
  }
  for (const size of shape) {
    if (typeof size === "string") checkText(size, `${shown(name)}: a dimension`);
    else checkRange(size, 1, UINT32_MAX, `${shown(name)}: a dimension`);
  }
}

function readStaticShape(record: JsonRecord): [number, number] | null {
  if (record.take("static_shape") === null) return null;
  const shape = record.integers("static_shape");
  if (shape.length !== 2) {
    throw new BundleError(`static_shape is ${quoted(shape)}, expected a batch and a sequence`);
  }
  const [batch, sequence] = shape as [Integer, Integer];
  return [
    inRange(batch, 1, INT32_MAX, "static_shape: the batch"),
    inRange(sequence, 1, INT32_MAX, "static_shape: the sequence"),
  ];
}

function checkFoldReasons(reasons: ReadonlyMap<string, string>, layout: Layout): void {
  const names = new Set(layout.biases.map((each) => each.name));
  for (const [name, reason] of reasons) {
    if (!names.has(name)) throw new BundleError(`fold_reasons names ${quoted(name)}, expected bias terms of the layout`);
    checkText(reason, `fold_reasons: the reason of ${shown(name)}`);
  }
}

function checkQuantization(record: JsonRecord, precision: string): void {
  const ranges = record.namedRecords("ranges");
  const others = record.namedTexts("not_quantized");
  if (ranges.size && !HAS_RANGES.includes(precision)) {
    throw new BundleError(`quantization has ranges in the precision ${precision}, expected ${HAS_RANGES.join(", ")}`);
  }
  for (const [name, range] of ranges) {
    checkText(name, "quantization: a product's name");
    if (others.has(name)) {
      throw new BundleError(`quantization has ${quoted(name)} in ranges and in not_quantized, expected one`);
    }
    if (!(range.number("scale") > 0)) throw new BundleError("quantization: a scale is not above 0, expected a number that is");
    checkRange(range.integer("zero_point"), 0, precision === "w8a16" ? 65535 : 255, "quantization: a zero_point");
    if (!(range.number("used") >= 0)) throw new BundleError("quantization: used is below 0, expected 0 or more");
  }
  for (const [name, reason] of others) {
    checkText(name, "quantization: a product's name");
    checkText(reason, `quantization: the reason of ${shown(name)}`);
  }
}

/** Biases that are int32 have one scale for each value, a normal float32. No browser runs a model with them. */
function checkBiasScales(record: JsonRecord, layout: Layout, layoutKind: string): void {
  if (!record.has("bias_scales")) return;
  const sizes = new Map(layoutKind === "named" ? layout.biases.map((each) => [each.name, each.shape.reduce((a, b) => a * b)]) : []);
  for (const [name, scales] of record.namedNumbers("bias_scales")) {
    if (scales.some((each) => !(each >= 2 ** -126 && each <= 2 ** 128 - 2 ** 104))) {
      throw new BundleError(`quantization: a scale of ${shown(name)} is out of range, expected a normal float32`);
    }
    if (sizes.get(name) !== scales.length) {
      throw new BundleError(
        `quantization has ${scales.length} bias_scales for ${quoted(name)}, expected one for each value of a bias input of the layout named`,
      );
    }
  }
}

/** Returns the files of a program that was compiled ahead of time: with the target qnn, and with no other. */
function readAccelerator(manifest: JsonRecord, target: string): string[] {
  const hasOne = manifest.has("accelerator");
  if (hasOne !== (target === "qnn")) {
    const [found, expected] = hasOne ? ["an accelerator", "none"] : ["no accelerator", "one"];
    throw new BundleError(`the manifest of the target ${target} has ${found}, expected ${expected}`, EXPORT_ANEW);
  }
  if (!hasOne) return [];
  const record = manifest.record("accelerator");
  for (const key of ["sdk", "soc"]) checkText(record.text(key), `accelerator: ${key}`);
  for (const key of ["soc_model", "arch", "nodes"]) checkRange(record.integer(key), 0, UINT32_MAX, `accelerator: ${key}`);
  const files = [record.text("binary"), record.textOrNull("source")].filter((path) => path !== null);
  for (const path of files) checkText(path, "accelerator: a file");
  return files;
}

function readParts(record: JsonRecord): Map<string, number> {
  const sizes = record.record("parts");
  return new Map([...sizes.members.keys()].map((path) => [path, inRange(sizes.integer(path), 1, INT32_MAX, "the size of a part")]));
}

/** Refuses a path that could leave the bundle, on POSIX or on Windows. */
function checkPath(path: string): void {
  checkText(path, "a file's path");
  if (/[\\:*]/.test(path) || path.split("/").some((part) => part === "" || part === "." || part === "..")) {
    throw new BundleError(`the manifest names the file ${quoted(path)}, expected a path inside the bundle`);
  }
}

function checkUnique(names: readonly string[], what: string): void {
  for (const name of names) checkText(name, `${what}: a name`);
  const twice = firstRepeated(names);
  if (twice !== undefined) throw new BundleError(`${what}: ${shown(twice)} is there twice, expected unique names`);
}

function inRange(value: Integer, least: Integer, most: Integer, what: string): number {
  checkRange(value, least, most, what);
  return Number(value);
}

function mapped<From, To>(members: ReadonlyMap<string, From>, read: (value: From, name: string) => To): Map<string, To> {
  return new Map(Array.from(members, ([name, value]) => [name, read(value, name)]));
}
