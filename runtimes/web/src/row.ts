// The row file: one task's bias values and head. docs/bias_row.md is its specification. Everything is checked before a row
// is made, in the order of that page.

import { crc32c, hexOf } from "./digests.js";
import { RowError } from "./errors.js";
import { type HeadEntry, LABELS, type Layout, product, resolve } from "./layout.js";
import { quoted, shown } from "./shown.js";
import * as spec from "./spec.js";

const UINT32_MAX = 2 ** 32 - 1;
const PROBLEM_TYPES = new Map(Object.entries(spec.PROBLEM_CODES).map(([name, code]) => [code as number, name as spec.ProblemType]));

/** One task's values, as float32 whatever the file has. */
export interface BiasRow {
  readonly task: string;
  readonly problemType: spec.ProblemType;
  /** The number of head outputs. */
  readonly labels: number;
  readonly taskVersion: number;
  readonly layoutDigest: string;
  readonly biases: Float32Array<ArrayBuffer>;
  /** In the layout's order. One whose first dimension is 0 is absent. */
  readonly head: readonly HeadTensor[];
}

export interface HeadTensor {
  readonly shape: readonly number[];
  readonly values: Float32Array<ArrayBuffer>;
}

interface Header {
  readonly flags: number;
  readonly dtype: number;
  readonly fileSize: number;
  readonly layoutDigest: string;
  readonly biasCount: number;
  readonly headCount: number;
  readonly labels: number;
  readonly problemType: number;
  readonly taskVersion: number;
  readonly payloadChecksum: number;
}

/**
 * Checks all of a row file and returns its row, which keeps none of the bytes.
 *
 * @param data the whole file.
 * @param layout the frozen model's; the row must then fit it.
 * @param where names the file in messages.
 * @throws RowError: the first rule that the file breaks.
 */
export function decodeRow(data: Uint8Array, layout?: Layout, where?: string): BiasRow {
  try {
    const row = decode(data);
    if (layout) checkLayout(row, layout);
    return row;
  } catch (error) {
    if (where === undefined || !(error instanceof RowError)) throw error;
    const detail = error.problem.slice(spec.ROW_FAULTS[error.fault].length + 2);
    throw new RowError(error.fault, `${where}: ${detail}`, error.hint);
  }
}

function decode(data: Uint8Array): BiasRow {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const header = readHeader(data, view);
  const reserved = data.subarray(spec.AT.reserved, spec.AT.reserved + spec.SIZE_OF.reserved);
  if (header.flags !== 0 || reserved.some((byte) => byte !== 0)) {
    throw new RowError(
      "UNKNOWN_FLAG",
      `flags 0x${hex32(header.flags)} and reserved bytes ${hexOf(reserved)}, expected all zero`,
      "update bitfit-runtime to read this row",
    );
  }
  const valueSize = spec.DTYPE_SIZES[header.dtype];
  if (valueSize === undefined) {
    throw new RowError("BAD_DTYPE", `code ${header.dtype}, expected 1 (float32) or 10 (float16)`);
  }
  const problemType = PROBLEM_TYPES.get(header.problemType);
  if (problemType === undefined) {
    throw new RowError("BAD_PROBLEM_TYPE", `code ${header.problemType}, expected 1 to ${PROBLEM_TYPES.size}`);
  }
  const task = readTask(data, header.taskVersion);
  const shapes = readHeadTable(view, header.headCount);
  const fixed = spec.FIXED_LABEL_COUNTS[problemType];
  if (header.labels < 1 || header.labels > spec.MAX_LABELS || (fixed !== undefined && header.labels !== fixed)) {
    throw new RowError(
      "BAD_LABEL_COUNT",
      `a ${problemType} task has ${header.labels} labels, expected ${fixed ?? `1 to ${spec.MAX_LABELS}`}`,
    );
  }
  const values = readPayload(data, header, shapes, valueSize);
  let start = header.biasCount;
  const head = shapes.map((shape) => {
    const size = product(shape);
    start += size;
    return { shape, values: values.slice(start - size, start) };
  });
  return {
    task,
    problemType,
    labels: header.labels,
    taskVersion: header.taskVersion,
    layoutDigest: header.layoutDigest,
    biases: values.slice(0, header.biasCount),
    head,
  };
}

