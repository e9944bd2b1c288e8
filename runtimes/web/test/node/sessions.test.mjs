// Every script of conformance/sessions, step by step, in each layout; and what a session promises besides. BITFIT_WEB_FIXTURES
// names a folder with bundles of the scripts' tasks and their row files: tests/web makes it.

import assert from "node:assert/strict";
import { generateKeyPairSync, sign } from "node:crypto";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { BiasSession, BundleError, InputError, RowError, SignatureError, UsageError, WorkerSession } from "../../dist/index.js";
import { bytesOf, CONFORMANCE, jsonOf } from "./support.mjs";

const FIXTURES = process.env.BITFIT_WEB_FIXTURES;
const ERRORS = { bundle_error: BundleError, row_error: RowError, input_error: InputError, usage_error: UsageError };
const TOLERANCE = 1e-8; // scores in the scripts have nine digits

const bundleOf = (layout) => join(FIXTURES, layout, "bundle");
const rowOf = (layout, name) => bytesOf(FIXTURES, layout, "rows", `${name}.bias`);

describe("conformance/sessions", { skip: FIXTURES ? false : "BITFIT_WEB_FIXTURES names no folder" }, () => {
  for (const file of readdirSync(join(CONFORMANCE, "sessions"))) {
    if (file === "rows.json") continue;
    const script = jsonOf(CONFORMANCE, "sessions", file);
    for (const layout of script.layouts ?? ["table", "packed", "named"]) {
      it(`${file} in ${layout}: ${script.why}`, async () => {
        let session;
        try {
          for (const [number, step] of script.steps.entries()) {
            const where = `step ${number}: ${JSON.stringify(step)}`;
            const call = async () => {
              if (step.call === "open") {
                await session?.close();
                session = undefined;
                session = await BiasSession.open(bundleOf(layout), { threads: 1, tasks: step.tasks });
                return undefined;
              }
              return calls[step.call](session, step, layout);
            };
            if (step.error) {
              await assert.rejects(call, (error) => {
                assert.equal(error.constructor, ERRORS[step.error], `${where}: ${error}`);
                if (step.fault) assert.equal(error.fault, step.fault, where);
                return true;
              });
            } else check(await call(), step, where);
          }
        } finally {
          await session?.close();
        }
      });
    }
  }
});

const oneOrAll = (tasks) => (tasks.length === 1 ? tasks[0] : tasks);

const calls = {
  tasks: (session) => [...session.tasks].sort(),
  labels: (session, { task }) => session.labels(task),
  load_task: (session, { row, name, labels }, layout) => session.loadTask(rowOf(layout, row), { name, labels }),
  unload_task: (session, { task }) => session.unloadTask(task),
  run: (session, step) => session.run(oneOrAll(step.tasks), batchOf(step)),
  predict: async (session, { texts, tasks, top_k: topK }) => {
    const given = texts.map((text) =>
      Array.isArray(text) ? { text: text[0], text_pair: text[1] } : text.words ? { tokens: text.words } : text,
    );
    const found = await session.predict(given, oneOrAll(tasks), { topK });
    return found.map((each) => (Array.isArray(each) ? each : [each]));
  },
};

function batchOf({ items, input_ids: inputIds, attention_mask: attentionMask }) {
  if (items === undefined) return { inputIds, attentionMask };
  const repeat = (row) => Array.from({ length: items }, () => row);
  return { inputIds: repeat([2, 5, 3, 0]), attentionMask: repeat([1, 1, 1, 0]) };
}

function check(found, { call, returns }, where) {
  if (call === "run") {
    assert.deepEqual([...found.data], returns.flat(3).map((value) => value ?? Number.NEGATIVE_INFINITY), where);
    assert.equal(found.dims[0], returns.length, where);
  } else if (call === "predict") {
    const plain = (answers) => answers.map(({ score: _, ...others }) => others);
    assert.deepEqual(found.map(plain), returns.map(plain), where);
    found.flat().forEach(({ score }, index) => assert.ok(Math.abs(score - returns.flat()[index].score) <= TOLERANCE, where));
  } else if (returns !== undefined) assert.deepEqual(found, returns, where);
}

