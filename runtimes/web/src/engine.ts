// The frozen model: the program `infer` of a bundle in ONNX Runtime Web.

import type * as OrtModule from "onnxruntime-web";
import { BundleError, EXPORT_AGAIN, firstLine, InputError, UsageError } from "./errors.js";
import { LABELS } from "./layout.js";
import { inferProgram, longestSequence, type Manifest } from "./manifest.js";
import { readOnnxFile } from "./onnx_file.js";
import { quoted } from "./shown.js";
import * as spec from "./spec.js";
import type { Feeds } from "./tasks.js";
import type { FloatTensor, IntTensor } from "./tensors.js";

/** The module onnxruntime-web, in any of its builds. */
export type Ort = typeof OrtModule;
type Bytes = Uint8Array<ArrayBuffer>;

export interface EngineOptions {
  /** The module onnxruntime-web; by default its build for WebAssembly, or that for Node. */
  readonly ort?: Ort | undefined;
  /**
   * `wasm` (default), or `webgpu`, for which `ort` is the module onnxruntime-web/webgpu. Models in integers run on the
   * processor in either.
   */
  readonly engine?: "wasm" | "webgpu" | undefined;
  /** Threads for one run; by default as many as the page may have, which is one where it is not isolated. */
  readonly threads?: number | undefined;
}

const TEXT_INPUTS = [spec.INPUT_IDS, spec.ATTENTION_MASK, spec.TOKEN_TYPE_IDS];
const AT_LOAD = { none: "disabled", basic: "basic", all: "all" } as const;
// A function that returns a vector of 128 bits.
const SIMD_PROGRAM = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11,
);

/**
 * Returns the module that runs models: the given one, or the package's.
 *
 * @throws UsageError: this browser cannot run it.
 */
export async function loadOrt(options: EngineOptions): Promise<Ort> {
  const { engine = "wasm", threads } = options;
  if (engine !== "wasm" && engine !== "webgpu") throw new UsageError(`the engine is ${quoted(engine)}, expected wasm or webgpu`);
  if (engine === "webgpu" && !options.ort) {
    throw new UsageError("the engine webgpu has no module, expected one as `ort`", 'pass ort: await import("onnxruntime-web/webgpu")');
  }
  if (threads !== undefined && (!Number.isInteger(threads) || threads < 1)) {
    throw new UsageError(`threads is ${quoted(threads)}, expected 1 or more`);
  }
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(SIMD_PROGRAM)) {
    throw new UsageError(
      "this browser's WebAssembly lacks SIMD, which onnxruntime-web needs",
      "use a browser of 2023 or later, on a processor with SSE4.1 or NEON",
    );
  }
  const isNode = typeof process !== "undefined" && process.versions?.node !== undefined;
  const ort = options.ort ?? ((isNode ? await import("onnxruntime-web") : await import("onnxruntime-web/wasm")) as Ort);
  if (threads !== undefined) ort.env.wasm.numThreads = threads;
  ort.env.logLevel = "fatal"; // its failures become errors here; what it would log besides is a repetition
  return ort;
}

export class FrozenModel {
  /** The names of the graph inputs that a text becomes. */
  readonly textInputs: readonly string[];
  /** The number of labels that the head inputs have, where it is fixed. */
  readonly labels: number | undefined;
  /** The names of the graph outputs. */
  readonly outputs: readonly string[];
  readonly maxPositions: number;
  private running: Promise<unknown> = Promise.resolve();

  private constructor(
    private readonly ort: Ort,
    private readonly session: OrtModule.InferenceSession,
    private readonly manifest: Manifest,
  ) {
    const infer = inferProgram(manifest);
    this.labels = checkProgram(infer.file, session, manifest);
    const names = infer.inputs.map((port) => port.name);
    this.textInputs = TEXT_INPUTS.filter((name) => names.includes(name));
    this.outputs = infer.outputs.map((port) => port.name);
    this.maxPositions = longestSequence(manifest);
  }

  /**
   * @param files the bytes of the model, and of every file that the manifest names with its weights.
   * @throws BundleError: the model cannot be loaded, or is not the one that the manifest describes.
   */
  static async open(ort: Ort, files: ReadonlyMap<string, Bytes>, manifest: Manifest, engine: string): Promise<FrozenModel> {
    const infer = inferProgram(manifest);
    const model = files.get(infer.file) as Bytes;
    const locations = checkFile(infer.file, model, manifest);
    let session: OrtModule.InferenceSession;
    try {
      session = await ort.InferenceSession.create(model, {
        executionProviders: [engine],
        graphOptimizationLevel: AT_LOAD[infer.atLoad],
        externalData: locations.map((path) => ({ path, data: files.get(path) as Bytes })),
        logSeverityLevel: 4,
      });
    } catch (error) {
      throw new BundleError(`the model ${infer.file} cannot be loaded: ${firstLine(error)}`, EXPORT_AGAIN, error);
    }
    try {
      return new FrozenModel(ort, session, manifest);
    } catch (error) {
      await session.release();
      throw error;
    }
  }