/** Rules 1 to 5: is this a whole header of this format, as it was written? */
function readHeader(data: Uint8Array, view: DataView): Header {
  const { AT, HEADER_SIZE } = spec;
  if (data.length < HEADER_SIZE) {
    throw new RowError("TRUNCATED_HEADER", `the file has ${data.length} bytes, expected at least ${HEADER_SIZE}`);
  }
  const magic = data.subarray(0, spec.MAGIC.length);
  if (magic.some((byte, index) => byte !== spec.MAGIC[index])) {
    throw new RowError(
      "BAD_MAGIC",
      `the file starts with ${hexOf(magic)}, expected ${hexOf(Uint8Array.from(spec.MAGIC))}`,
      "expected a .bias file that bitfit-export wrote, copied as binary",
    );
  }
  const u32 = (at: number): number => view.getUint32(at, true);
  if (u32(AT.version) !== spec.FORMAT_VERSION) {
    throw new RowError(
      "BAD_VERSION",
      `version ${u32(AT.version)}, expected ${spec.FORMAT_VERSION}`,
      "use the release of bitfit-export that wrote this row, or export the task again",
    );
  }
  if (u32(AT.header_size) !== HEADER_SIZE) {
    throw new RowError("BAD_HEADER_SIZE", `${u32(AT.header_size)} bytes, expected ${HEADER_SIZE}`);
  }
  const checksum = crc32c(data.subarray(0, AT.header_checksum));
  if (u32(AT.header_checksum) !== checksum) {
    throw new RowError(
      "BAD_HEADER_CHECKSUM",
      `the header says 0x${hex32(u32(AT.header_checksum))}, its bytes give 0x${hex32(checksum)}`,
      "copy the row again",
    );
  }
  return {
    flags: u32(AT.flags),
    dtype: u32(AT.dtype),
    fileSize: Number(view.getBigUint64(AT.file_size, true)),
    layoutDigest: hexOf(data.subarray(AT.layout_digest, AT.layout_digest + spec.SIZE_OF.layout_digest)),
    biasCount: u32(AT.bias_count),
    headCount: u32(AT.head_count),
    labels: u32(AT.labels),
    problemType: u32(AT.problem_type),
    taskVersion: u32(AT.task_version),
    payloadChecksum: u32(AT.payload_checksum),
  };
}

/** Rule 9. Bytes after the name must be zero, so that a name has one spelling. */
function readTask(data: Uint8Array, version: number): string {
  const field = data.subarray(spec.AT.task, spec.AT.task + spec.SIZE_OF.task);
  const name = String.fromCharCode(...field).replace(/\0+$/, "");
  if (!spec.TASK_NAME.test(name)) {
    throw new RowError(
      "BAD_TASK_NAME",
      `${quoted(name)}, expected 1 to 63 letters, digits, '.', '_' or '-', the first a letter or a digit`,
    );
  }
  if (version < 1) {
    throw new RowError("BAD_TASK_NAME", `${name} has task version ${version}, expected 1 to ${UINT32_MAX}`);
  }
  return name;
}

/** Rule 10. The head tensors' shapes. */
function readHeadTable(view: DataView, count: number): number[][] {
  const { MAX_HEAD_RANK, MAX_HEAD_TENSORS } = spec;
  if (count > MAX_HEAD_TENSORS) {
    throw new RowError("BAD_HEAD", `${count} tensors, expected at most ${MAX_HEAD_TENSORS}`);
  }
  const shapes: number[][] = [];
  for (let slot = 0; slot < MAX_HEAD_TENSORS; ++slot) {
    const numbers = Array.from({ length: 1 + MAX_HEAD_RANK }, (_, index) =>
      view.getUint32(spec.AT.head_table + 4 * (slot * (1 + MAX_HEAD_RANK) + index), true),
    );
    let unused = numbers;
    if (slot < count) {
      const [rank, ...dimensions] = numbers as [number, ...number[]];
      if (rank < 1 || rank > MAX_HEAD_RANK) {
        throw new RowError("BAD_HEAD", `tensor ${slot} has rank ${rank}, expected 1 to ${MAX_HEAD_RANK}`);
      }
      const shape = dimensions.slice(0, rank);
      // A 0 counts as 1, which keeps every size of a tensor within 32 bits.
      if (product(shape.map((size) => size || 1)) > UINT32_MAX) {
        throw new RowError("BAD_HEAD", `tensor ${slot} has shape ${quoted(shape)}, expected at most 2^32 - 1 values`);
      }
      shapes.push(shape);
      unused = dimensions.slice(rank);
    }
    if (unused.some((number) => number !== 0)) {
      throw new RowError("BAD_HEAD", `slot ${slot} has ${quoted(unused)} where nothing is used, expected zeros`);
    }
  }
  return shapes;
}

