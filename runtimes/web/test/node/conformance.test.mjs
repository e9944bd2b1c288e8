// Every case of conformance/ that needs no bundle.

import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as parts from "../../build/internals.js";
import { bytesOf, CONFORMANCE, jsonOf, placesIn } from "./support.mjs";

const TOLERANCE = 1e-12; // of a score, for exp is not the same everywhere

describe("rows and heads", async () => {
  for (const folder of ["rows", "heads"]) {
    const index = jsonOf(CONFORMANCE, folder, "index.json");
    const layout = await parts.layoutFromRecord(
      parts.parseObject(new TextEncoder().encode(JSON.stringify(index.layout)), "layout"),
    );
    it(`the layout of ${folder} has the digest of the index`, () => assert.equal(layout.digest, index.layout_digest));
    for (const [name, fault] of Object.entries(index.rows)) {
      it(`${folder}/${name} is ${fault ?? "good"}`, () => {
        const read = () => parts.decodeRow(bytesOf(CONFORMANCE, folder, name), layout);
        if (fault === null) assert.equal(read().layoutDigest, layout.digest);
        else assert.throws(read, (error) => error instanceof parts.RowError && error.fault === fault);
      });
    }
  }

  it("values are those of the file, in float16 too", () => {
    const [full, half] = ["good_float32.bias", "good_float16.bias"].map((name) =>
      parts.decodeRow(bytesOf(CONFORMANCE, "rows", name)),
    );
    const view = new DataView(bytesOf(CONFORMANCE, "rows", "good_float32.bias").buffer);
    full.biases.forEach((value, index) => assert.equal(value, view.getFloat32(448 + 4 * index, true)));
    assert.ok([...half.biases].every(Number.isFinite));
  });
});

describe("signatures", () => {
  const { keys, trusted, cases } = jsonOf(CONFORMANCE, "signatures", "index.json");
  const known = parts.TrustedKeys.of(trusted.map((name) => keys[name]));
  for (const [name, { row, signature, fault }] of Object.entries(cases)) {
    it(`${name}: ${fault ?? "good"}`, async () => {
      const found = signature === null ? undefined : bytesOf(CONFORMANCE, "signatures", signature);
      const check = known.check(bytesOf(CONFORMANCE, "rows", row), found, row);
      if (fault === null) await check;
      else await assert.rejects(check, (error) => error instanceof parts.SignatureError && error.fault === fault);
    });
  }

  it("keys that are none are refused", () => {
    for (const wrong of [[], ["0".repeat(63)], [new Uint8Array(31)], ["x".repeat(64)]]) {
      assert.throws(() => parts.TrustedKeys.of(wrong), parts.UsageError);
    }
  });

  it("the error comes through from a worker", () => {
    const error = new parts.SignatureError("untrusted", "found", "a hint");
    const again = parts.fromPlain(structuredClone(parts.toPlain(error)));
    assert.deepEqual([again.name, again.message, again.fault], [error.name, error.message, error.fault]);
  });
});

describe("manifests", () => {
  const { files } = jsonOf(CONFORMANCE, "manifests", "index.json");
  for (const [name, { fault, why }] of Object.entries(files)) {
    it(`${name}: ${why}`, async () => {
      const read = parts.readManifest(bytesOf(CONFORMANCE, "manifests", name));
      if (fault === null) await read;
      else {
        await assert.rejects(read, (error) => {
          assert.ok(error instanceof parts.BundleError && !(error instanceof parts.RowError), String(error));
          assert.match(error.problem, fault === "json" ? /is not valid JSON/ : fault === "missing" ? /lack/ : /expected|twice|gives/);
          assert.ok(error.problem.length < 1000);
          assert.doesNotMatch(error.problem, /[\p{Cc}\u2028\u2029]/u);
          return true;
        });
      }
    });
  }
});

describe("jsonl", () => {
  const { files } = jsonOf(CONFORMANCE, "jsonl", "index.json");
  for (const [name, { fault, line, why, questions }] of Object.entries(files)) {
    it(`${name}: ${why}`, () => {
      const read = () => parts.readLines(bytesOf(CONFORMANCE, "jsonl", name));
      if (fault === null) {
        assert.deepEqual(read().map(asQuestion), questions);
      } else {
        assert.throws(read, (error) => error instanceof parts.InputError && (line === null || error.problem.startsWith(`line ${line}`)));
      }
    });
  }

  // A line that names no task leaves it to the caller, who asks for sst2 here.
  function asQuestion({ task = "sst2", text }) {
    if (typeof text === "string") return { task, text };
    return "question" in text ? { task, text: text.question, text_pair: text.context } : { task, ...text };
  }
});

