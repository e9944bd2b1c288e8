// Puts the demo's files into one folder, as any static host can serve it.
//
//   node tools/make_demo.mjs BUNDLE FOLDER

import { cpSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const ORT = ["ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"];

const [bundle, folder] = process.argv.slice(2);
if (!folder) {
  console.error("usage: node tools/make_demo.mjs BUNDLE FOLDER");
  process.exit(2);
}
const out = resolve(folder);
rmSync(out, { recursive: true, force: true });
mkdirSync(join(out, "ort"), { recursive: true });
cpSync(join(root, "demo"), out, { recursive: true });
cpSync(join(root, "dist"), join(out, "runtime"), { recursive: true, filter: (path) => !/\.(map|ts)$/.test(path) });
for (const name of ORT) cpSync(join(root, "node_modules/onnxruntime-web/dist", name), join(out, "ort", name));
cpSync(resolve(bundle), join(out, "bundle"), { recursive: true });
console.log(out);
