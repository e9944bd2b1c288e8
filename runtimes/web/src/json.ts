// JSON as manifests and JSON lines have it: RFC 8259 in UTF-8, with what that leaves open decided. docs/files.md is the
// specification, and conformance/ has a file for each rule. JSON.parse takes more: numbers that become infinite, integers
// that a double rounds, the last of two equal keys, half a surrogate pair.

import { MAX_JSON_DEPTH } from "./spec.js";
import { quoted } from "./shown.js";

/** A number with a fraction or an exponent; whole numbers are `number`, or `bigint` where a double rounds them. */
export class Real {
  constructor(readonly value: number) {}
}

export type Json = null | boolean | string | number | bigint | Real | Json[] | JsonObject;
export type JsonObject = Map<string, Json>;

const NUMBER = /(-?(?:0|[1-9][0-9]*))(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
const [QUOTE, BACKSLASH, SPACE, TAB, LINE_FEED, RETURN] = [0x22, 0x5c, 0x20, 0x09, 0x0a, 0x0d];
const ESCAPES: Readonly<Record<string, string>> = {
  '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t",
};
const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;

/**
 * Returns the value of one JSON text.
 *
 * @throws SyntaxError: it is not JSON of this dialect; the message says why.
 */
export function parseJson(data: Uint8Array): Json {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
  } catch {
    throw new SyntaxError("it is not UTF-8");
  }
  if (text.startsWith("\ufeff")) throw new SyntaxError("it begins with a byte order mark");
  return new Parser(text).parse();
}

class Parser {
  private at = 0;
  private depth = 0;

  constructor(private readonly text: string) {}

  parse(): Json {
    const value = this.value();
    this.skipSpace();
    if (this.at < this.text.length) this.fail("there is text after the value");
    return value;
  }

  private value(): Json {
    this.skipSpace();
    const first = this.text[this.at];
    if (first === "{") return this.nested(() => this.object());
    if (first === "[") return this.nested(() => this.list());
    if (first === '"') return this.string();
    if (first === "-" || (first !== undefined && first >= "0" && first <= "9")) return this.number();
    if (this.take("null")) return null;
    if (this.take("true")) return true;
    if (this.take("false")) return false;
    return this.fail(first === undefined ? "it is truncated" : "a value is expected");
  }

  private nested<Value>(read: () => Value): Value {
    if (++this.depth > MAX_JSON_DEPTH) throw new SyntaxError(`it has more than ${MAX_JSON_DEPTH} levels`);
    this.at += 1;
    const value = read();
    this.depth -= 1;
    return value;
  }

  private object(): JsonObject {
    const members: JsonObject = new Map();
    this.skipSpace();
    if (this.take("}")) return members;
    do {
      this.skipSpace();
      if (this.text[this.at] !== '"') this.fail("a key is expected");
      const key = this.string();
      this.skipSpace();
      if (!this.take(":")) this.fail("':' is expected");
      const value = this.value();
      if (members.has(key)) throw new SyntaxError(`the key ${quoted(key)} is there twice`);
      members.set(key, value);
      this.skipSpace();
    } while (this.take(","));
    if (!this.take("}")) this.fail("',' or '}' is expected");
    return members;
  }

  private list(): Json[] {
    const values: Json[] = [];
    this.skipSpace();
    if (this.take("]")) return values;
    do {
      values.push(this.value());
      this.skipSpace();
    } while (this.take(","));
    if (!this.take("]")) this.fail("',' or ']' is expected");
    return values;
  }

  private string(): string {
    this.at += 1;
    let value = this.plainText();
    let escapes = false;
    while (this.text[this.at] === "\\") {
      value += this.escape();
      value += this.plainText();
      escapes = true;
    }
    if (!this.take('"')) this.fail("a string has a control character or no end");
    if (escapes && !value.isWellFormed()) throw new SyntaxError("a string has half a surrogate pair");
    return value;
  }

  private escape(): string {
    const kind = this.text[this.at + 1] ?? "";
    this.at += 2;
    if (kind !== "u") return ESCAPES[kind] ?? this.fail("an escape is unknown");
    const digits = this.text.slice(this.at, this.at + 4);
    if (!/^[0-9a-fA-F]{4}$/.test(digits)) this.fail("an escape needs four hexadecimal digits");
    this.at += 4;
    return String.fromCharCode(Number.parseInt(digits, 16));
  }

  private number(): number | bigint | Real {
    NUMBER.lastIndex = this.at;
    const [all, whole, fraction, exponent] = NUMBER.exec(this.text) ?? this.fail("a number is malformed");
    this.at += all.length;
    if (fraction === undefined && exponent === undefined) return int64(whole as string);
    const value = Number(all);
    if (!Number.isFinite(value)) throw new SyntaxError(`no double can hold ${quoted(all)}`);
    return new Real(value);
  }

  private take(word: string): boolean {
    if (!this.text.startsWith(word, this.at)) return false;
    this.at += word.length;
    return true;
  }

  /** The part of a string before its end or its next escape. A vocabulary has tens of thousands, so this is a plain loop. */
  private plainText(): string {
    const start = this.at;
    for (let code = this.text.charCodeAt(start); code >= SPACE && code !== QUOTE && code !== BACKSLASH; ) {
      code = this.text.charCodeAt(++this.at); // NaN at the end, which is not above anything
    }
    return this.text.slice(start, this.at);
  }

  private skipSpace(): void {
    for (;;) {
      const code = this.text.charCodeAt(this.at);
      if (code !== SPACE && code !== TAB && code !== LINE_FEED && code !== RETURN) return;
      this.at += 1;
    }
  }

  private fail(why: string): never {
    throw new SyntaxError(`${why} at character ${this.at}`);
  }
}

function int64(digits: string): number | bigint {
  const value = Number(digits);
  if (Number.isSafeInteger(value)) return value + 0; // and -0 is 0
  // Long ones are compared by their length: making a number of a million digits takes long.
  const exact = digits.length > 20 ? INT64_MAX + 1n : BigInt(digits);
  if (exact < INT64_MIN || exact > INT64_MAX) throw new SyntaxError(`int64 cannot hold ${quoted(digits)}`);
  return exact;
}
