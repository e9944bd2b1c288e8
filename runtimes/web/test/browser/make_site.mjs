// Makes the folder that the browser's tests serve: the demo with a bundle, the same bundle in parts, an empty page.
//
//   node test/browser/make_site.mjs BUNDLE FOLDER [PORTABLE]
//
// PORTABLE is a bundle for WebGPU, which comes with the build of onnxruntime-web for it.

import { execFileSync } from "node:child_process";
import { cpSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const [bundle, folder, portable] = process.argv.slice(2);
const tools = fileURLToPath(new URL("../../tools/", import.meta.url));
const run = (...words) => execFileSync(process.execPath, words, { stdio: "ignore" });
run(join(tools, "make_demo.mjs"), bundle, folder);
run(join(tools, "pack.mjs"), bundle, join(folder, "packed"), "1.5");
const [map] = readFileSync(join(folder, "index.html"), "utf-8").match(/<script type="importmap">.*?<\/script>/s);
writeFileSync(join(folder, "blank.html"), `<!doctype html><title>blank</title>${map}`);
if (portable) {
  cpSync(portable, join(folder, "portable"), { recursive: true });
  const dist = join(tools, "../node_modules/onnxruntime-web/dist");
  for (const name of ["ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"]) cpSync(join(dist, name), join(folder, "ort", name));
}
