// The demo page: one bundle in a worker, all of its tasks from one batch.

import { BitfitError, clearCache, WorkerSession } from "bitfit-runtime";

const started = performance.now();
const by = (id) => document.getElementById(id);
const ALL = "";
const MEASURED = 24;

/** What the packaged tasks are, in words. A task that is added shows its own labels. */
const TITLES = {
  sst2: "Is the tone warm?",
  cola: "Is it grammatical?",
  ewt: "Parts of speech",
  mrpc: "Do both say the same?",
  rte: "Does the second follow?",
  stsb: "How similar, 0 to 5?",
  squad: "What answers the question?",
};
const PAIRS = new Set(["mrpc", "rte", "stsb"]);
const SPANS = new Set(["squad"]);
const EXAMPLES = [
  ["A film", "A warm, funny film that I would gladly see again.", "I liked the film and want to watch it once more.", "How is the film?"],
  ["A bridge", "The bridge was closed in May and opened again in June.", "The bridge was open in June.", "When was the bridge closed?"],
  ["A ferry", "The ferry was cancelled because of the storm.", "Because of the storm, the ferry did not run.", "Why was the ferry cancelled?"],
  ["A mistake", "The children was garden in the playing.", "The children were playing in the garden.", "Who was playing?"],
];

let session;
let opening;
let asked = 0; // questions so far: an answer to an older one is dropped
const latencies = [];

addEventListener("error", ({ message }) => say(message));
main();

async function main() {
  showExamples();
  choose(EXAMPLES[0]);
  for (const id of ["text", "second", "question"]) by(id).addEventListener("input", soon(ask, 120));
  by("cancel").addEventListener("click", () => opening?.abort());
  by("retry").addEventListener("click", open);
  by("measure").addEventListener("click", measure);
  by("forget").addEventListener("click", async () => {
    await clearCache();
    by("state").textContent = "The model is forgotten; it is downloaded again the next time.";
  });
  by("file").addEventListener("change", async ({ target }) => {
    await addRows([...target.files]);
    target.value = "";
  });
  watchDrops();
  if ("serviceWorker" in navigator) navigator.serviceWorker.register("sw.js").catch(() => undefined);
  await open();
}

async function open() {
  const began = session || opening ? performance.now() : started;
  opening = new AbortController();
  say();
  by("loading").classList.remove("done");
  by("retry").hidden = true;
  by("cancel").hidden = false;
  by("state").textContent = "Loading the model…";
  let seen = { loaded: 0, cached: 0 };
  try {
    session = await WorkerSession.open("bundle/", {
      signal: opening.signal,
      onProgress: (progress) => {
        seen = progress;
        by("progress").value = progress.loaded / Math.max(1, progress.total);
        by("state").textContent = `${megabytes(progress.loaded)} of ${megabytes(progress.total)}`;
      },
    });
  } catch (error) {
    by("cancel").hidden = true;
    by("retry").hidden = false;
    by("state").textContent = error.name === "AbortError" ? "Cancelled." : "The model cannot be opened.";
    if (error.name !== "AbortError") say(error);
    return;
  }
  by("loading").classList.add("done");
  by("switch").disabled = by("measure").disabled = false;
  const network = seen.loaded - seen.cached;
  by("size").replaceChildren(megabytes(seen.loaded), small(network ? `${megabytes(network)} from the network` : "all from this browser's cache"));
  by("threads").textContent = crossOriginIsolated ? String(Math.min(4, Math.ceil((navigator.hardwareConcurrency || 1) / 2))) : "1";
  showTasks();
  await ask();
  by("first").replaceChildren(milliseconds(performance.now() - began), small("since the page began"));
  by("state").textContent = `${session.tasks.length} tasks are ready.`;
  document.body.dataset.ready = "true";
  await measure();
}

