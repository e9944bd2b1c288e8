// What the bytes of model.onnx say without an engine: its metadata, its graph's inputs, and the files of its weights. Only
// what leads to these is looked at of ONNX's protobuf messages.

import { MAX_JSON_DEPTH } from "./spec.js";

export interface OnnxFile {
  readonly metadata: ReadonlyMap<string, string>;
  /** The paths, relative to the model's folder, of every file that holds data of its tensors. */
  readonly locations: ReadonlySet<string>;
}

type Message = "model" | "training" | "function" | "graph" | "node" | "attribute" | "sparse" | "tensor" | "data" | "metadata";

// Message -> field number -> the message that the field holds. Numbers are those of onnx.proto.
const FIELDS: Readonly<Record<Message, Readonly<Record<number, Message>>>> = {
  model: { 7: "graph", 14: "metadata", 20: "training", 25: "function" },
  training: { 1: "graph", 2: "graph" },
  function: { 7: "node", 11: "attribute" },
  graph: { 1: "node", 5: "tensor", 15: "sparse" },
  node: { 5: "attribute" },
  attribute: { 5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse" },
  sparse: { 1: "tensor", 2: "tensor" },
  tensor: { 13: "data" },
  data: {},
  metadata: {},
};

/** @throws SyntaxError: the bytes are not a protobuf message, or messages nest too deeply. */
export function readOnnxFile(model: Uint8Array): OnnxFile {
  const metadata = new Map<string, string>();
  const locations = new Set<string>();
  const pending: [Message, number, number, number][] = [["model", 0, model.length, 0]];
  for (let next = pending.pop(); next; next = pending.pop()) {
    const [kind, start, end, depth] = next;
    if (depth > 2 * MAX_JSON_DEPTH) throw new SyntaxError("its graphs nest too deeply");
    if (kind === "data" || kind === "metadata") {
      const [key, value] = readEntry(model, start, end);
      if (kind === "metadata") metadata.set(key, value);
      else if (key === "location") locations.add(value);
      continue;
    }
    for (const [number, first, last] of fieldsOf(model, start, end)) {
      const message = FIELDS[kind][number];
      if (message) pending.push([message, first, last, depth + 1]);
    }
  }
  return { metadata, locations };
}

function readEntry(data: Uint8Array, start: number, end: number): [string, string] {
  const text = ["", "", ""];
  for (const [number, first, last] of fieldsOf(data, start, end)) {
    if (number < text.length) text[number] = new TextDecoder().decode(data.subarray(first, last));
  }
  return [text[1] as string, text[2] as string];
}

/** The fields with bytes of a message, in order: number, start and end. */
function* fieldsOf(data: Uint8Array, start: number, end: number): Generator<[number, number, number]> {
  let at = start;
  const varint = (): number => {
    let value = 0;
    for (let place = 0; place < 10 && at < end; ++place) {
      const byte = data[at++] as number;
      value += (byte & 0x7f) * 2 ** (7 * place);
      if (byte < 0x80) return value;
    }
    throw new SyntaxError("it is truncated");
  };
  while (at < end) {
    const tag = varint();
    const wire = tag % 8;
    if (wire === 0) varint();
    else if (wire === 1) at += 8;
    else if (wire === 5) at += 4;
    else if (wire === 2) {
      const size = varint();
      at += size;
      if (at <= end) yield [Math.floor(tag / 8), at - size, at];
    } else throw new SyntaxError("it is not an ONNX model");
  }
  if (at > end) throw new SyntaxError("it is truncated");
}
