// What a page and its worker tell each other.

import type { PlainError } from "./errors.js";
import type { Progress } from "./files.js";

export type Call = "open" | "loadTask" | "unloadTask" | "run" | "runOutputs" | "predict" | "encode" | "close";

export interface CallMessage {
  readonly id: number;
  readonly call: Call;
  readonly args: readonly unknown[];
}

export interface AbortMessage {
  readonly id: number;
  readonly abort: PlainError;
}

export type ToWorker = CallMessage | AbortMessage;

/** The loaded tasks that a call has changed: the labels of each, or null where it is gone. */
export type TaskChanges = readonly (readonly [string, readonly string[] | null])[];

export type FromWorker =
  | { readonly id: number; readonly progress: Progress }
  | { readonly id: number; readonly value: unknown; readonly changes: TaskChanges }
  | { readonly id: number; readonly error: PlainError };