  /**
   * Runs a batch of any size; a graph of static shape runs it in batches of its own size.
   *
   * @param text the text inputs of the graph, [batch, sequence].
   * @param feeds all other inputs.
   * @param outputs the names of the wanted ones.
   * @throws InputError: an input that only the model itself can refuse. BundleError: any other failure of the engine.
   */
  async run(text: Record<string, IntTensor>, feeds: Feeds, outputs: readonly string[]): Promise<Map<string, FloatTensor>> {
    const shape = this.manifest.staticShape;
    if (!shape) return this.runOnce({ ...text, ...feeds }, outputs);
    const [items, length] = (text[spec.INPUT_IDS] as IntTensor).dims as [number, number];
    const parts: Map<string, FloatTensor>[] = [];
    for (let start = 0; start < items; start += shape[0]) {
      parts.push(await this.runOnce({ ...fitted(text, shape, start, this.manifest.padTokenId), ...feeds }, outputs));
    }
    return new Map(outputs.map((name) => [name, joinParts(parts.map((part) => part.get(name) as FloatTensor), items, length)]));
  }

  async release(): Promise<void> {
    await this.running.catch(() => undefined);
    await this.session.release();
  }

  /** One run at a time: an engine has one set of buffers. */
  private runOnce(feeds: Feeds, outputs: readonly string[]): Promise<Map<string, FloatTensor>> {
    const run = this.running.then(
      () => this.runNow(feeds, outputs),
      () => this.runNow(feeds, outputs),
    );
    this.running = run;
    return run;
  }

  private async runNow(feeds: Feeds, outputs: readonly string[]): Promise<Map<string, FloatTensor>> {
    const { Tensor } = this.ort;
    const tensors: Record<string, OrtModule.Tensor> = {};
    for (const [name, { data, dims }] of Object.entries(feeds)) {
      tensors[name] = data instanceof Float32Array ? new Tensor("float32", data, dims) : new Tensor("int64", data, dims);
    }
    try {
      const found = await this.session.run(tensors, outputs as string[]);
      return new Map(
        outputs.map((name) => {
          const { data, dims } = found[name] as OrtModule.Tensor;
          return [name, { data: data as Float32Array<ArrayBuffer>, dims }];
        }),
      );
    } catch (error) {
      const message = `the model can't run this batch: ${firstLine(error)}`;
      if (/ERROR_CODE: 2\b|INVALID_ARGUMENT/.test(String(error))) throw new InputError(message, {}, error);
      throw new BundleError(message, undefined, error);
    }
  }
}

/** Compares the model's bytes with the manifest. Returns the paths of the files that hold its weights. */
function checkFile(path: string, model: Bytes, manifest: Manifest): string[] {
  let file: ReturnType<typeof readOnnxFile>;
  try {
    file = readOnnxFile(model);
  } catch (error) {
    throw new BundleError(`the model ${path} cannot be loaded: ${firstLine(error)}`, EXPORT_AGAIN, error);
  }
  for (const location of file.locations) {
    // Weights in a file that the manifest does not name would be read without any check.
    if (!manifest.files.has(location)) {
      throw new BundleError(`the model ${path} has weights in ${quoted(location)}, which the manifest does not name`, EXPORT_AGAIN);
    }
  }
  // A model and a manifest of two bundles may have the same interface; only the digest tells them apart.
  const digest = file.metadata.get(spec.LAYOUT_DIGEST_KEY);
  if (digest !== manifest.layout.digest) {
    const found = digest === undefined ? "has no layout digest" : `has layout digest ${digest.slice(0, 12)}`;
    throw new BundleError(
      `the model ${path} ${found}, expected ${manifest.layout.digest.slice(0, 12)} as in the manifest`,
      EXPORT_AGAIN,
    );
  }
  return [...file.locations];
}

interface Input {
  readonly dtype: string;
  /** A fixed size, or null. */
  readonly shape: readonly (number | null)[];
}

/**
 * Compares an opened program with the manifest.
 *
 * @returns the number of labels that the head inputs have, where it is fixed.
 */