describe("a session", { skip: FIXTURES ? false : "BITFIT_WEB_FIXTURES names no folder" }, () => {
  let session;
  before(async () => {
    session = await BiasSession.open(bundleOf("table"), { threads: 1 });
  });
  after(() => session.close());

  it("is open only as its manifest says: a changed file is refused", async () => {
    const files = filesOf("table");
    const damaged = files["model.onnx.data"].slice();
    damaged[damaged.length >> 1] ^= 1;
    await assert.rejects(BiasSession.open({ ...files, "model.onnx.data": damaged }), /model.onnx.data has sha256 .*expected/);
    await assert.rejects(
      BiasSession.open({ ...files, "model.onnx.data": damaged.slice(1) }),
      (error) => error instanceof BundleError && /has \d+ bytes, expected \d+/.test(error.problem),
    );
    const { "tokenizer.json": _, ...others } = files;
    await assert.rejects(BiasSession.open(others), /the bundle has no tokenizer.json/);
    const swapped = { ...files, "tasks/score.bias": files["tasks/tags.bias"] };
    await assert.rejects(BiasSession.open(swapped), /tasks\/score.bias has sha256/);
  });

  it("opens files that the caller holds, whatever happens to these later", async () => {
    const files = filesOf("table");
    const opening = BiasSession.open(files, { threads: 1 });
    const own = await opening;
    for (const bytes of Object.values(files)) bytes.fill(0);
    assert.deepEqual(await own.predict("a", "score"), [{ score: 0.75 }]);
    await own.close();
  });

  it("is refused when it is closed, and closes twice", async () => {
    const own = await BiasSession.open(bundleOf("table"), { threads: 1 });
    const answer = own.predict("a", "score");
    await Promise.all([own.close(), answer.catch(() => undefined)]);
    await own.close();
    await assert.rejects(own.predict("a", "score"), (error) => error instanceof UsageError && /is closed/.test(error.problem));
    await assert.rejects(own.loadTask(rowOf("table", "news")), UsageError);
  });

  it("ends calls by an AbortSignal", async () => {
    const aborted = AbortSignal.abort();
    await assert.rejects(BiasSession.open(bundleOf("table"), { signal: aborted }), { name: "AbortError" });
    await assert.rejects(session.predict("a", "score", { signal: aborted }), { name: "AbortError" });
    await assert.rejects(session.loadTask(rowOf("table", "news"), { signal: aborted }), { name: "AbortError" });
    const controller = new AbortController();
    const texts = Array.from({ length: 64 }, (_, index) => `text ${index}`);
    const long = session.predict(texts, "score", { signal: controller.signal, batchSize: 1 });
    controller.abort(new Error("enough"));
    await assert.rejects(long, /enough/);
    assert.deepEqual(session.tasks.length, 4);
  });

  it("lets a run keep the row that it began with", async () => {
    const texts = Array.from({ length: 8 }, () => "a");
    const running = session.predict(texts, "sentiment", { batchSize: 1 });
    await session.loadTask(rowOf("table", "sentiment_2"));
    for (const { label } of await running) assert.equal(label, "positive");
    assert.equal((await session.predict("a", "sentiment"))[0].label, "negative");
    session.unloadTask("sentiment");
    await session.loadTask(filesOf("table")["tasks/sentiment.bias"]);
  });

  it("answers calls that are made at once", async () => {
    const [first, second] = await Promise.all([session.predict("a", "score"), session.predict(["b", "c"], "topics", { topK: 1 })]);
    assert.deepEqual(first, [{ score: 0.75 }]);
    assert.equal(second[1][0].label, "art");
  });

  it("says which item is wrong, and what it expected", async () => {
    const refused = async (call, kind, problem) =>
      assert.rejects(call, (error) => {
        assert.equal(error.constructor, kind, String(error));
        assert.match(error.problem, problem);
        return true;
      });
    await refused(session.predict([], "score"), InputError, /there is no text/);
    await refused(session.predict(["a", 5], "score"), InputError, /^item 1 is 5, expected a string/);
    await refused(session.predict(["a", "\ud800"], "score"), InputError, /^item 1 has half a surrogate pair/);
    await refused(session.predict("a ".repeat(100), "score"), InputError, /^item 0 has 102 tokens, expected at most 64/);
    await refused(session.predict({ tokens: ["a"] }, "score"), InputError, /^item 0 is a list of words, expected one text or a pair/);
    await refused(session.predict(["a", "b"], ["score"]), InputError, /there are 1 tasks for 2 items/);
    await refused(session.predict("a", "score", { topK: 0 }), UsageError, /topK is 0, expected 1 or more/);
    await refused(session.predict("a", "tags", { topK: 1 }), UsageError, /expected none for the token task tags/);
    await refused(session.predict("a", "score", { maxLength: 65 }), UsageError, /maxLength is 65, expected 1 to 64/);
    await refused(
      session.run("score", { inputIds: [[1, 2], [3, 1e9]], attentionMask: [[1, 1], [1, 1]] }),
      InputError,
      /^item 1 has 1000000000 in inputIds/,
    );
    await refused(session.loadTask(5), InputError, /is 5, expected a Blob/);
    await refused(session.loadTask("missing.bias"), BundleError, /missing.bias cannot be read/);
    await refused(BiasSession.open(bundleOf("table"), { threads: 0 }), UsageError, /threads is 0/);
    await refused(BiasSession.open(bundleOf("table"), { engine: "cuda" }), UsageError, /the engine is 'cuda', expected wasm or webgpu/);
    await refused(WorkerSession.open(bundleOf("table")), UsageError, /there are no web workers here/);
    await refused(BiasSession.open("no/such/folder"), BundleError, /manifest.json cannot be read/);
  });

  it("returns both outputs of mixed tasks by runOutputs, and inputs of encode", async () => {
    const outputs = await session.runOutputs(["score", "tags"], session.encode(["Ada lives", "Ada"]));
    assert.deepEqual(Object.keys(outputs).sort(), ["logits", "token_logits"]);
    assert.deepEqual(outputs.logits.dims, [2, 2]);
    assert.deepEqual(outputs.token_logits.dims, [2, 4, 2]);
    assert.deepEqual([...outputs.logits.data.slice(0, 2)], [0.75, Number.NEGATIVE_INFINITY]);
  });

  it("holds a thousand tasks, and names them in their order", async () => {
    const row = rowOf("table", "news");
    for (let index = 0; index < 1000; ++index) await session.loadTask(row, { name: `news-${index}` });
    assert.equal(session.tasks.length, 1004);
    assert.equal((await session.predict("a", "news-999"))[0].label, "LABEL_1");
    const mixed = await session.predict(Array(32).fill("a"), Array.from({ length: 32 }, (_, index) => `news-${31 * index}`));
    assert.ok(mixed.every(({ label }) => label === "LABEL_1"));
    for (let index = 0; index < 1000; ++index) session.unloadTask(`news-${index}`);
    assert.equal(session.tasks.length, 4);
  });

  function filesOf(layout) {
    const folder = bundleOf(layout);
    const paths = ["manifest.json", ...Object.keys(jsonOf(folder, "manifest.json").files)];
    for (const name of Object.keys(jsonOf(folder, "manifest.json").tasks)) paths.push(`tasks/${name}.bias`);
    return Object.fromEntries(paths.map((path) => [path, bytesOf(folder, path)]));
  }
});

