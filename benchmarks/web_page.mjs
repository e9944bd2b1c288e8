// What benchmarks/web_runtime.py measures in Chromium: prints figures as JSON.
//
//   node benchmarks/web_page.mjs SITE BUNDLE_TASKS VISITS ROUNDS
//
// SITE is a folder that web_runtime.py makes: the demo, `blank.html`, `internals.js` and `models/`, one model per task.

import { launch, startServer } from "../runtimes/web/test/browser/support.mjs";

const [folder, names, visits, rounds] = process.argv.slice(2);
const tasks = names.split(",");
const TEXT = "A warm, funny film that I would gladly see again.";
const server = await startServer({ folder });
const browser = await launch();
const figures = {};

try {
  const ours = await visitsOf(openBundle);
  const theirs = await visitsOf(openModels);
  for (const [name, found] of Object.entries({ "one bundle": ours, "one model per task": theirs })) {
    figures[name] = {
      "download (bytes)": found[0].bytes,
      "WebAssembly memory (bytes)": found.at(-1).memory,
      "all tasks answered, first visit (ms)": found[0].answered,
      "first answer, cached (ms)": spread(found.slice(1).map(({ first }) => first)),
      "first answer since the page began, cached (ms)": spread(found.slice(1).map(({ sinceStart }) => sinceStart)),
      "all tasks answered, cached (ms)": spread(found.slice(1).map(({ answered }) => answered)),
    };
  }
  const page = await newPage(await browser.newContext());
  for (const count of [5, 1000]) figures[`${count} tasks`] = await page.evaluate(switchTasks, [count, Number(rounds), TEXT]);
} finally {
  await browser.close();
  await server.close();
}
console.log(JSON.stringify(figures));

/** A first visit and `visits` more of the same browser, whose cache then has everything; a new page each time. */
async function visitsOf(open) {
  const context = await browser.newContext();
  const found = [];
  for (let visit = 0; visit <= Number(visits); ++visit) {
    const page = await newPage(context);
    found.push(await page.evaluate(open, [tasks, TEXT]));
    await page.close();
  }
  await context.close();
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

// What runs in the page.

async function openBundle([names, text]) {
  const began = performance.now();
  const { BiasSession } = await import("bitfit-runtime");
  let bytes = 0;
  const session = await BiasSession.open("bundle/", { threads: 1, tasks: names, onProgress: ({ loaded }) => (bytes = loaded) });
  await session.predict(text, names[0]);
  const sinceStart = performance.now();
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
    sinceStart ||= performance.now();
    first ||= performance.now() - began;
  }
  const memory = memories.reduce((all, { buffer }) => all + buffer.byteLength, 0);
  return { first, sinceStart, answered: performance.now() - began, bytes, memory };
}

async function switchTasks([count, rounds, text]) {
  const { BiasSession } = await import("bitfit-runtime");
  const { decodeRow, TaskStore } = await import("./internals.js");
  const session = await BiasSession.open("bundle/", { threads: 1, tasks: [] });
  const file = await (await fetch("bundle/tasks/sst2.bias")).arrayBuffer();
  const names = Array.from({ length: count }, (_, index) => `copy-${index}`);
  const loading = performance.now();
  for (const name of names) await session.loadTask(file, { name });
  const loaded = performance.now() - loading;

  // Runs of one task and of another one each time, in turn: whatever else the machine does meets both.
  const inputs = session.encode(text);
  const same = [];
  const other = [];
  for (let round = 0; round < rounds; ++round) {
    for (const [times, name] of [[same, names[0]], [same, names[0]], [other, names[1 + (round % (count - 1))]], [[], names[0]]]) {
      const began = performance.now();
      await session.run(name, inputs);
      times.push(performance.now() - began);
    }
  }
  // The choice of a row by itself: what a switch adds to a run, and too little to be seen in one.
  const store = new TaskStore(session.manifest.layout, "table", undefined);
  for (const name of names) store.add(decodeRow(new Uint8Array(file)), name, ["a", "b"]);
  const choosing = [];
  for (let round = 0; round < 50; ++round) {
    const began = performance.now();
    for (const name of names) store.feeds([store.get(name)]);
    choosing.push((performance.now() - began) / count);
  }
  await session.close();
  const median = (values) => [...values].sort((left, right) => left - right)[values.length >> 1];
  return {
    "loading a row (ms)": loaded / count,
    "same task, a run (ms)": median(same),
    "another task, a run (ms)": median(other),
    "least of the same (ms)": Math.min(...same),
    "least of another (ms)": Math.min(...other),
    "choosing a row the first time (us)": 1000 * choosing[0],
    "choosing a row (us)": 1000 * median(choosing),
  };
}
