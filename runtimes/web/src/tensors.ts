// Arrays with a shape, and the checks of those that a caller runs: all of them before the model sees any. The engine takes a
// negative id as an index from the end and a mask of any numbers, so what it would not refuse is refused here.

import { InputError } from "./errors.js";
import { quoted } from "./shown.js";
import { ATTENTION_MASK, INPUT_IDS, TOKEN_TYPE_IDS } from "./spec.js";

export interface FloatTensor {
  readonly data: Float32Array<ArrayBuffer>;
  readonly dims: readonly number[];
}

export interface IntTensor {
  readonly data: BigInt64Array<ArrayBuffer>;
  readonly dims: readonly number[];
}

/** Rows of integers of one length, [batch, sequence]. */
export type Integers = readonly (readonly number[] | Int32Array | BigInt64Array)[];

/** What `run` takes besides the task. */
export interface TextInputs {
  /** From 0 to the vocabulary's size. */
  readonly inputIds: Integers;
  /** 1 for a token, 0 for padding. */
  readonly attentionMask: Integers;
  /** By default zeros. */
  readonly tokenTypeIds?: Integers | undefined;
}

export interface InputLimits {
  readonly vocabSize: number;
  readonly maxPositions: number;
  /** Whether the graph has the input `token_type_ids`. */
  readonly hasTokenTypes: boolean;
}

/** Returns the graph's text inputs by name, int64 [batch, sequence]. */
export function checkInputs(inputs: TextInputs, limits: InputLimits): Record<string, IntTensor> {
  const ids = asTensor("inputIds", inputs.inputIds);
  const mask = asTensor("attentionMask", inputs.attentionMask);
  const [items, length] = ids.dims as [number, number];
  if (!items || !length) {
    throw new InputError(`inputIds has shape ${quoted(ids.dims)}, expected at least one item and one token`);
  }
  if (length > limits.maxPositions) {
    throw new InputError(`the sequence has ${length} tokens, expected at most ${limits.maxPositions}`, {
      hint: "shorten the text, or truncate it when it is tokenised",
    });
  }
  checkShape("attentionMask", mask, ids);
  checkRange("inputIds", ids, limits.vocabSize - 1);
  checkRange("attentionMask", mask, 1);
  for (let item = 0; item < items; ++item) {
    if (!mask.data.subarray(item * length, (item + 1) * length).includes(1n)) {
      throw new InputError("has an attentionMask of zeros only, expected at least one token", { item });
    }
  }
  const checked: Record<string, IntTensor> = { [INPUT_IDS]: ids, [ATTENTION_MASK]: mask };
  let types: IntTensor = { data: new BigInt64Array(items * length), dims: ids.dims };
  if (inputs.tokenTypeIds !== undefined) {
    types = asTensor("tokenTypeIds", inputs.tokenTypeIds);
    checkShape("tokenTypeIds", types, ids);
    // The manifest does not say how many types there are; the model refuses one that is too large.
    checkRange("tokenTypeIds", types, limits.hasTokenTypes ? 2 ** 31 - 1 : 0);
  }
  if (limits.hasTokenTypes) checked[TOKEN_TYPE_IDS] = types;
  return checked;
}

function asTensor(name: string, rows: Integers): IntTensor {
  if (!Array.isArray(rows)) throw new InputError(`${name} is ${quoted(rows)}, expected rows of integers`);
  const length = rows[0]?.length ?? 0;
  const data = new BigInt64Array(rows.length * length);
  rows.forEach((row, item) => {
    if (row?.length !== length) {
      throw new InputError(`${name} has items of different lengths, expected one shape [batch, sequence]`);
    }
    for (let at = 0; at < length; ++at) {
      const value: number | bigint = row[at] as number | bigint;
      if (typeof value !== "bigint" && !Number.isSafeInteger(value)) {
        throw new InputError(`${name} has ${quoted(value)}, expected integers`);
      }
      data[item * length + at] = BigInt(value);
    }
  });
  return { data, dims: [rows.length, length] };
}

function checkShape(name: string, found: IntTensor, ids: IntTensor): void {
  if (found.dims.join() !== ids.dims.join()) {
    throw new InputError(`${name} has shape ${quoted(found.dims)}, expected that of inputIds, ${quoted(ids.dims)}`);
  }
}

function checkRange(name: string, tensor: IntTensor, largest: number): void {
  const most = BigInt(largest);
  const place = tensor.data.findIndex((value) => value < 0n || value > most);
  if (place < 0) return;
  const expected = largest === 2 ** 31 - 1 ? "0 or more" : largest ? `0 to ${largest}` : "0";
  throw new InputError(`has ${tensor.data[place]} in ${name}, expected ${expected}`, {
    item: Math.floor(place / (tensor.dims[1] as number)),
  });
}
