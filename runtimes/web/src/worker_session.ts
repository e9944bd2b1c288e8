// WorkerSession: a BiasSession in a worker, so that the page never waits for the model.

import { BitfitError, fromPlain, InputError, toPlain, UsageError } from "./errors.js";
import type { BundleSource, FileSource, Progress } from "./files.js";
import type { Manifest } from "./manifest.js";
import type {
  EncodedTexts, EncodeOptions, Found, FoundList, LoadOptions, OpenOptions, PredictOptions, RunInputs, Session,
} from "./session_types.js";
import { quoted } from "./shown.js";
import type { FloatTensor } from "./tensors.js";
import type { Text } from "./text/encoder.js";
import type { Call, FromWorker, TaskChanges } from "./worker_messages.js";

export interface WorkerOptions extends Omit<OpenOptions, "ort"> {
  /** The worker; by default one of the package's worker.js. `close` ends it. */
  readonly worker?: Worker | undefined;
  /** The address of onnxruntime-web; by default what the page's import map says of onnxruntime-web/wasm. */
  readonly ort?: string | URL | undefined;
}

interface Pending {
  readonly resolve: (value: never) => void;
  readonly reject: (error: unknown) => void;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

/** A bundle that is ready to run in a worker. Every call is a promise; otherwise it is as `BiasSession`. */
export class WorkerSession implements Session {
  private readonly pending = new Map<number, Pending>();
  private readonly loaded = new Map<string, readonly string[]>();
  private calls = 0;
  private ended: Error | undefined;
  private opened: Manifest | undefined;

  private constructor(private readonly worker: Worker) {
    worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.receive(data);
    worker.onerror = (event) => this.end(new BitfitError(`the worker has failed: ${event.message || "it cannot be loaded"}`));
  }

  /** Opens a bundle in a worker: as `BiasSession.open`. */
  static async open(source: BundleSource, options: WorkerOptions = {}): Promise<WorkerSession> {
    const { worker, ort, signal, onProgress, ...others } = options;
    signal?.throwIfAborted();
    const base = globalThis.document?.baseURI ?? globalThis.location?.href;
    if (!base) {
      throw new UsageError("there are no web workers here, expected a browser", "open a BiasSession");
    }
    const address = String(ort ?? import.meta.resolve(`onnxruntime-web/${options.engine === "webgpu" ? "webgpu" : "wasm"}`));
    // Addresses are those of the page, not of the worker's file.
    const absolute = (each: string | URL): string => new URL(each, base).href;
    const given = typeof source === "string" || source instanceof URL ? absolute(source) : source;
    const session = new WorkerSession(worker ?? new Worker(new URL("./worker.js", import.meta.url), { type: "module" }));
    try {
      session.opened = await session.call<Manifest>("open", [given, others, absolute(address)], signal ?? undefined, onProgress);
      return session;
    } catch (error) {
      session.end(error as Error);
      throw error;
    }
  }

  get manifest(): Manifest {
    return this.opened as Manifest;
  }

  get tasks(): readonly string[] {
    return [...this.loaded.keys()];
  }

  labels(task: string): readonly string[] {
    const labels = this.loaded.get(task);
    if (!labels) throw new InputError(`the task ${quoted(task)} is not loaded, expected one of ${this.tasks.join(", ")}`);
    return labels;
  }

  async loadTask(row: FileSource, { signal, ...options }: LoadOptions = {}): Promise<string> {
    const source = typeof row === "string" || row instanceof URL ? new URL(row, globalThis.document?.baseURI ?? globalThis.location.href).href : row;
    return this.call("loadTask", [source, options], signal);
  }

  async unloadTask(name: string): Promise<void> {
    return this.call("unloadTask", [name]);
  }

  async run(task: string | readonly string[], { signal, ...inputs }: RunInputs): Promise<FloatTensor> {
    return this.call("run", [task, inputs], signal);
  }

  async runOutputs(task: string | readonly string[], { signal, ...inputs }: RunInputs): Promise<Record<string, FloatTensor>> {
    return this.call("runOutputs", [task, inputs], signal);
  }

  async encode(texts: Text | readonly Text[], options: EncodeOptions = {}): Promise<EncodedTexts> {
    return this.call("encode", [texts, options]);
  }

  predict(texts: Text | readonly Text[], task: string | readonly string[], options: PredictOptions & { topK: number }): Promise<FoundList[]>;
  predict(texts: Text | readonly Text[], task: string | readonly string[], options?: PredictOptions): Promise<Found[]>;
  async predict(
    texts: Text | readonly Text[],
    task: string | readonly string[],
    { signal, ...options }: PredictOptions = {},
  ): Promise<(Found | FoundList)[]> {
    return this.call("predict", [texts, task, options], signal);
  }

  /** Ends the worker, with all of its memory. Calls under way finish before. */
  async close(): Promise<void> {
    if (this.ended) return;
    await this.call("close", []);
    this.end(new UsageError("the session is closed, expected one that is open", "open the bundle anew"));
  }

  private call<Value>(
    call: Call,
    args: readonly unknown[],
    signal?: AbortSignal,
    onProgress?: (progress: Progress) => void,
  ): Promise<Value> {
    if (this.ended) return Promise.reject(this.ended);
    if (signal?.aborted) return Promise.reject(signal.reason);
    const id = ++this.calls;
    const abort = (): void => this.worker.postMessage({ id, abort: toPlain(signal?.reason) });
    signal?.addEventListener("abort", abort);
    const answered = new Promise<Value>((resolve, reject) => {
      this.pending.set(id, { resolve, reject, onProgress });
      this.worker.postMessage({ id, call, args });
    });
    return answered
      .catch((error: unknown) => {
        throw signal?.aborted ? signal.reason : error;
      })
      .finally(() => signal?.removeEventListener("abort", abort));
  }

  private receive(message: FromWorker): void {
    const pending = this.pending.get(message.id);
    if (!pending) return;
    if ("progress" in message) {
      pending.onProgress?.(message.progress);
      return;
    }
    this.pending.delete(message.id);
    if ("error" in message) {
      pending.reject(fromPlain(message.error));
      return;
    }
    this.apply(message.changes);
    pending.resolve(message.value as never);
  }

  private apply(changes: TaskChanges): void {
    for (const [name, labels] of changes) {
      if (labels) this.loaded.set(name, labels);
      else this.loaded.delete(name);
    }
  }

  private end(error: Error): void {
    this.ended = error;
    this.worker.terminate();
    for (const { reject } of this.pending.values()) reject(error);
    this.pending.clear();
    this.loaded.clear();
  }
}