describe("tokenizer", () => {
  const encodings = jsonOf(CONFORMANCE, "tokenizer", "index.json");
  for (const [name, cases] of Object.entries(encodings)) {
    const data = bytesOf(CONFORMANCE, "tokenizer", name);
    if (name === "unigram.json") {
      it(`${name} is refused, for this runtime knows no such model`, () => {
        assert.throws(() => new parts.Tokenizer(data, name), /has the model Unigram .*expected WordPiece/);
      });
      continue;
    }
    const tokenizer = new parts.Tokenizer(data, name);
    const encoder = new parts.Encoder(tokenizer, 1000);
    it(`${name}: texts`, () => {
      for (const each of cases.texts) assert.deepEqual(tokensOf(encoder.tokenize(itemsOf(each))[0]), expectedTokens(each, each.tokens));
    });
    it(`${name}: texts that are cut`, () => {
      for (const each of cases.cut) {
        assert.deepEqual(tokensOf(encoder.tokenize(itemsOf(each), each.limit, true)[0]), expectedTokens(each, each.tokens));
      }
    });
    it(`${name}: contexts that are read in windows`, () => {
      for (const each of cases.windows) {
        const [found] = encoder.windows(itemsOf(each), each.limit);
        assert.deepEqual(found.map(tokensOf), each.windows.map((window) => expectedTokens(each, window)));
      }
    });
  }

  function itemsOf({ text, pair, words }) {
    return parts.asItems([pair ? { text: pair[0], text_pair: pair[1] } : words ? { tokens: words } : text]);
  }

  function tokensOf(found) {
    return found.ids.map((id, place) => {
      const [start, end] = found.spans[place];
      return [id, found.typeIds[place], found.sides[place], found.words[place], ...(start < end ? [start, end] : [0, 0])];
    });
  }

  function expectedTokens({ text, pair, words }, tokens) {
    const sides = (pair ?? [words ? words.join(" ") : text]).map(placesIn);
    return tokens.map(([id, type, side, word, start, end]) => [id, type, side, word, sides[side ?? 0](start), sides[side ?? 0](end)]);
  }
});

describe("answers", () => {
  for (const each of jsonOf(CONFORMANCE, "answers", "index.json")) {
    it(`${each.problem_type} ${each.name}`, () => {
      const counts = each.problem_type === "token" ? [each.expected.length] : [1, 2, 3, each.expected.length + 1];
      for (const count of counts) {
        const found = answersTo(each, count);
        const places = placesIn(each.context ?? each.text ?? (each.words ?? []).join(" "));
        const expected = each.expected.slice(0, count).map((answer) =>
          "start" in answer ? { ...answer, start: places(answer.start), end: places(answer.end) } : answer,
        );
        assert.deepEqual(found.map(withoutScore), expected.map(withoutScore));
        found.forEach(({ score }, index) => {
          const wanted = expected[index].score;
          assert.ok(Math.abs(score - wanted) <= TOLERANCE * (1 + Math.abs(wanted)), `${score}, expected ${wanted}`);
        });
      }
    });
  }

  function answersTo(each, count) {
    const task = { problemType: each.problem_type, labels: each.labels };
    const flat = (logits) => Float32Array.from(logits.flat());
    if (each.problem_type === "token") {
      const places = placesIn(each.text ?? each.words.join(" "));
      return parts.labelWords(task, flat(each.logits), tokensOf(each.tokens, places), each.words ?? each.text);
    }
    if (each.problem_type === "span") {
      const places = placesIn(each.context);
      const found = each.windows.flatMap((window) =>
        parts.findAnswers(flat(window.logits), tokensOf(window.tokens, places), each.context, each.max_answer_tokens, count),
      );
      return parts.bestAnswers(found).slice(0, count);
    }
    return parts.rankLabels(task, flat(each.logits)).slice(0, count);
  }

  function tokensOf(tokens, places) {
    return {
      ids: tokens.map(() => 0),
      typeIds: tokens.map(() => 0),
      sides: tokens.map(([side]) => side),
      words: tokens.map(([, word]) => word),
      spans: tokens.map((token) => token.slice(-2).map(places)),
    };
  }

  function withoutScore({ score: _, ...others }) {
    return others;
  }
});

describe("batches", () => {
  for (const each of jsonOf(CONFORMANCE, "batches", "index.json")) {
    it(each.name, () => {
      const groups = each.groups ?? each.lengths.map(() => "");
      assert.deepEqual(parts.planBatches(each.lengths, groups, each.batch_size, each.batch_tokens), each.batches);
    });
  }
});
