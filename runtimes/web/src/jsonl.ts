// JSON lines, as `bitfit run` reads them: a question on each line, with the task that it is for.

import { InputError } from "./errors.js";
import { type Json, parseJson } from "./json.js";
import { quoted, shown } from "./shown.js";
import { MAX_LINE_SIZE } from "./spec.js";
import type { Text } from "./text/encoder.js";

export interface Line {
  /** From 1. */
  readonly number: number;
  /** Undefined where the line leaves it to the caller. */
  readonly task: string | undefined;
  readonly text: Text;
}

const TEXT_KEYS = ["text", "sentence", "sentence1"];
const PAIR_KEYS = ["text_pair", "sentence2"];
const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf];

/**
 * Returns the questions of a file of JSON lines.
 *
 * @throws InputError: no line, or one that is malformed; the message names it.
 */
export function readLines(data: Uint8Array): Line[] {
  const lines: Line[] = [];
  let start = BYTE_ORDER_MARK.every((byte, index) => data[index] === byte) ? BYTE_ORDER_MARK.length : 0;
  for (let number = 1; start < data.length; ++number) {
    const feed = data.indexOf(0x0a, start);
    const end = feed < 0 ? data.length : feed;
    const line = data.subarray(start, end);
    start = end + 1;
    if (line.length > MAX_LINE_SIZE) {
      throw new InputError(`line ${number} has ${line.length} bytes, expected at most ${MAX_LINE_SIZE}`);
    }
    if (line.every((byte) => byte === 0x20 || byte === 0x09 || byte === 0x0d)) continue;
    lines.push({ number, ...readLine(line, `line ${number}`) });
  }
  if (!lines.length) throw new InputError("the input has no line, expected at least one JSON object");
  return lines;
}

function readLine(line: Uint8Array, where: string): Omit<Line, "number"> {
  let value: Json;
  try {
    value = parseJson(line);
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    throw new InputError(`${where} is not valid JSON: ${shown(error.message, 200)}`);
  }
  if (!(value instanceof Map)) throw new InputError(`${where} is ${quoted(value)}, expected an object`);
  const members = value;
  const text = (key: string): string => {
    const found = members.get(key);
    if (typeof found !== "string") {
      throw new InputError(`${where}: ${key} is ${found === undefined ? "missing" : quoted(found)}, expected a string`);
    }
    return found;
  };
  return { task: members.has("task") ? text("task") : undefined, text: readText(members, text, where) };
}

function readText(members: ReadonlyMap<string, Json>, text: (key: string) => string, where: string): Text {
  if (members.has("tokens")) {
    const words = members.get("tokens");
    if (!Array.isArray(words) || !words.length || !words.every((word) => typeof word === "string")) {
      throw new InputError(`${where}: tokens is ${quoted(words)}, expected a list of one or more strings`);
    }
    return { tokens: words as string[] };
  }
  if (members.has("question") && members.has("context")) return { question: text("question"), context: text("context") };
  const first = TEXT_KEYS.find((key) => members.has(key));
  if (first === undefined) {
    throw new InputError(`${where} has no text, expected text, tokens, or question and context`);
  }
  const second = PAIR_KEYS.find((key) => members.has(key));
  if (second === undefined || members.get(second) === null) return text(first);
  return { text: text(first), text_pair: text(second) };
}
