// Typed values out of parsed JSON. A record is a JSON object whose members are taken out one by one: a member that is
// missing or has another type is an error that names the file and the path of the member.

import { BundleError, EXPORT_AGAIN } from "./errors.js";
import { type Json, type JsonObject, parseJson, Real } from "./json.js";
import { quoted, shown } from "./shown.js";
import { MAX_NAME_BYTES } from "./spec.js";

export type Integer = number | bigint;

// Without control characters (C0, DEL, C1, the two separators of lines) and halves of surrogate pairs.
const NAME = /^[^\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+$/u;
const DIGEST = /^[0-9a-f]{64}$/;

/** Returns the object that a file of JSON holds; `where` names the file in messages. */
export function parseObject(data: Uint8Array, where: string): JsonRecord {
  let value: Json;
  try {
    value = parseJson(data);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new BundleError(`${where} is not valid JSON: ${shown(error.message, 200)}`, EXPORT_AGAIN);
  }
  return new JsonRecord(value, where);
}

/** A JSON object at the path `where`, such as `manifest.json: layout`. */
export class JsonRecord {
  readonly members: JsonObject;

  constructor(value: Json, readonly where: string) {
    if (!(value instanceof Map)) throw new BundleError(`${where} is ${described(value)}, expected an object`);
    this.members = value;
  }

  has(key: string): boolean {
    return this.members.has(key);
  }

  text(key: string): string {
    const value = this.take(key);
    return typeof value === "string" ? value : this.refuse(key, value, "a string");
  }

  textOrNull(key: string): string | null {
    const value = this.take(key);
    return value === null || typeof value === "string" ? value : this.refuse(key, value, "a string or null");
  }

  /** An integer; neither 1.0 nor true is one. */
  integer(key: string): Integer {
    const value = this.take(key);
    return isInteger(value) ? value : this.refuse(key, value, "an integer");
  }

  boolean(key: string): boolean {
    const value = this.take(key);
    return typeof value === "boolean" ? value : this.refuse(key, value, "true or false");
  }

  texts(key: string): string[] {
    const values = this.list(key);
    return values.every((each) => typeof each === "string")
      ? (values as string[])
      : this.refuse(key, values, "a list of strings");
  }

  integers(key: string): Integer[] {
    const values = this.list(key);
    return values.every(isInteger) ? (values as Integer[]) : this.refuse(key, values, "a list of integers");
  }

  integersOrTexts(key: string): (Integer | string)[] {
    const values = this.list(key);
    return values.every((each) => typeof each === "string" || isInteger(each))
      ? (values as (Integer | string)[])
      : this.refuse(key, values, "a list of integers and strings");
  }

  number(key: string): number {
    return asNumber(this.take(key)) ?? this.refuse(key, this.take(key), "a number");
  }

  numbers(key: string): Map<string, number> {
    const numbers = new Map<string, number>();
    for (const [name, value] of this.record(key).members) {
      numbers.set(name, asNumber(value) ?? this.refuse(key, this.take(key), "an object of numbers"));
    }
    return numbers;
  }

  namedNumbers(key: string): Map<string, number[]> {
    const lists = new Map<string, number[]>();
    for (const [name, value] of this.record(key).members) {
      const numbers = Array.isArray(value) ? value.map(asNumber) : [undefined];
      if (!numbers.every((each) => each !== undefined)) this.refuse(key, this.take(key), "an object of lists of numbers");
      lists.set(name, numbers as number[]);
    }
    return lists;
  }

  namedTexts(key: string): Map<string, string> {
    const { members } = this.record(key);
    for (const value of members.values()) {
      if (typeof value !== "string") this.refuse(key, members, "an object of strings");
    }
    return members as Map<string, string>;
  }

  record(key: string): JsonRecord {
    return new JsonRecord(this.take(key), `${this.where}: ${key}`);
  }

  records(key: string): JsonRecord[] {
    return this.list(key).map((each, index) => new JsonRecord(each, `${this.where}: ${key}[${index}]`));
  }

  namedRecords(key: string): Map<string, JsonRecord> {
    const records = new Map<string, JsonRecord>();
    for (const [name, value] of this.record(key).members) {
      records.set(name, new JsonRecord(value, `${this.where}: ${key}[${quoted(name)}]`));
    }
    return records;
  }

  list(key: string): Json[] {
    const value = this.take(key);
    return Array.isArray(value) ? value : this.refuse(key, value, "a list");
  }

  take(key: string): Json {
    const value = this.members.get(key);
    if (value === undefined) throw new BundleError(`${this.where} lacks ${key}`, "export the bundle again");
    return value;
  }

  refuse(key: string, value: Json, expected: string): never {
    throw new BundleError(`${this.where}: ${key} is ${described(value)}, expected ${expected}`);
  }
}

/** Refuses anything but 64 lower-case hexadecimal digits, so that equal digests are equal strings. */
export function checkDigest(value: string, what: string): void {
  if (!DIGEST.test(value)) {
    throw new BundleError(`${what} is ${quoted(value)}, expected 64 lower-case hexadecimal digits`);
  }
}

/** Returns whether it is a string of 1 to `MAX_NAME_BYTES` bytes of UTF-8 without control characters. */
export function isName(value: unknown): value is string {
  return (
    typeof value === "string" &&
    value.length <= MAX_NAME_BYTES &&
    NAME.test(value) &&
    new TextEncoder().encode(value).length <= MAX_NAME_BYTES
  );
}

export function checkText(value: string, what: string): void {
  if (!isName(value)) {
    throw new BundleError(
      `${what} is ${quoted(value)}, expected a non-empty name of at most ${MAX_NAME_BYTES} bytes without control characters`,
    );
  }
}

export function checkRange(value: Integer, least: Integer, most: Integer, what: string): void {
  if (!(value >= least && value <= most)) {
    throw new BundleError(`${what} is ${value}, expected an integer from ${least} to ${most}`);
  }
}

export function checkOneOf(value: string, known: readonly string[], what: string): void {
  if (!known.includes(value)) {
    throw new BundleError(`${what} is ${quoted(value)}, expected one of ${known.join(", ")}`);
  }
}

/** Returns the first item that equals one before it. */
export function firstRepeated<Item>(items: Iterable<Item>): Item | undefined {
  const seen = new Set<Item>();
  for (const item of items) {
    if (seen.has(item)) return item;
    seen.add(item);
  }
  return undefined;
}

function isInteger(value: Json): value is Integer {
  return typeof value === "number" || typeof value === "bigint";
}

function asNumber(value: Json): number | undefined {
  return value instanceof Real ? value.value : isInteger(value) ? Number(value) : undefined;
}

function described(value: Json): string {
  if (value instanceof Map) return "an object";
  if (value instanceof Real) return String(value.value);
  if (Array.isArray(value)) return value.length <= 4 ? `the list ${quoted(value)}` : `a list of ${value.length} values`;
  return value === null ? "null" : quoted(value);
}
