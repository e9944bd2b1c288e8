// The demo as a visitor uses it: by pointer, by keyboard, with files, on a phone, without a network.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, it } from "node:test";
import { launch, SKIP, startServer } from "./support.mjs";

const ROWS = join(process.env.BITFIT_WEB_FIXTURES ?? "", "table", "rows");
const SCREENSHOTS = process.env.BITFIT_WEB_SCREENSHOTS; // a folder for them, if anyone wants to look

describe("the demo", { skip: SKIP }, () => {
  let browser;
  let server;
  let context;
  let page;
  const faults = [];

  before(async () => {
    [browser, server] = await Promise.all([launch(), startServer()]);
    context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
    page = await context.newPage();
    page.on("pageerror", (error) => faults.push(String(error)));
    page.on("console", (message) => message.type() === "error" && faults.push(message.text()));
    await page.goto(server.address);
    await page.waitForSelector("body[data-measured]", { timeout: 120_000 });
  });
  after(async () => {
    await browser?.close();
    await server?.close();
  });

  it("answers all tasks at once, and shows what it measured", async () => {
    assert.deepEqual(await cards(), ["score", "sentiment", "tags", "topics"]);
    assert.match(await answer("sentiment"), /positive\s*0\.881/);
    assert.match(await page.innerText("#timing"), /4 tasks in/);
    for (const id of ["size", "first", "run", "switched", "memory", "threads"]) assert.match(await page.innerText(`#${id}`), /\d|not told/);
    assert.equal(await page.locator("#chart rect").count(), 24);
    assert.ok(await page.isHidden("#alert"));
    assert.deepEqual(faults, []);
  });

  it("answers anew when the text changes or an example is picked", async () => {
    await page.fill("#text", "Ada lives");
    await page.waitForFunction(() => document.querySelector("[data-task=tags] .answer").textContent.includes("Ada"));
    await page.click("#examples button >> nth=1");
    await page.waitForFunction(() => document.querySelector("[data-task=tags] .answer").textContent.includes("bridge"));
  });

  it("switches to one task and back, by pointer and by keyboard", async () => {
    await page.click("#choices label:has-text('topics')");
    await page.waitForFunction(() => /1 task in/.test(document.getElementById("timing").textContent));
    assert.equal(await page.locator(".card.idle").count(), 3);
    await page.keyboard.press("Tab"); // the focus is on the group of tasks
    await page.keyboard.press("Shift+Tab");
    await page.keyboard.press("ArrowUp");
    await page.waitForFunction(() => !document.querySelector("[data-task=tags]").classList.contains("idle"));
    assert.equal(await page.inputValue("input[name=task]:checked"), "tags");
    await page.click("#choices label:has-text('all at once')");
    await page.waitForFunction(() => /4 tasks in/.test(document.getElementById("timing").textContent));
  });

  it("everything that can be used has a name and can be reached by keyboard", async () => {
    const unnamed = await page.evaluate(() =>
      [...document.querySelectorAll("button, input, textarea, meter, progress")]
        .filter((each) => !(each.textContent.trim() || each.ariaLabel || each.labels?.[0]?.textContent.trim()))
        .map((each) => each.outerHTML),
    );
    assert.deepEqual(unnamed, []);
    const reached = new Set();
    await page.focus("#examples button");
    for (let step = 0; step < 30; ++step) {
      reached.add(await page.evaluate(() => document.activeElement?.id || document.activeElement?.textContent.trim()));
      await page.keyboard.press("Tab");
    }
    for (const name of ["text", "second", "question", "Remove", "file", "measure", "forget"]) assert.ok(reached.has(name), name);
  });

  it("takes a row that is dropped on the page, answers with it, and removes it", async () => {
    await drop("news.bias");
    await page.waitForSelector("[data-task=news] .score");
    assert.match(await answer("news"), /LABEL_1/);
    assert.match(await page.innerText("#state"), /news is added/);
    await page.click("[data-task=news] button");
    await page.waitForSelector("[data-task=news]", { state: "detached" });
    assert.deepEqual(await cards(), ["score", "sentiment", "tags", "topics"]);
  });

  it("takes a row by the button, too", async () => {
    await page.setInputFiles("#file", join(ROWS, "half.bias"));
    await page.waitForSelector("[data-task=half] .score");
    await page.click("[data-task=half] button");
  });

  for (const [name, problem] of [
    ["other_layout.bias", /made for another base model or layout/],
    ["changed_value.bias", /payload checksum differs/],
    ["cut.bias", /truncated payload/],
  ]) {
    it(`refuses ${name}, says why, and keeps its tasks`, async () => {
      await drop(name);
      await page.waitForSelector("#alert:not([hidden])");
      const text = await page.innerText("#alert");
      assert.match(text, problem);
      assert.match(text, /expected|the payload gives/);
      assert.match(text, new RegExp(`${name}.*\\nhint: `));
      assert.deepEqual(await cards(), ["score", "sentiment", "tags", "topics"]);
      await page.fill("#text", `after ${name}`);
      await page.waitForSelector("#alert", { state: "hidden" });
    });
  }

  it("opens without a network once it was there", async () => {
    // The service worker takes the page's files from the second visit on.
    await page.evaluate(() => navigator.serviceWorker.ready.then(() => undefined));
    await page.reload();
    await page.waitForSelector("body[data-measured]", { timeout: 120_000 });
    assert.match(await page.innerText("#size"), /all from this browser's cache/);
    faults.length = 0;
    await context.setOffline(true);
    await page.reload();
    await page.waitForSelector("body[data-ready]", { timeout: 120_000 });
    assert.match(await answer("sentiment"), /positive/);
    await context.setOffline(false);
  });

  for (const [name, options] of Object.entries({
    desktop_light: { viewport: { width: 1280, height: 900 }, colorScheme: "light" },
    desktop_dark: { viewport: { width: 1280, height: 900 }, colorScheme: "dark" },
    phone_light: { viewport: { width: 390, height: 844 }, colorScheme: "light" },
    phone_dark: { viewport: { width: 360, height: 740 }, colorScheme: "dark" },
  })) {
    it(`fits ${name.replace("_", ", ")}, with texts that can be read`, async () => {
      await page.setViewportSize(options.viewport);
      await page.emulateMedia({ colorScheme: options.colorScheme });
      const { wide, contrasts } = await page.evaluate(measureLooks);
      assert.ok(wide <= options.viewport.width, `the page is ${wide} wide`);
      for (const [what, contrast] of contrasts) assert.ok(contrast >= 4.5, `${what} has the contrast ${contrast.toFixed(2)}`);
      if (SCREENSHOTS) await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: true });
    });
  }

  const cards = () => page.$$eval(".card", (all) => all.map((card) => card.dataset.task));
  const answer = (task) => page.innerText(`[data-task=${task}] .answer`);

  async function drop(name) {
    const bytes = [...readFileSync(join(ROWS, name))];
    const data = await page.evaluateHandle(([own, file]) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([Uint8Array.from(own)], file));
      return transfer;
    }, [bytes, name]);
    for (const type of ["dragenter", "dragover", "drop"]) await page.dispatchEvent("main", type, { dataTransfer: data });
    assert.ok(await page.isHidden("#curtain"));
  }
});

/** How wide the page is, and the contrast of texts against what is behind them, as WCAG 2 calculates it. */
function measureLooks() {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const light = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [red, green, blue] = [...canvas.getImageData(0, 0, 1, 1).data].map((value) => {
      const share = value / 255;
      return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const ground = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if (!/^rgba\(.*, 0\)$|^transparent$/.test(color)) return color;
    }
    return "white";
  };
  const contrasts = ["h1", ".lead", "small", "textarea", "legend", "input:checked + span", ".card h3", "output", "dt", "dd", "figcaption", "button", ".quiet", ".words small"]
    .map((selector) => [selector, document.querySelector(selector)])
    .filter(([, element]) => element)
    .map(([selector, element]) => {
      const [one, other] = [light(getComputedStyle(element).color), light(ground(element))].sort((left, right) => right - left);
      return [selector, (one + 0.05) / (other + 0.05)];
    });
  return { wide: document.documentElement.scrollWidth, contrasts };
}
