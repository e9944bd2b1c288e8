// What a session takes and returns, on the page and in a worker.

import type { Answer, Prediction, WordLabel } from "./answers.js";
import type { EngineOptions } from "./engine.js";
import type { FileSource, ReadOptions } from "./files.js";
import type { PublicKey } from "./signatures.js";
import type { FloatTensor, TextInputs } from "./tensors.js";
import type { Text } from "./text/encoder.js";

export interface OpenOptions extends EngineOptions, ReadOptions {
  /** The tasks to load; by default all of the bundle's. */
  readonly tasks?: readonly string[] | undefined;
  /** Public keys: the manifest and every row must be signed by one of them, those that are loaded later as well. */
  readonly trustedKeys?: readonly PublicKey[] | undefined;
}

export interface LoadOptions {
  /** The name to load it under; by default its own. */
  readonly name?: string | undefined;
  /** Label names in id order; by default those of the task that it replaces, or of the bundle's, else LABEL_0, ... */
  readonly labels?: readonly string[] | undefined;
  /** The row's signature, where keys are trusted; of a row that has an address, by default the file beside it. */
  readonly signature?: FileSource | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface EncodeOptions {
  /** Cut a text that is longer than `maxLength` tokens instead of refusing it. */
  readonly truncate?: boolean | undefined;
  /** By default what the model takes. */
  readonly maxLength?: number | undefined;
}

export interface PredictOptions extends EncodeOptions {
  /** Return a list of this many labels or answers for each text, best first, instead of the best one. */
  readonly topK?: number | undefined;
  /** The longest answer of a span task, in tokens; by default 30. */
  readonly maxAnswerTokens?: number | undefined;
  readonly batchSize?: number | undefined;
  readonly batchTokens?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface RunInputs extends TextInputs {
  readonly signal?: AbortSignal | undefined;
}

/** The padded inputs of `run` that texts become. */
export interface EncodedTexts {
  readonly inputIds: number[][];
  readonly attentionMask: number[][];
  readonly tokenTypeIds?: number[][];
}

/** What a text's task answers: for a sentence task a prediction, for a token task its words, for a span task an answer. */
export type Found = Prediction | Answer | WordLabel[];
export type FoundList = Prediction[] | Answer[];

/** What `BiasSession` and `WorkerSession` both do. */
export interface Session {
  readonly tasks: readonly string[];
  labels(task: string): readonly string[];
  loadTask(row: FileSource, options?: LoadOptions): Promise<string>;
  unloadTask(name: string): void | Promise<void>;
  run(task: string | readonly string[], inputs: RunInputs): Promise<FloatTensor>;
  predict(texts: Text | readonly Text[], task: string | readonly string[], options: PredictOptions & { topK: number }): Promise<FoundList[]>;
  predict(texts: Text | readonly Text[], task: string | readonly string[], options?: PredictOptions): Promise<Found[]>;
  close(): Promise<void>;
}
