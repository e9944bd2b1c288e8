// What benchmarks/web_runtime.py measures in Chromium, and switches of task in Node: prints figures as JSON.
//
// Time of the processor is that of all of Chromium's processes and threads together. It disturbs less than a clock on the
// wall does, where other programs run, and the wall's is no longer on a machine that does nothing else.
//
//   node benchmarks/web_page.mjs SITE BUNDLE_TASKS VISITS ROUNDS
//
// SITE is a folder that web_runtime.py makes: the demo, `blank.html`, `internals.js` and `models/`, one model per task.

import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { decodeRow, TaskStore } from "../runtimes/web/build/internals.js";
import { BiasSession } from "../runtimes/web/dist/index.js";
import { launchWithProfile, startServer } from "../runtimes/web/test/browser/support.mjs";

const [folder, names, visits, rounds] = process.argv.slice(2);
const tasks = names.split(",");
const TEXT = "A warm, funny film that I would gladly see again.";
const server = await startServer({ folder });
const figures = {};

try {
  for (const count of [5, 1000]) figures[`${count} tasks`] = await switchTasks(count, Number(rounds));
  const ours = await visitsOf(openBundle);
  const theirs = await visitsOf(openModels);
  for (const [name, found] of Object.entries({ "one bundle": ours, "one model per task": theirs })) {
    figures[name] = {
      "download (bytes)": found[0].bytes,
      "WebAssembly memory (bytes)": found.at(-1).memory,
      "all tasks answered, first visit (ms)": found[0].answered,
      "first answer, cached, processor (ms)": spread(found.slice(1).map(({ firstProcessor }) => firstProcessor)),
      "all tasks answered, cached, processor (ms)": spread(found.slice(1).map(({ processor }) => processor)),
      "first answer, cached (ms)": spread(found.slice(1).map(({ first }) => first)),
      "first answer since the page began, cached (ms)": spread(found.slice(1).map(({ sinceStart }) => sinceStart)),
      "all tasks answered, cached (ms)": spread(found.slice(1).map(({ answered }) => answered)),
    };
  }
} finally {
  await server.close();
}
console.log(JSON.stringify(figures));

/**
 * A first visit and `visits` more of the same browser, whose caches then have everything, that of compiled WebAssembly
 * included; a new page each time. It has a profile in a folder of its own, as a visitor's has.
 */
async function visitsOf(open) {
  const profile = mkdtempSync(join(tmpdir(), "profile-"));
  const context = await launchWithProfile(profile);
  const processes = await context.browser().newBrowserCDPSession();
  const processorTime = async () => {
    const { processInfo } = await processes.send("SystemInfo.getProcessInfo");
    return 1000 * processInfo.reduce((all, { cpuTime }) => all + cpuTime, 0);
  };
  const found = [];
  for (let visit = 0; visit <= Number(visits); ++visit) {
    const page = await newPage(context);
    let atFirst = 0;
    await page.exposeFunction("atFirstAnswer", async () => (atFirst = await processorTime()));
    const before = await processorTime();
    const times = await page.evaluate(open, [tasks, TEXT]);
    found.push({ ...times, processor: (await processorTime()) - before, firstProcessor: atFirst - before });
    if (visit === 0) await page.waitForTimeout(3000); // a visitor stays, and the browser keeps what it compiled
    await page.close();
  }
  await context.close();
  rmSync(profile, { recursive: true, force: true });
  return found;
}

async function newPage(context) {
  const page = await context.newPage();
  await page.goto(`${server.address}blank.html`);
  await page.evaluate(() => {
    // Each page has the memories that its engine makes, to see how large they are.
    const { Memory } = WebAssembly;
    globalThis.memories = [];
    WebAssembly.Memory = function (...words) {
      memories.push(new Memory(...words));
      return memories.at(-1);
    };
    WebAssembly.Memory.prototype = Memory.prototype;
  });
  return page;
}

function spread(values) {
  const sorted = [...values].sort((left, right) => left - right);
  return { least: sorted[0], median: sorted[sorted.length >> 1], most: sorted.at(-1) };
}

