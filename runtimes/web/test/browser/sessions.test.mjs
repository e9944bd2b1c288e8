// Sessions in a real browser: what the network, the cache and the worker can do to them.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, it } from "node:test";
import { launch, SKIP, startServer } from "./support.mjs";

describe("in a browser", { skip: SKIP }, () => {
  let browser;
  let server;
  let context;
  let page;

  before(async () => {
    [browser, server] = await Promise.all([launch(), startServer()]);
  });
  after(async () => {
    await browser?.close();
    await server?.close();
  });
  beforeEach(async () => {
    server.faults.clear();
    server.requests.length = 0;
    context = await browser.newContext({ serviceWorkers: "block" });
    page = await context.newPage();
    await openBlank(page, server);
  });
  afterEach(() => context.close());

  it("a session on the page and one in a worker give the same answers, and the page is isolated", async () => {
    const found = await page.evaluate(async () => {
      const { BiasSession, WorkerSession } = await import("bitfit-runtime");
      const [here, there] = await Promise.all([BiasSession.open("bundle/"), WorkerSession.open("bundle/")]);
      const texts = ["a film", { text: "two", text_pair: "texts" }, "Ada lives", "b"];
      const tasks = ["sentiment", "topics", "tags", "score"];
      const answers = await Promise.all([here.predict(texts, tasks), there.predict(texts, tasks)]);
      const logits = await there.run("score", await there.encode("a"));
      const labels = [here.labels("topics"), there.labels("topics")];
      await Promise.all([here.close(), there.close()]);
      return { answers, labels, tasks: here.tasks, logits: [...logits.data], crossOriginIsolated };
    });
    assert.deepEqual(found.answers[0], found.answers[1]);
    assert.equal(found.answers[0][0].label, "positive");
    assert.deepEqual(found.answers[0][2].map(({ word }) => word), ["Ada", "lives"]);
    assert.deepEqual(found.labels[0], found.labels[1]);
    assert.deepEqual(found.logits, [0.75]);
    assert.equal(found.crossOriginIsolated, true);
  });

  it("opens in a page that is not isolated", async () => {
    const plain = await startServer({ isolated: false });
    await openBlank(page, plain);
    const found = await page.evaluate(async () => {
      const { WorkerSession } = await import("bitfit-runtime");
      const session = await WorkerSession.open("bundle/");
      return { answer: await session.predict("a", "score"), crossOriginIsolated };
    });
    assert.deepEqual(found, { answer: [{ score: 0.75 }], crossOriginIsolated: false });
    await plain.close();
  });

  it("opens from the cache without a network, and downloads nothing twice", async () => {
    const opened = await open(page);
    assert.equal(opened.cached, 0);
    const files = server.requests.filter((path) => path.includes("/bundle/"));
    server.requests.length = 0;
    const again = await open(page);
    assert.deepEqual(server.requests.filter((path) => path.includes("/bundle/")), ["/bundle/manifest.json"]);
    assert.equal(again.cached, again.loaded);
    assert.equal(files.length, 8); // manifest, model, weights, tokenizer and four rows
    await context.setOffline(true);
    const offline = await open(page);
    assert.deepEqual(offline.answer, [{ score: 0.75 }]);
    const refused = await page.evaluate(async () => {
      const { BiasSession, clearCache } = await import("bitfit-runtime");
      await clearCache();
      return BiasSession.open("bundle/").catch(({ name, problem, hint }) => ({ name, problem, hint }));
    });
    assert.equal(refused.name, "BundleError");
    assert.match(refused.problem, /manifest.json cannot be read/);
    assert.match(refused.hint, /connection/);
    await context.setOffline(false);
    assert.equal((await open(page)).cached, 0);
  });

  it("downloads a file anew that is damaged in the cache", async () => {
    await open(page);
    await page.evaluate(async () => {
      const cache = await caches.open("bitfit-runtime");
      for (const request of await cache.keys()) {
        const kept = await (await cache.match(request)).arrayBuffer();
        if (kept.byteLength < 3e6) continue;
        new Uint8Array(kept)[1000] ^= 1;
        await cache.put(request, new Response(kept));
      }
    });
    server.requests.length = 0;
    const found = await open(page);
    assert.deepEqual(found.answer, [{ score: 0.75 }]);
    assert.ok(server.requests.some((path) => path.endsWith("model.onnx.data")));
  });

  for (const [fault, problem] of [
    ["cut", /model.onnx.data cannot be read|has \d+ bytes, expected \d+/],
    ["short", /model.onnx.data has \d+ bytes, expected \d+/],
    ["changed", /model.onnx.data has sha256 \w+, expected/],
    ["gone", /model.onnx.data cannot be read: the server answers 404/],
  ]) {
    it(`a download that is ${fault} is refused, and nothing of it is kept`, async () => {
      server.faults.set("model.onnx.data", fault);
      const refused = await open(page);
      assert.equal(refused.name, "BundleError", JSON.stringify(refused));
      assert.match(refused.problem, problem);
      server.faults.clear();
      assert.deepEqual((await open(page)).answer, [{ score: 0.75 }]);
    });
  }

  it("a download is cancelled by an AbortSignal, in a worker too", async () => {
    server.faults.set("model.onnx.data", "stall");
    for (const kind of ["BiasSession", "WorkerSession"]) {
      const name = await page.evaluate(async (which) => {
        const runtime = await import("bitfit-runtime");
        const controller = new AbortController();
        const opening = runtime[which].open("bundle/", {
          signal: controller.signal,
          onProgress: ({ loaded }) => loaded > 1e6 && controller.abort(),
        });
        return opening.then(() => "opened", (error) => error.name);
      }, kind);
      assert.equal(name, "AbortError");
    }
    await noWorker(page);
  });

  it("the page never stalls while a worker runs", async () => {
    const { longest, ran } = await page.evaluate(async () => {
      const { WorkerSession } = await import("bitfit-runtime");
      const session = await WorkerSession.open("bundle/");
      const texts = Array.from({ length: 600 }, (_, index) => `text ${index} ${"word ".repeat(40)}`);
      let turns = 0;
      let answered = false;
      const answering = session.predict(texts, "score").finally(() => (answered = true));
      while (!answered) {
        await new Promise((resolve) => setTimeout(resolve, 0));
        turns += 1;
      }
      const found = await answering;
      await session.close();
      return { longest: turns, ran: found.length };
    });
    assert.equal(ran, 600);
    assert.ok(longest >= 10, `the page had ${longest} turns`);
  });

  it("a call in a worker is ended by an AbortSignal, and errors keep their class", async () => {
    const found = await page.evaluate(async () => {
      const { InputError, RowError, WorkerSession } = await import("bitfit-runtime");
      const session = await WorkerSession.open("bundle/");
      const controller = new AbortController();
      const texts = Array.from({ length: 400 }, (_, index) => `text ${index}`);
      const long = session.predict(texts, "score", { signal: controller.signal, batchSize: 1 }).catch(({ name }) => name);
      setTimeout(() => controller.abort(), 5);
      const aborted = await long;
      const input = await session.predict(["a", 5], "score").catch((error) => error instanceof InputError && error.item);
      const row = await session.loadTask(new Uint8Array(10)).catch((error) => error instanceof RowError && error.fault);
      const tasks = session.tasks;
      await session.close();
      const closed = await session.predict("a", "score").catch(({ problem }) => problem);
      return { aborted, input, row, tasks, closed };
    });
    assert.equal(found.aborted, "AbortError");
    assert.equal(found.input, 1);
    assert.equal(found.row, "TRUNCATED_HEADER");
    assert.equal(found.tasks.length, 4);
    assert.match(found.closed, /the session is closed/);
    await noWorker(page);
  });

  it("closing a session gives its memory back to the next", async () => {
    const sizes = await page.evaluate(async () => {
      const memories = [];
      const Memory = WebAssembly.Memory;
      WebAssembly.Memory = function (...words) {
        memories.push(new Memory(...words));
        return memories.at(-1);
      };
      WebAssembly.Memory.prototype = Memory.prototype;
      const { BiasSession } = await import("bitfit-runtime");
      const found = [];
      for (let turn = 0; turn < 6; ++turn) {
        const session = await BiasSession.open("bundle/");
        await session.predict("a film", "score");
        await session.close();
        found.push(memories.reduce((all, { buffer }) => all + buffer.byteLength, 0));
      }
      return found;
    });
    assert.ok(sizes[0] > 0);
    assert.equal(sizes.at(-1), sizes[1], `WebAssembly had ${sizes} bytes`);
  });

  it("a browser without SIMD is told so", async () => {
    const old = await launch("--js-flags=--no-enable-sse4-1");
    const oldPage = await old.newPage();
    await openBlank(oldPage, server);
    const refused = await open(oldPage);
    await old.close();
    assert.equal(refused.name, "UsageError", JSON.stringify(refused));
    assert.match(refused.problem, /WebAssembly lacks SIMD/);
    assert.match(refused.hint, /SSE4.1/);
  });

  it("a portable bundle runs on WebGPU, with the same answers", async () => {
    // The processor stands in for the graphics processor.
    const flags = ["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan", "--use-vulkan=swiftshader"];
    const own = await launch(...flags);
    const gpuPage = await own.newPage();
    await openBlank(gpuPage, server);
    const found = await gpuPage.evaluate(async () => {
      if (!(await navigator.gpu?.requestAdapter())) return undefined;
      const { BiasSession, WorkerSession } = await import("bitfit-runtime");
      const refused = await BiasSession.open("portable/", { engine: "webgpu" }).catch(({ problem }) => problem);
      const session = await WorkerSession.open("portable/", { engine: "webgpu", ort: "ort/ort.webgpu.bundle.min.mjs" });
      const answers = await session.predict(["a film", "b"], ["sentiment", "score"]);
      await session.close();
      return { answers, refused };
    });
    await own.close();
    if (!found) return; // this Chromium has no adapter
    assert.equal(found.answers[0].label, "positive");
    assert.ok(Math.abs(found.answers[1].score - 0.75) < 1e-5);
    assert.match(found.refused, /the engine webgpu has no module/);
  });

  it("a file in parts is joined", async () => {
    // The server's own bundle in parts, as tools/pack.mjs makes them, is beside the whole one.
    const found = await open(page, "packed/");
    assert.deepEqual(found.answer, [{ score: 0.75 }]);
    assert.ok(server.requests.some((path) => path.endsWith("model.onnx.data.part-1")));
    assert.ok(!server.requests.some((path) => path.endsWith("model.onnx.data")));
  });
});

/** Waits for the end of the page's workers, of which the browser tells later. */
async function noWorker(page) {
  for (let turn = 0; turn < 100 && page.workers().length; ++turn) await new Promise((resolve) => setTimeout(resolve, 50));
  assert.equal(page.workers().length, 0);
}

/** An empty page with the demo's import map. */
async function openBlank(page, server) {
  await page.goto(`${server.address}blank.html`);
}

/** Opens the bundle on the page and asks it something; what is refused is returned. */
function open(page, bundle = "bundle/") {
  return page.evaluate(async (address) => {
    const { BiasSession } = await import("bitfit-runtime");
    let last = {};
    try {
      const session = await BiasSession.open(address, { onProgress: (progress) => (last = progress) });
      const answer = await session.predict("a", "score");
      await session.close();
      return { ...last, answer };
    } catch ({ name, problem, hint, message }) {
      return { name, problem, hint, message };
    }
  }, bundle);
}
