// The layout: which bias value sits where in a row, and which head tensors follow. docs/bias_row.md says which bytes its
// digest covers.

import { BundleError } from "./errors.js";
import { hexOf, sha256 } from "./digests.js";
import { checkDigest, checkText, firstRepeated, type Integer, type JsonRecord } from "./record.js";
import { quoted, shown } from "./shown.js";
import { MAX_DIMENSIONS, MAX_HEAD_RANK, MAX_HEAD_TENSORS } from "./spec.js";

/** The one symbolic dimension: the task's number of head outputs. */
export const LABELS = "labels";
const UINT32_MAX = 2 ** 32 - 1;

export interface BiasEntry {
  readonly name: string;
  readonly shape: readonly number[];
  /** The index of its first value in the row. */
  readonly offset: number;
}

export interface HeadEntry {
  readonly name: string;
  /** A dimension is a number, or `"labels"`. */
  readonly shape: readonly (number | "labels")[];
}

export interface Layout {
  readonly baseDigest: string;
  readonly biases: readonly BiasEntry[];
  readonly head: readonly HeadEntry[];
  readonly poolings: readonly string[];
  /** N, the number of bias values in a row. */
  readonly biasCount: number;
  /** SHA-256, 64 lower-case hexadecimal digits. */
  readonly digest: string;
}

/** Returns the shape of a head tensor for a task with `labels` outputs. */
export function resolve(entry: HeadEntry, labels: number): number[] {
  return entry.shape.map((size) => (size === LABELS ? labels : size));
}

export async function layoutFromRecord(record: JsonRecord): Promise<Layout> {
  const biases = record.records("biases").map((each) => ({
    name: each.text("name"),
    shape: each.integers("shape"),
    offset: each.integer("offset"),
  }));
  const head = record.records("head").map((each) => ({ name: each.text("name"), shape: each.integersOrTexts("shape") }));
  const poolings = record.texts("poolings");
  const baseDigest = record.text("base_digest");
  checkDigest(baseDigest, "the layout's base digest");
  const biasCount = checkBiases(biases);
  checkHead(head);
  checkNames(poolings, "pooling");
  const parts = { baseDigest, biases: biases as BiasEntry[], head: head as HeadEntry[], poolings };
  return { ...parts, biasCount, digest: await digestOf(parts) };
}

async function digestOf(layout: Pick<Layout, "baseDigest" | "biases" | "head" | "poolings">): Promise<string> {
  const lines = [
    ...layout.biases.map((each) => `bias\0${each.name}\0${each.shape.join(",")}\0${each.offset}\n`),
    ...layout.head.map((each) => `head\0${each.name}\0${each.shape.join(",")}\n`),
    ...layout.poolings.map((each) => `pooling\0${each}\n`),
  ];
  const encoder = new TextEncoder();
  const first = encoder.encode("bitfit-layout-1\n");
  const rest = encoder.encode(lines.join(""));
  const bytes = new Uint8Array(first.length + 32 + rest.length);
  bytes.set(first);
  bytes.set(
    layout.baseDigest.match(/../g)?.map((digits) => Number.parseInt(digits, 16)) ?? [],
    first.length,
  );
  bytes.set(rest, first.length + 32);
  return hexOf(await sha256(bytes));
}

function checkBiases(entries: { name: string; shape: Integer[]; offset: Integer }[]): number {
  if (!entries.length) throw new BundleError("the layout has no bias term, expected at least one");
  checkNames(entries.map((each) => each.name), "bias");
  let expected = 0;
  for (const { name, shape, offset } of entries) {
    if (shape.length < 1 || shape.length > MAX_DIMENSIONS || !shape.every(isSize)) {
      throw new BundleError(
        `the bias ${shown(name)} has shape ${quoted(shape)}, expected 1 to ${MAX_DIMENSIONS} positive integers`,
      );
    }
    if (offset !== expected) {
      throw new BundleError(`the bias ${shown(name)} has offset ${offset}, expected ${expected}`);
    }
    expected += product(shape);
    if (expected > UINT32_MAX) {
      throw new BundleError(`the layout has 2^32 or more bias values at ${shown(name)}, expected at most ${UINT32_MAX}`);
    }
  }
  return expected;
}

function checkHead(entries: { name: string; shape: (Integer | string)[] }[]): void {
  if (entries.length > MAX_HEAD_TENSORS) {
    throw new BundleError(`the layout has ${entries.length} head tensors, expected at most ${MAX_HEAD_TENSORS}`);
  }
  checkNames(entries.map((each) => each.name), "head tensor");
  for (const { name, shape } of entries) {
    const found = `the head tensor ${shown(name)} has shape ${quoted(shape)}`;
    if (shape.length < 1 || shape.length > MAX_HEAD_RANK || !shape.every((size) => size === LABELS || isSize(size))) {
      throw new BundleError(
        `${found}, expected 1 to ${MAX_HEAD_RANK} dimensions, each a positive integer or '${LABELS}'`,
      );
    }
    if (product(shape.filter((size): size is number => size !== LABELS)) > UINT32_MAX) {
      throw new BundleError(`${found}, expected at most ${UINT32_MAX} values a label`);
    }
  }
}

function checkNames(names: readonly string[], what: string): void {
  for (const name of names) checkText(name, `a ${what}'s name`);
  const twice = firstRepeated(names);
  if (twice !== undefined) throw new BundleError(`the layout names the ${what} ${shown(twice)} twice, expected unique names`);
}

function isSize(size: Integer | string): size is number {
  return typeof size === "number" && size >= 1 && size <= UINT32_MAX;
}

/** Returns the product of sizes. It is rounded beyond 2^53, and then far above every limit. */
export function product(sizes: readonly Integer[]): number {
  return sizes.reduce<number>((all, size) => all * Number(size), 1);
}
