// BiasSession: load a bundle once, then run any of its tasks, or a batch in which every item is another task.

import type { Answer, Prediction, Result, WordLabel } from "./answers.js";
import { asNames, checkLabels, checkName, checkPositive } from "./arguments.js";
import { BATCH_SIZE, BATCH_TOKENS, planBatches } from "./batches.js";
import { type Chunk, cutChunks, joinResults, ownColumns, readChunk } from "./chunks.js";
import { FrozenModel, loadOrt } from "./engine.js";
import { InputError, UsageError } from "./errors.js";
import { type BundleSource, type FileSource, readRowFile, readSignature } from "./files.js";
import { longestSequence, type Manifest } from "./manifest.js";
import { openBundle } from "./open_bundle.js";
import { type BiasRow, decodeRow } from "./row.js";
import type {
  EncodedTexts, EncodeOptions, Found, FoundList, LoadOptions, OpenOptions, PredictOptions, RunInputs, Session,
} from "./session_types.js";
import { TrustedKeys } from "./signatures.js";
import { TOKEN_LOGITS, TOKEN_TYPE_IDS, TOKENIZER_FILE } from "./spec.js";
import { type LoadedTask, TaskStore } from "./tasks.js";
import { checkInputs, type FloatTensor, type InputLimits } from "./tensors.js";
import { asItems, type Item, type Text, TextEncoder } from "./text/encoder.js";
import { Tokenizer, type Tokens } from "./text/tokenizer.js";

/** A bundle that is ready to run. */
export class BiasSession implements Session {
  private closed = false;

  private constructor(
    /** The bundle's manifest. Tasks that were loaded later are not in it. */
    readonly manifest: Manifest,
    private readonly model: FrozenModel,
    private readonly encoder: TextEncoder,
    private readonly store: TaskStore,
    private readonly limits: InputLimits,
    private readonly trusted: TrustedKeys | undefined,
  ) {}

  /**
   * Opens a bundle. Size and SHA-256 of every file are compared with the manifest, and everything about rows.
   *
   * @throws BundleError: a file that is missing or damaged, or does not belong to the others; RowError, if it is a row;
   *   SignatureError, if no trusted key has signed it.
   * @throws InputError: a task that the bundle lacks. UsageError: an option that cannot be used, a browser that cannot run it.
   */
  static async open(source: BundleSource, options: OpenOptions = {}): Promise<BiasSession> {
    options.signal?.throwIfAborted();
    const trusted = options.trustedKeys && TrustedKeys.of(options.trustedKeys);
    const [ort, bundle] = await Promise.all([loadOrt(options), openBundle(source, options.tasks, options, trusted)]);
    const { manifest, contents } = bundle;
    const encoder = new TextEncoder(new Tokenizer(contents.get(TOKENIZER_FILE) as Uint8Array), longestSequence(manifest));
    const model = await FrozenModel.open(ort, contents, manifest, options.engine ?? "wasm");
    try {
      const store = new TaskStore(manifest.layout, manifest.layoutKind, model.labels);
      const { vocabSize } = manifest;
      const limits = { vocabSize, maxPositions: model.maxPositions, hasTokenTypes: model.textInputs.includes(TOKEN_TYPE_IDS) };
      const session = new BiasSession(manifest, model, encoder, store, limits, trusted);
      for (const [record, row] of bundle.tasks) {
        session.checkRuns(row, record.name);
        store.add(row, record.name, record.labels);
      }
      await bundle.finish();
      options.signal?.throwIfAborted();
      return session;
    } catch (error) {
      await model.release();
      throw error;
    }
  }

  /** The names of the loaded tasks. */
  get tasks(): readonly string[] {
    return this.store.names;
  }

  /** The task's label names in id order; empty for a regression. */
  labels(task: string): readonly string[] {
    return this.store.get(checkName(task)).labels;
  }

  /**
   * Loads a row file, or replaces the loaded task of the same name. Runs under way keep the old row. Whatever is refused
   * leaves the session as it was.
   *
   * @param source a row that was exported for this model: its bytes, a Blob or File, or its address.
   * @returns the task's name.
   * @throws RowError: it is damaged or was made for another model. BundleError: it cannot be read; SignatureError, if no
   *   trusted key has signed it.
   * @throws InputError: a name or labels that cannot be used, or a row that is older than the loaded one.
   */
  async loadTask(source: FileSource, options: LoadOptions = {}): Promise<string> {
    this.checkOpen();
    if (options.name !== undefined) checkName(options.name);
    const [data, where] = await readRowFile(source, options.signal);
    options.signal?.throwIfAborted();
    this.checkOpen();
    await this.trusted?.check(data, await readSignature(source, options.signature, options.signal), where);
    this.checkOpen();
    const row = decodeRow(data, this.manifest.layout, where);
    const name = options.name ?? row.task;
    this.checkRuns(row, name);
    const labels = options.labels ? checkLabels(name, row, options.labels) : this.defaultLabels(name, row);
    return this.store.add(row, name, labels).name;
  }

  /** Forgets a task. Runs under way finish with it. */
  unloadTask(name: string): void {
    this.store.remove(checkName(name));
  }