/** Rules 12 to 15. All values, in one array [N + head values]. */
function readPayload(data: Uint8Array, header: Header, shapes: number[][], valueSize: number): Float32Array<ArrayBuffer> {
  const count = header.biasCount + shapes.reduce((all, shape) => all + product(shape), 0);
  const expected = spec.HEADER_SIZE + valueSize * count;
  const detail = `the file has ${data.length} bytes and states ${header.fileSize}, expected ${expected} for ${count} values`;
  if (Math.min(data.length, header.fileSize) < expected) throw new RowError("TRUNCATED", detail, "copy the row again");
  if (Math.max(data.length, header.fileSize) > Math.min(expected, spec.MAX_ROW_SIZE)) {
    throw new RowError("TRAILING_BYTES", `${detail} and at most ${spec.MAX_ROW_SIZE}`, "copy the row again");
  }
  const payload = data.slice(spec.HEADER_SIZE); // a copy, so that values are aligned and the caller's bytes are not kept
  const checksum = crc32c(payload);
  if (header.payloadChecksum !== checksum) {
    throw new RowError(
      "BAD_PAYLOAD_CHECKSUM",
      `the header says 0x${hex32(header.payloadChecksum)}, the payload gives 0x${hex32(checksum)}`,
      "copy the row again",
    );
  }
  const values = valueSize === 4 ? floats32(payload) : floats16(payload);
  const wrong = values.findIndex((value) => !Number.isFinite(value));
  if (wrong >= 0) {
    throw new RowError(
      "NOT_FINITE",
      `value ${wrong} of ${count} is ${values[wrong]}, expected finite numbers`,
      "train the task again with a lower learning rate, or write the row as float32",
    );
  }
  return values;
}

const LITTLE_ENDIAN = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;

function floats32(payload: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  if (LITTLE_ENDIAN) return new Float32Array(payload.buffer);
  const view = new DataView(payload.buffer);
  return Float32Array.from({ length: payload.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}

function floats16(payload: Uint8Array<ArrayBuffer>): Float32Array<ArrayBuffer> {
  const view = new DataView(payload.buffer);
  return Float32Array.from({ length: payload.length / 2 }, (_, index) => halfValue(view.getUint16(2 * index, true)));
}

/** Returns the value of an IEEE 754 float16. */
function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** Rule 16, and the head against the layout's: each tensor is whole or absent, and so is each part. */
function checkLayout(row: BiasRow, layout: Layout): void {
  if (row.layoutDigest !== layout.digest) {
    throw new RowError(
      "WRONG_LAYOUT",
      `the row ${row.task} has layout ${row.layoutDigest.slice(0, 12)}, expected ${layout.digest.slice(0, 12)}`,
      `export the task ${row.task} for this bundle's base model`,
    );
  }
  if (row.biases.length !== layout.biasCount) {
    throw new RowError("WRONG_LAYOUT", `${row.biases.length} bias values, expected ${layout.biasCount}`);
  }
  if (row.head.length !== layout.head.length) {
    throw new RowError("BAD_HEAD", `${row.head.length} tensors, expected ${layout.head.length}`);
  }
  const parts = new Map<string, boolean>();
  const absent = layout.head.map((entry, index) => isAbsent(entry, (row.head[index] as HeadTensor).shape));
  layout.head.forEach((entry, index) => {
    if (!absent[index]) checkHeadTensor(entry, (row.head[index] as HeadTensor).shape, row.labels);
  });
  layout.head.forEach((entry, index) => {
    const part = entry.name.slice(0, Math.max(0, entry.name.lastIndexOf(".")));
    if (!parts.has(part)) parts.set(part, absent[index] as boolean);
    if (parts.get(part) !== absent[index]) {
      throw new RowError("BAD_HEAD", `${shown(part)} has some of its tensors, expected all of them or none`);
    }
  });
}

/** Returns whether the task lacks the tensor. One with labels is never absent. */
function isAbsent(entry: HeadEntry, shape: readonly number[]): boolean {
  const lacking = [0, ...entry.shape.slice(1)];
  return !entry.shape.includes(LABELS) && shape.length === lacking.length && shape.every((size, axis) => size === lacking[axis]);
}

function checkHeadTensor(entry: HeadEntry, shape: readonly number[], labels: number): void {
  const expected = resolve(entry, labels);
  const detail = `${shown(entry.name)} has shape ${quoted(shape)}, expected ${quoted(expected)}`;
  if (shape.length !== expected.length) throw new RowError("BAD_HEAD", detail);
  const axis = shape.findIndex((size, each) => size !== expected[each]);
  if (axis >= 0) throw new RowError(entry.shape[axis] === LABELS ? "BAD_LABEL_COUNT" : "BAD_HEAD", detail);
}

function hex32(value: number): string {
  return value.toString(16).padStart(8, "0");
}