/** The texts of a task, as it wants them. */
function textFor(task) {
  const [text, second, question] = ["text", "second", "question"].map((id) => by(id).value);
  const kind = kindOf(task);
  if (kind === "pair") return { text, text_pair: second };
  return kind === "span" ? { question: question || "What is it?", context: text } : text;
}

/** Rows that are added under other names are asked as their own kind of task, which their labels show. */
function kindOf(task) {
  const base = [...PAIRS, ...SPANS].find((name) => task === name || task.startsWith(`${name}-`));
  return PAIRS.has(base) ? "pair" : SPANS.has(base) ? "span" : "text";
}

async function ask() {
  if (!session?.tasks.length) return;
  const number = ++asked;
  const only = chosen();
  const tasks = only === ALL ? session.tasks : [only];
  const began = performance.now();
  try {
    const found = await session.predict(tasks.map(textFor), tasks, { truncate: true });
    if (number !== asked) return;
    const time = performance.now() - began;
    by("timing").textContent = `${tasks.length} ${tasks.length === 1 ? "task" : "tasks"} in ${milliseconds(time)}`;
    say();
    for (const card of by("answers").children) card.classList.toggle("idle", !tasks.includes(card.dataset.task));
    tasks.forEach((task, index) => show(task, found[index]));
  } catch (error) {
    say(error);
  }
}

function show(task, found) {
  const card = [...by("answers").children].find((each) => each.dataset.task === task);
  const answer = card?.querySelector(".answer");
  if (!answer) return;
  if (Array.isArray(found)) {
    const words = make("ul", { className: "words" });
    for (const { word, label } of found) words.append(make("li", {}, word, make("small", {}, label)));
    answer.replaceChildren(words);
  } else {
    const [name, most] = "answer" in found ? [`“${found.answer}”`, 1] : "label" in found ? [found.label, 1] : ["score", 5];
    const meter = make("meter", { min: 0, max: most, value: Math.min(most, Math.max(0, found.score)) });
    meter.setAttribute("aria-label", `score of ${task}`);
    answer.replaceChildren(make("div", { className: "score" }, make("strong", {}, name), meter, make("output", {}, found.score.toFixed(most === 1 ? 3 : 2))));
  }
}

function showTasks() {
  by("answers").replaceChildren(...session.tasks.map(cardOf));
  const before = chosen();
  by("choices").replaceChildren(choice(ALL, "all at once"), ...session.tasks.map((task) => choice(task, task)));
  const kept = [...by("choices").querySelectorAll("input")].find((input) => input.value === before);
  (kept ?? by("choices").querySelector("input")).checked = true;
}

function cardOf(task) {
  const remove = make("button", { type: "button", className: "quiet" }, "Remove");
  remove.setAttribute("aria-label", `Remove ${task}`);
  remove.addEventListener("click", async () => {
    await session.unloadTask(task);
    showTasks();
    await ask();
  });
  const labels = session.labels(task);
  const about = TITLES[task] ?? (labels.length ? labels.slice(0, 4).join(", ") : "a score");
  const card = make("article", { className: "card" }, make("h3", {}, task, small(about)), remove, make("div", { className: "answer" }));
  card.dataset.task = task;
  return card;
}

function choice(value, label) {
  const input = make("input", { type: "radio", name: "task", value });
  input.addEventListener("change", ask);
  return make("label", {}, input, make("span", {}, label));
}

function chosen() {
  return document.querySelector("input[name=task]:checked")?.value ?? ALL;
}

async function addRows(files) {
  for (const file of files) {
    try {
      const name = await session.loadTask(file);
      showTasks();
      await ask();
      by("state").textContent = `${name} is added.`;
    } catch (error) {
      say(error);
    }
  }
}

