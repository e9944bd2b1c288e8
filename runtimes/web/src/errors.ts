// Every error of this package, as one tree: what was found, what was expected, and a hint what to do about it.
//
//   BitfitError
//   ├── UsageError     an option or an argument that cannot be used
//   ├── InputError     text, ids or arrays that a task can't take
//   └── BundleError    a bundle or its manifest
//       ├── RowError   a bias row; `fault` says which way it is wrong
//       └── SignatureError   a file that no trusted key has signed; `fault` says why
//
// A call that its AbortSignal ends is rejected with the signal's reason instead.

import { ROW_FAULTS, type RowFault } from "./spec.js";
import { shown } from "./shown.js";

const LONGEST_MESSAGE = 2000;

/** The base of the tree. `message` has the problem and, on a second line, the hint. */
export class BitfitError extends Error {
  /** One sentence: what was found, and what was expected. */
  readonly problem: string;
  readonly hint: string | undefined;

  constructor(problem: string, hint?: string, cause?: unknown) {
    const found = shown(problem, LONGEST_MESSAGE);
    const advice = hint === undefined ? undefined : shown(hint, LONGEST_MESSAGE);
    super(advice === undefined ? found : `${found}\nhint: ${advice}`, cause === undefined ? undefined : { cause });
    this.name = "BitfitError"; // not the class's own, which minifiers shorten
    this.problem = found;
    this.hint = advice;
  }
}

export class UsageError extends BitfitError {
  override readonly name: string = "UsageError";
}

/** Text, ids or arrays that a task can't take. */
export class InputError extends BitfitError {
  override readonly name: string = "InputError";
  /** The item of the batch that is wrong, from 0, where it is one; the message then begins with it. */
  readonly item: number | undefined;
  /** The problem without the item. */
  readonly found: string;

  constructor(problem: string, options: { item?: number | undefined; hint?: string | undefined } = {}, cause?: unknown) {
    super(options.item === undefined ? problem : `item ${options.item} ${problem}`, options.hint, cause);
    this.item = options.item;
    this.found = problem;
  }
}

export class BundleError extends BitfitError {
  override readonly name: string = "BundleError";
}

/** A bias row that cannot be used; nothing of it has been. */
export class RowError extends BundleError {
  override readonly name = "RowError";
  readonly fault: RowFault;

  constructor(fault: RowFault, detail: string, hint?: string) {
    super(`${ROW_FAULTS[fault]}: ${detail}`, hint);
    this.fault = fault;
  }
}

/** The ways in which a signature can fail, with their words. */
export const SIGNATURE_FAULTS = {
  missing: "no signature",
  malformed: "malformed signature",
  untrusted: "signed by another key",
  wrong: "wrong signature",
} as const;
export type SignatureFault = keyof typeof SIGNATURE_FAULTS;

/** A file that no trusted key has signed; nothing of it has been used. */
export class SignatureError extends BundleError {
  override readonly name = "SignatureError";
  readonly fault: SignatureFault;

  constructor(fault: SignatureFault, detail: string, hint?: string, cause?: unknown) {
    super(`${SIGNATURE_FAULTS[fault]}: ${detail}`, hint, cause);
    this.fault = fault;
  }
}

export const COPY_AGAIN = "copy the bundle again";
export const EXPORT_AGAIN = "copy the bundle again, or export it again";

/** Returns what an error of another library says, in one line. */
export function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message || error.name : String(error);
  return shown(text.trim().split("\n")[0] ?? "", 200);
}

/** Errors as plain objects, for they lose their class on the way from a worker to its page. */
export interface PlainError {
  name: string;
  problem: string;
  hint?: string | undefined;
  item?: number | undefined;
  fault?: RowFault | SignatureFault | undefined;
}

export function toPlain(error: unknown): PlainError {
  if (error instanceof InputError) return { name: error.name, problem: error.found, hint: error.hint, item: error.item };
  if (error instanceof RowError) {
    const detail = error.problem.slice(ROW_FAULTS[error.fault].length + 2);
    return { name: error.name, problem: detail, hint: error.hint, fault: error.fault };
  }
  if (error instanceof SignatureError) {
    const detail = error.problem.slice(SIGNATURE_FAULTS[error.fault].length + 2);
    return { name: error.name, problem: detail, hint: error.hint, fault: error.fault };
  }
  if (error instanceof BitfitError) return { name: error.name, problem: error.problem, hint: error.hint };
  const name = error instanceof Error || error instanceof DOMException ? error.name : "Error";
  return { name, problem: error instanceof Error ? error.message : String(error) };
}

export function fromPlain(plain: PlainError): Error {
  switch (plain.name) {
    case "InputError":
      return new InputError(plain.problem, { item: plain.item, hint: plain.hint });
    case "RowError":
      return new RowError(plain.fault as RowFault, plain.problem, plain.hint);
    case "SignatureError":
      return new SignatureError(plain.fault as SignatureFault, plain.problem, plain.hint);
    case "BundleError":
      return new BundleError(plain.problem, plain.hint);
    case "UsageError":
      return new UsageError(plain.problem, plain.hint);
    case "AbortError":
    case "TimeoutError":
      return new DOMException(plain.problem, plain.name);
    default:
      return new BitfitError(plain.problem, plain.hint);
  }
}
