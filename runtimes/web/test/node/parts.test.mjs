// The parts that no case of conformance/ looks at closely.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { describe, it } from "node:test";
import * as parts from "../../build/internals.js";
import { bytesOf, CONFORMANCE } from "./support.mjs";

describe("digests", () => {
  it("CRC-32C has the check value of the specification", () => {
    assert.equal(parts.crc32c(new TextEncoder().encode("123456789")), 0xe3069283);
    assert.equal(parts.crc32c(new Uint8Array()), 0);
  });

  it("SHA-256 without WebCrypto is that of WebCrypto", async () => {
    for (const size of [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000]) {
      const bytes = Uint8Array.from({ length: size }, (_, index) => (index * 7) % 256);
      const expected = createHash("sha256").update(bytes).digest("hex");
      assert.equal(parts.hexOf(parts.sha256Here(bytes)), expected, String(size));
      assert.equal(parts.hexOf(await parts.sha256(bytes)), expected);
    }
  });
});

describe("errors", () => {
  it("have the problem, and the hint on a second line", () => {
    const error = new parts.BundleError("found a, expected b", "do c");
    assert.equal(error.message, "found a, expected b\nhint: do c");
    assert.equal(error.name, "BundleError");
    assert.ok(error instanceof parts.BitfitError && error instanceof Error);
  });

  it("survive the way from a worker", () => {
    for (const error of [
      new parts.InputError("is wrong", { item: 3, hint: "mend it" }),
      new parts.RowError("TRUNCATED", "the file has 1 byte", "copy it"),
      new parts.UsageError("an option"),
      new DOMException("stopped", "AbortError"),
    ]) {
      const back = parts.fromPlain(structuredClone(parts.toPlain(error)));
      for (const key of ["name", "message", "problem", "hint", "item", "fault"]) assert.deepEqual(back[key], error[key], key);
    }
  });

  it("show names from files on one line, escaped and cut", () => {
    assert.equal(parts.shown("a\x1bb\n\u2028"), "a\\x1bb\\x0a\\u2028");
    assert.equal(parts.shown("x".repeat(1000)).length, 100);
    assert.ok(parts.quoted(Array(1000).fill("y".repeat(1000))).length <= 202);
  });
});

describe("JSON", () => {
  const parse = (text) => parts.parseJson(new TextEncoder().encode(text));

  it("has the limits of nesting and of numbers on both sides", () => {
    parse("[".repeat(64) + "]".repeat(64));
    assert.throws(() => parse("[".repeat(65) + "]".repeat(65)), /more than 64 levels/);
    assert.throws(() => parse("[".repeat(1e6)), /more than 64 levels/);
    assert.equal(parse("9223372036854775807"), 2n ** 63n - 1n);
    assert.throws(() => parse("9223372036854775808"), /int64 cannot hold/);
    assert.throws(() => parse(`-${"9".repeat(1e6)}`), /int64 cannot hold/);
    assert.throws(() => parse("1e999"), /no double can hold/);
    assert.equal(parse("1e-999").value, 0);
  });

  it("keeps keys that are members of every object", () => {
    assert.equal(parse('{"__proto__": 1, "constructor": 2}').get("__proto__"), 1);
  });
});

describe("an ONNX file", () => {
  it("is refused where it is none, or ends too early", () => {
    assert.throws(() => parts.readOnnxFile(Uint8Array.of(0x3a, 0x05, 0x01)), /truncated/);
    assert.throws(() => parts.readOnnxFile(Uint8Array.of(0xff, 0xff)), /truncated|no.* ONNX/);
    assert.throws(() => parts.readOnnxFile(Uint8Array.of(0x0b)), /not an ONNX model/);
  });
});

describe("a row", () => {
  it("keeps none of the caller's bytes", () => {
    const data = bytesOf(CONFORMANCE, "rows", "good_float32.bias");
    const row = parts.decodeRow(data);
    const before = [...row.biases];
    data.fill(0);
    assert.deepEqual([...row.biases], before);
  });

  it("is read from the middle of a buffer", () => {
    const data = bytesOf(CONFORMANCE, "rows", "good_float32.bias");
    const shifted = new Uint8Array(data.length + 3);
    shifted.set(data, 3);
    assert.deepEqual(parts.decodeRow(shifted.subarray(3)).biases, parts.decodeRow(data).biases);
  });

  it("names its file in messages", () => {
    assert.throws(() => parts.decodeRow(new Uint8Array(10), undefined, "a.bias"), {
      problem: "truncated header: a.bias: the file has 10 bytes, expected at least 448",
    });
  });
});
