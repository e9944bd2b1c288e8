// Prints what the package adds to a page, in bytes, minified and compressed: without onnxruntime-web, and without the
// tokenizer as well.

import { brotliCompressSync, gzipSync } from "node:zlib";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = dirname(dirname(fileURLToPath(import.meta.url)));

async function sizeOf(external) {
  const { outputFiles } = await build({
    absWorkingDir: root,
    entryPoints: ["src/index.ts"],
    bundle: true,
    format: "esm",
    target: "es2022",
    minify: true,
    write: false,
    external: ["onnxruntime-web", "onnxruntime-web/*", "node:*", ...external],
  });
  const [{ contents }] = outputFiles;
  return { minified: contents.length, gzip: gzipSync(contents, { level: 9 }).length, brotli: brotliCompressSync(contents).length };
}

console.log(JSON.stringify({ whole: await sizeOf([]), without_tokenizer: await sizeOf(["./text/tokenizer.js"]) }));