/** Times runs of one text: with the same task each time, and with another one each time. */
async function measure() {
  const tasks = session.tasks.filter((task) => kindOf(task) === "text");
  if (!tasks.length) return;
  by("measure").disabled = true;
  const text = by("text").value || "a text";
  latencies.length = 0;
  const [first, ...others] = tasks;
  let before = first;
  await session.predict(text, first, { truncate: true });
  // Both kinds in turn, so that whatever else the machine does meets both.
  for (let run = 0; run < MEASURED; ++run) {
    const task = run % 4 === 2 && others.length ? others[(run >> 2) % others.length] : first;
    const began = performance.now();
    await session.predict(text, task, { truncate: true });
    latencies.push({ time: performance.now() - began, isSwitch: task !== before });
    before = task;
    drawChart();
  }
  const times = (wanted) => latencies.filter(({ isSwitch }) => isSwitch === wanted).map(({ time }) => time);
  by("run").replaceChildren(milliseconds(median(times(false))), small("the middle one"));
  const added = others.length ? milliseconds(Math.max(0, Math.min(...times(true)) - Math.min(...times(false)))) : "–";
  by("switched").replaceChildren(added, small("the quickest of each kind"));
  await showMemory();
  by("measure").disabled = false;
  document.body.dataset.measured = "true";
}

function drawChart() {
  const most = Math.max(...latencies.map(({ time }) => time), 1);
  const width = 600 / MEASURED;
  const svg = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  by("chart").replaceChildren(
    ...latencies.map(({ time, isSwitch }, index) => {
      const height = Math.max(2, (104 * time) / most);
      return svg("rect", { x: index * width + 3, y: 116 - height, width: width - 6, height, rx: 2, class: isSwitch ? "other" : "same" });
    }),
  );
  by("chart").setAttribute("aria-label", `Times of ${latencies.length} runs, the longest ${milliseconds(most)}`);
}

async function showMemory() {
  const heap = performance.memory?.usedJSHeapSize;
  let told = heap === undefined ? "not told" : megabytes(heap);
  let note = heap === undefined ? "by this browser" : "JavaScript of the page";
  if (crossOriginIsolated && performance.measureUserAgentSpecificMemory) {
    // The browser answers when it next collects garbage, which may be later than anyone wants to wait.
    const slow = new Promise((resolve) => setTimeout(resolve, 4000));
    const found = await Promise.race([performance.measureUserAgentSpecificMemory(), slow]).catch(() => undefined);
    if (found) [told, note] = [megabytes(found.bytes), "page and worker"];
  }
  by("memory").replaceChildren(told, small(note));
}

function watchDrops() {
  let depth = 0; // dragenter and dragleave come for every element under the pointer
  const curtain = by("curtain");
  addEventListener("dragenter", (event) => {
    event.preventDefault();
    depth += 1;
    curtain.hidden = false;
  });
  addEventListener("dragleave", () => {
    depth -= 1;
    curtain.hidden = depth > 0 ? curtain.hidden : true;
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", async (event) => {
    event.preventDefault();
    depth = 0;
    curtain.hidden = true;
    if (session) await addRows([...event.dataTransfer.files]);
  });
}

function showExamples() {
  for (const example of EXAMPLES) {
    const button = make("button", { type: "button" }, example[0]);
    button.addEventListener("click", () => {
      choose(example);
      ask();
    });
    by("examples").append(button);
  }
}

function choose([, text, second, question]) {
  Object.assign(by("text"), { value: text });
  Object.assign(by("second"), { value: second });
  Object.assign(by("question"), { value: question });
}

/** Shows an error, or takes away the one that is shown. */
function say(error) {
  const text = error === undefined ? "" : error instanceof BitfitError ? error.message : String(error?.message ?? error);
  by("alert").textContent = text;
  by("alert").hidden = !text;
}

function make(name, properties, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

const small = (text) => make("small", {}, text);
const median = (values) => [...values].sort((left, right) => left - right)[values.length >> 1] ?? 0;
const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;
const milliseconds = (time) => (time < 10 ? `${time.toFixed(2)} ms` : time < 1000 ? `${Math.round(time)} ms` : `${(time / 1000).toFixed(2)} s`);

function soon(call, delay) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(call, delay);
  };
}
