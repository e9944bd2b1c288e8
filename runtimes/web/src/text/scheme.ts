// How a tokenizer turns a stretch of text into ids: in three steps, the same ones in each scheme.

import { BundleError } from "../errors.js";
import type { JsonRecord } from "../record.js";
import { shown } from "../shown.js";
import type { Characters } from "./unicode.js";

export interface Scheme {
  /** The text as the model knows it. */
  normalize(text: Characters): Characters;
  /**
   * Cuts normalised text into words, each from a first place to before a last one. The scheme may change `text` before;
   * `inList` says that it is a word of a list, or a part of one.
   */
  split(text: Characters, inList: boolean): [number, number][];
  /** The ids of one word. */
  ids(word: readonly number[]): number[];
}

/** Returns an id, which must be one that int32 holds. */
export function checkedId(record: JsonRecord, value: unknown, what: string): number {
  if (typeof value !== "number" || value < 0 || value > 2 ** 31 - 1) {
    throw new BundleError(`${record.where}: ${what} is ${String(value)}, expected an id`);
  }
  return value;
}

/** Returns the ids of a vocabulary by its tokens. */
export function readVocabulary(model: JsonRecord): Map<string, number> {
  const vocabulary = model.record("vocab");
  const ids = new Map<string, number>();
  for (const [token, id] of vocabulary.members) ids.set(token, checkedId(vocabulary, id, shown(token)));
  if (!ids.size) throw new BundleError(`${model.where}: vocab is empty, expected tokens`);
  return ids;
}

/** Returns whether an optional key is there and is not null. */
export function isSet(record: JsonRecord, key: string): boolean {
  return record.has(key) && record.take(key) !== null;
}