describe("trusted keys", { skip: FIXTURES ? false : "BITFIT_WEB_FIXTURES names no folder" }, () => {
  const [vendor, stranger] = [generateKeyPairSync("ed25519"), generateKeyPairSync("ed25519")];
  const publicOf = ({ publicKey }) => publicKey.export({ type: "spki", format: "der" }).subarray(-32);
  const signatureOf = (data, key) =>
    Buffer.concat([Buffer.from("BITFSIG1"), publicOf(key), sign(null, data, key.privateKey)]);
  const signFile = (path, key) => writeFileSync(`${path}.sig`, signatureOf(readFileSync(path), key));
  const options = { threads: 1, trustedKeys: [publicOf(vendor).toString("hex")] };
  const isFault = (fault) => (error) => error instanceof SignatureError && error.fault === fault;
  let folder;

  before(() => {
    folder = mkdtempSync(join(tmpdir(), "signed-"));
    cpSync(bundleOf("table"), folder, { recursive: true });
    signFile(join(folder, "manifest.json"), vendor);
    for (const name of readdirSync(join(folder, "tasks"))) signFile(join(folder, "tasks", name), vendor);
  });
  after(() => rmSync(folder, { recursive: true }));

  it("what is signed runs, and a row without its signature is refused", async () => {
    const session = await BiasSession.open(folder, options);
    try {
      const [task] = session.tasks;
      const path = join(folder, "tasks", `${task}.bias`);
      assert.equal(await session.loadTask(path), task);
      const data = readFileSync(path);
      await assert.rejects(session.loadTask(data), isFault("missing"));
      await assert.rejects(session.loadTask(data, { signature: signatureOf(data, stranger) }), isFault("untrusted"));
      await assert.rejects(session.loadTask(data, { signature: signatureOf(data.subarray(1), vendor) }), isFault("wrong"));
      assert.equal(await session.loadTask(data, { signature: signatureOf(data, vendor) }), task);
    } finally {
      await session.close();
    }
  });

  it("a bundle of which a file is not signed is not opened", async () => {
    await assert.rejects(BiasSession.open(bundleOf("table"), options), isFault("missing"));
    const [name] = readdirSync(join(folder, "tasks")).filter((each) => each.endsWith(".bias"));
    signFile(join(folder, "tasks", name), stranger);
    await assert.rejects(BiasSession.open(folder, options), isFault("untrusted"));
  });
});