/** Runs of one task and of another one each time, in turn, by the time of this process's processor. */
async function switchTasks(count, rounds) {
  const bundle = join(folder, "bundle");
  const file = new Uint8Array(readFileSync(join(bundle, "tasks", "sst2.bias")));
  const session = await BiasSession.open(bundle, { threads: 1, tasks: [] });
  const names = Array.from({ length: count }, (_, index) => `copy-${index}`);
  const loading = process.cpuUsage();
  for (const name of names) await session.loadTask(file, { name });
  const loaded = milliseconds(loading);
  const inputs = session.encode(TEXT);
  const times = { same: [], other: [] };
  for (let round = -10; round < rounds; ++round) {
    // The first run of each pair switches back, and is not counted.
    for (const [kind, name] of [["", names[0]], ["same", names[0]], ["", names[0]], ["other", names[1 + (Math.abs(round) % (count - 1))]]]) {
      const began = process.cpuUsage();
      await session.run(name, inputs);
      if (kind && round >= 0) times[kind].push(milliseconds(began));
    }
  }
  // The choice of a row by itself: what a switch adds to a run, and too little to be seen in one.
  const store = new TaskStore(session.manifest.layout, "table", undefined);
  for (const name of names) store.add(decodeRow(file), name, ["negative", "positive"]);
  const choosing = [];
  for (let round = 0; round < 100; ++round) {
    const began = process.cpuUsage();
    for (const name of names) store.feeds([store.get(name)]);
    choosing.push((1000 * milliseconds(began)) / count);
  }
  await session.close();
  return {
    "loading a row (ms)": loaded / count,
    "same task, a run (ms)": spread(times.same),
    "another task, a run (ms)": spread(times.other),
    "choosing a row the first time (us)": choosing[0],
    "choosing a row (us)": choosing.reduce((all, each) => all + each, 0) / choosing.length,
  };
}

function milliseconds(since) {
  const { user, system } = process.cpuUsage(since);
  return (user + system) / 1000;
}

// What runs in the page.

async function openBundle([names, text]) {
  const began = performance.now();
  const { BiasSession } = await import("bitfit-runtime");
  let bytes = 0;
  const session = await BiasSession.open("bundle/", { threads: 1, tasks: names, onProgress: ({ loaded }) => (bytes = loaded) });
  await session.predict(text, names[0]);
  const sinceStart = performance.now();
  await atFirstAnswer();
  const pairs = { mrpc: text, stsb: text, rte: text };
  await session.predict(names.map((name) => (name in pairs ? { text, text_pair: pairs[name] } : text)), names);
  const answered = performance.now() - began;
  const memory = memories.reduce((all, { buffer }) => all + buffer.byteLength, 0);
  return { first: sinceStart - began, sinceStart, answered, bytes, memory };
}

/** As transformers.js does it: a model for each task, each in a session of its own, files from Cache Storage. */
async function openModels([names]) {
  const began = performance.now();
  const ort = await import("onnxruntime-web/wasm");
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "fatal";
  const cache = await caches.open("models");
  const ids = BigInt64Array.from([101, 1037, 4010, 1010, 6057, 2143, 2008, 1045, 2052, 24986, 2156, 2153, 1012, 102], BigInt);
  const dims = [1, ids.length];
  let bytes = 0;
  let first = 0;
  let sinceStart = 0;
  const read = async (path) => {
    const address = new URL(path, location.href).href;
    let kept = await cache.match(address);
    if (!kept) {
      await cache.put(address, await fetch(address));
      kept = await cache.match(address);
    }
    const data = new Uint8Array(await kept.arrayBuffer());
    bytes += data.length;
    return data;
  };
  for (const [index] of names.entries()) {
    const [model, data] = await Promise.all([read(`models/${index}/model.onnx`), read(`models/${index}/model.onnx.data`)]);
    const externalData = [{ path: "model.onnx.data", data }];
    const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"], externalData });
    const feeds = {};
    for (const name of session.inputNames) {
      const data = name === "attention_mask" ? ids.map(() => 1n) : name === "input_ids" ? ids : ids.map(() => 0n);
      feeds[name] = new ort.Tensor("int64", data, dims);
    }
    await session.run(feeds);
    if (first) continue;
    sinceStart = performance.now();
    first = sinceStart - began;
    await atFirstAnswer();
  }
  const memory = memories.reduce((all, { buffer }) => all + buffer.byteLength, 0);
  return { first, sinceStart, answered: performance.now() - began, bytes, memory };
}
