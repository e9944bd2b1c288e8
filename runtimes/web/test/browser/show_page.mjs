// Prints what a page shows, as JSON: the text of an element, once it is no longer "…", and the title.
//
//   node test/browser/show_page.mjs FOLDER SELECTOR

import { launch, startServer } from "./support.mjs";

const [folder, selector] = process.argv.slice(2);
const server = await startServer({ folder });
const browser = await launch();
const page = await browser.newPage();
page.on("pageerror", (error) => console.error(String(error)));
await page.goto(server.address);
await page.waitForFunction((each) => document.querySelector(each).textContent !== "…", selector, { timeout: 120_000 });
console.log(JSON.stringify({ text: await page.textContent(selector), title: await page.title() }));
await browser.close();
await server.close();