  /** The inputs of `run` that texts become, padded to the longest. */
  encode(texts: Text | readonly Text[], options: EncodeOptions = {}): EncodedTexts {
    return this.padded(this.encoder.tokenize(asItems(texts), options.maxLength, options.truncate ?? false));
  }

  /**
   * Runs the model on ids.
   *
   * @param task the task of all items, or a list with one for each.
   * @returns logits, [batch, labels] for sentence tasks, [batch, sequence, labels] for token and span tasks. With a list of
   *   tasks, labels is the largest number among them, and what lies beyond an item's own labels is -Infinity.
   * @throws InputError: a task that is not loaded, ids that the model can't take, sentence tasks together with token or span
   *   tasks, or different tasks where the bundle's layout runs one at a time.
   */
  async run(task: string | readonly string[], inputs: RunInputs): Promise<FloatTensor> {
    const tasks = this.tasksFor(task, inputs);
    const [first] = tasks as [LoadedTask];
    const other = tasks.find((each) => each.output !== first.output);
    if (other) {
      throw new InputError(
        `the batch has the ${first.problemType} task ${first.name} and the ${other.problemType} task ${other.name}, ` +
          "expected sentence tasks alone, or token and span tasks alone",
        { hint: "runOutputs returns the logits of both kinds" },
      );
    }
    const outputs = await this.runModel(tasks, inputs, [first.output]);
    return outputs[first.output] as FloatTensor;
  }

  /**
   * As `run`, for any mix of tasks: all outputs that the model has.
   *
   * @returns `logits` [batch, labels] and, where the bundle was made with token or span tasks, `token_logits` [batch, sequence,
   *   labels]. What an output has for the item of a task of the other kind means nothing.
   */
  async runOutputs(task: string | readonly string[], inputs: RunInputs): Promise<Record<string, FloatTensor>> {
    return this.runModel(this.tasksFor(task, inputs), inputs, this.model.outputs);
  }

  /**
   * Answers texts, as the Hugging Face pipeline of each task does. All texts see the same rows.
   *
   * @param texts one text or a list. A sentence task takes a string or `{text, text_pair}`; a token task a string or
   *   `{tokens}`; a span task `{question, context}`. A context that is too long is read in windows that overlap.
   * @param task the task of all texts, or a list with one for each. Any tasks may be mixed.
   * @returns one result per text, in their order.
   * @throws InputError, UsageError: a task that is not loaded, a text that its task can't take, an option out of its range;
   *   nothing has been run then.
   */
  predict(texts: Text | readonly Text[], task: string | readonly string[], options: PredictOptions & { topK: number }): Promise<FoundList[]>;
  predict(texts: Text | readonly Text[], task: string | readonly string[], options?: PredictOptions): Promise<Found[]>;
  async predict(
    texts: Text | readonly Text[],
    task: string | readonly string[],
    options: PredictOptions = {},
  ): Promise<(Found | FoundList)[]> {
    this.checkOpen();
    const { topK, maxAnswerTokens = 30, batchSize = BATCH_SIZE, batchTokens = BATCH_TOKENS, signal } = options;
    for (const [what, value] of Object.entries({ batchSize, batchTokens, maxAnswerTokens, topK: topK ?? 1 })) {
      checkPositive(what, value);
    }
    const items = asItems(texts);
    const names = asNames(task, items.length);
    const found = names.map((name) => this.store.get(name));
    const tasks = typeof task === "string" ? items.map(() => found[0] as LoadedTask) : found;
    const tokenTask = tasks.find((each) => each.problemType === "token");
    if (topK !== undefined && tokenTask) {
      throw new UsageError(`topK is ${topK}, expected none for the token task ${tokenTask.name}`);
    }
    const chunks = cutChunks(this.encoder, items, tasks, options.maxLength, options.truncate ?? false);
    const results: Result[][] = items.map(() => []);
    // Where a run serves one task, batches are of one task.
    const groups = chunks.map(({ item }) => (this.store.mixesTasks ? "" : (tasks[item] as LoadedTask).name));
    const lengths = chunks.map(({ tokens }) => tokens.ids.length);
    for (const [number, places] of planBatches(lengths, groups, batchSize, batchTokens).entries()) {
      if (number > 0) await nextTurn();
      signal?.throwIfAborted();
      const batch = places.map((place) => chunks[place] as Chunk);
      for (const [chunk, values, width] of await this.runChunks(batch, tasks)) {
        const item = items[chunk.item] as Item;
        const own = tasks[chunk.item] as LoadedTask;
        (results[chunk.item] as Result[]).push(readChunk(own, chunk, item, values, width, topK ?? 1, maxAnswerTokens));
      }
    }
    signal?.throwIfAborted();
    return results.map((each, item) => {
      const own = tasks[item] as LoadedTask;
      const joined = joinResults(own, each);
      if (topK !== undefined) return joined.slice(0, topK) as FoundList;
      return own.problemType === "token" ? (joined as WordLabel[]) : (joined[0] as Prediction | Answer);
    });
  }