function checkProgram(path: string, session: OrtModule.InferenceSession, manifest: Manifest): number | undefined {
  const infer = inferProgram(manifest);
  const found = new Map<string, Input>();
  for (const each of session.inputMetadata) {
    if (!each.isTensor) throw new BundleError(`the model ${path} has the input ${quoted(each.name)}, which is no tensor`, EXPORT_AGAIN);
    found.set(each.name, { dtype: each.type, shape: each.shape.map((size) => (typeof size === "number" ? size : null)) });
  }
  checkNames(path, "inputs", [...found.keys()], infer.inputs.map((port) => port.name));
  checkNames(path, "outputs", session.outputNames, infer.outputs.map((port) => port.name));
  if (!session.outputNames.includes(spec.LOGITS)) {
    throw new BundleError(`the model ${path} has no output ${spec.LOGITS}`, EXPORT_AGAIN);
  }
  const labels = staticLabels(manifest, found);
  const expected = expectedInputs(manifest, found, labels);
  checkNames(path, "inputs", [...found.keys()], [...expected.keys()]);
  for (const [name, wanted] of expected) {
    const input = found.get(name) as Input;
    if (described(input) !== described(wanted)) {
      throw new BundleError(`the model ${path} has the input ${name} ${described(input)}, expected ${described(wanted)}`, EXPORT_AGAIN);
    }
  }
  return labels;
}

function expectedInputs(manifest: Manifest, found: ReadonlyMap<string, Input>, labels: number | undefined): Map<string, Input> {
  const { layout, layoutKind } = manifest;
  const expected = new Map<string, Input>();
  const floats = (name: string, shape: readonly (number | null)[]): void => void expected.set(name, { dtype: "float32", shape });
  for (const name of TEXT_INPUTS) {
    if (name !== spec.TOKEN_TYPE_IDS || found.has(name)) {
      expected.set(name, { dtype: "int64", shape: manifest.staticShape ?? [null, null] });
    }
  }
  if (layoutKind === "table") {
    expected.set(spec.TASK_IDS, { dtype: "int64", shape: [null] });
    floats(spec.BIAS_TABLE, [null, layout.biasCount]);
  } else if (layoutKind === "packed") floats(spec.PACKED_BIAS, [layout.biasCount]);
  else for (const entry of layout.biases) floats(entry.name, entry.shape);
  for (const entry of layout.head) {
    const shape = entry.shape.map((size) => (size === LABELS ? (labels ?? null) : size));
    floats(entry.name, layoutKind === "table" ? [null, ...shape] : shape);
  }
  return expected;
}

/** The number of labels of a graph of static shape, as the first head input that has such a dimension says. */
function staticLabels(manifest: Manifest, found: ReadonlyMap<string, Input>): number | undefined {
  if (!manifest.staticShape) return undefined;
  for (const entry of manifest.layout.head) {
    const input = found.get(entry.name);
    if (input && entry.shape.includes(LABELS)) return input.shape[entry.shape.indexOf(LABELS)] ?? undefined;
  }
  return undefined;
}

function checkNames(path: string, what: string, found: readonly string[], expected: readonly string[]): void {
  if ([...found].sort().join("\0") !== [...expected].sort().join("\0")) {
    throw new BundleError(`the model ${path} has the ${what} ${found.join(", ")}, expected ${expected.join(", ")}`, EXPORT_AGAIN);
  }
}

function described(input: Input): string {
  return `${input.dtype} [${input.shape.map((size) => size ?? "any").join(", ")}]`;
}

/** A batch of exactly this shape: what a text lacks is padding, and so are items that the last batch lacks. */
function fitted(
  text: Record<string, IntTensor>,
  [batch, sequence]: readonly [number, number],
  start: number,
  padding: number,
): Record<string, IntTensor> {
  const parts: Record<string, IntTensor> = {};
  for (const [name, { data, dims }] of Object.entries(text)) {
    const [items, length] = dims as [number, number];
    const part = new BigInt64Array(batch * sequence).fill(name === spec.INPUT_IDS ? BigInt(padding) : 0n);
    for (let item = 0; item < Math.min(batch, items - start); ++item) {
      part.set(data.subarray((start + item) * length, (start + item + 1) * length), item * sequence);
    }
    parts[name] = { data: part, dims: [batch, sequence] };
  }
  return parts;
}

/** The items of several runs as one array, without padding: [items, labels], or [items, length, labels]. */
function joinParts(parts: readonly FloatTensor[], items: number, length: number): FloatTensor {
  const [{ dims }] = parts as [FloatTensor];
  const [batch, ...inner] = dims as [number, ...number[]];
  const size = inner.reduce((all, each) => all * each, 1);
  const kept = inner.length > 1 ? [length, ...inner.slice(1)] : inner;
  const keptSize = kept.reduce((all, each) => all * each, 1);
  const data = new Float32Array(items * keptSize);
  for (let item = 0; item < items; ++item) {
    const part = parts[Math.floor(item / batch)] as FloatTensor;
    const start = (item % batch) * size;
    data.set(part.data.subarray(start, start + keptSize), item * keptSize);
  }
  return { data, dims: [items, ...kept] };
}