  /** Releases the model and the rows. Runs under way finish; later calls are refused. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    this.store.clear();
    await this.model.release();
  }

  /** For each chunk the numbers of its own task, and how many labels they have per token. */
  private async runChunks(chunks: readonly Chunk[], tasks: readonly LoadedTask[]): Promise<[Chunk, Float32Array, number][]> {
    this.checkOpen();
    const own = chunks.map(({ item }) => tasks[item] as LoadedTask);
    const text = checkInputs(this.padded(chunks.map(({ tokens }) => tokens)), this.limits);
    const wanted = [...new Set(own.map((task) => task.output))].sort();
    const outputs = await this.model.run(text, this.store.feeds(one(own)), wanted);
    return chunks.map((chunk, place) => {
      const { data, dims } = outputs.get((own[place] as LoadedTask).output) as FloatTensor;
      const size = data.length / (dims[0] as number);
      return [chunk, data.subarray(place * size, (place + 1) * size), dims.at(-1) as number];
    });
  }

  private async runModel(
    tasks: readonly LoadedTask[],
    inputs: RunInputs,
    wanted: readonly string[],
  ): Promise<Record<string, FloatTensor>> {
    const text = checkInputs(inputs, this.limits);
    const feeds = this.store.feeds(one(tasks));
    inputs.signal?.throwIfAborted();
    const outputs = await this.model.run(text, feeds, wanted);
    inputs.signal?.throwIfAborted();
    return Object.fromEntries(Array.from(outputs, ([name, values]) => [name, ownLabels(values, tasks)]));
  }

  private tasksFor(task: string | readonly string[], inputs: RunInputs): LoadedTask[] {
    this.checkOpen();
    return asNames(task, inputs.inputIds?.length ?? 0).map((name) => this.store.get(name));
  }

  private padded(items: readonly Tokens[]): EncodedTexts {
    const length = Math.max(...items.map((item) => item.ids.length));
    const rows = (value: (item: Tokens) => readonly number[], padding: number): number[][] =>
      items.map((item) => [...value(item), ...Array<number>(length - item.ids.length).fill(padding)]);
    const encoded = {
      inputIds: rows((item) => item.ids, this.manifest.padTokenId),
      attentionMask: rows((item) => item.ids.map(() => 1), 0),
    };
    return this.limits.hasTokenTypes ? { ...encoded, tokenTypeIds: rows((item) => item.typeIds, 0) } : encoded;
  }

  /** A row fits every graph of its layout, but not each of these has every output, or room for every label. */
  private checkRuns(row: BiasRow, name: string): void {
    const hint = `export the bundle together with ${name}`;
    if ((row.problemType === "token" || row.problemType === "span") && !this.model.outputs.includes(TOKEN_LOGITS)) {
      throw new InputError(`the task ${name} is a ${row.problemType} task, but the model has no output ${TOKEN_LOGITS}`, { hint });
    }
    if (this.model.labels !== undefined && row.labels > this.model.labels) {
      throw new InputError(
        `the task ${name} has ${row.labels} labels, expected at most ${this.model.labels}: the model's shapes are fixed`,
        { hint },
      );
    }
  }

  private defaultLabels(name: string, row: BiasRow): readonly string[] {
    if (row.problemType === "regression") return [];
    for (const known of [this.store.find(name), this.manifest.tasks.get(name)]) {
      if (known?.problemType === row.problemType && known.labels.length === row.labels) return known.labels;
    }
    return Array.from({ length: row.labels }, (_, index) => `LABEL_${index}`);
  }

  private checkOpen(): void {
    if (this.closed) throw new UsageError("the session is closed, expected one that is open", "open the bundle anew");
  }
}

/**
 * Lets whatever waits have its turn. A run on the processor takes the thread until it is over, and promises alone would keep
 * it: neither a click nor a message that cancels would be seen.
 */
function nextTurn(): Promise<void> {
  const { setImmediate } = globalThis as { setImmediate?: (call: () => void) => void };
  if (setImmediate) return new Promise((resolve) => setImmediate(resolve));
  const { port1, port2 } = new MessageChannel(); // a timer would wait for milliseconds
  return new Promise((resolve) => {
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/** The one task of all items as a list of one: such a batch has one row, whatever its size. */
function one(tasks: readonly LoadedTask[]): readonly LoadedTask[] {
  const [first] = tasks as [LoadedTask];
  return tasks.every((task) => task === first) ? [first] : tasks;
}

/** Logits [batch, ..., labels] without the labels that no item has; -Infinity where an item lacks a label. */
function ownLabels({ data, dims }: FloatTensor, tasks: readonly LoadedTask[]): FloatTensor {
  const items = dims[0] as number;
  const width = dims.at(-1) as number;
  const counts = tasks.map((task) => task.labelCount);
  const most = Math.max(...counts);
  const rows = data.length / width;
  const own = Float32Array.from(ownColumns(data, rows, width, most));
  for (let row = 0; row < rows; ++row) {
    const count = counts.length === 1 ? most : (counts[Math.floor((row * items) / rows)] as number);
    if (count < most) own.fill(Number.NEGATIVE_INFINITY, row * most + count, (row + 1) * most);
  }
  return { data: own, dims: [...dims.slice(0, -1), most] };
}
