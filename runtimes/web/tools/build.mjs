// Builds dist/: the modules, minified, with their types. `--test` builds build/internals.js too, which the tests of parts
// that are not exported import.

import { execFileSync } from "node:child_process";
import { copyFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const common = {
  absWorkingDir: root,
  bundle: true,
  format: "esm",
  target: "es2022",
  external: ["onnxruntime-web", "onnxruntime-web/*", "node:*"],
  logLevel: "warning",
};

rmSync(join(root, "dist"), { recursive: true, force: true });
copyFileSync(join(root, "../../LICENSE"), join(root, "LICENSE")); // npm packs it
await build({
  ...common,
  entryPoints: ["src/index.ts", "src/worker.ts"],
  outdir: "dist",
  splitting: true,
  minify: true,
  sourcemap: true,
  sourcesContent: false,
  chunkNames: "shared-[hash]",
});
if (process.argv.includes("--test")) {
  await build({ ...common, entryPoints: ["test/internals.ts"], outfile: "build/internals.js" });
}
if (!process.argv.includes("--no-types")) {
  execFileSync(join(root, "node_modules/.bin/tsc"), ["--emitDeclarationOnly"], { cwd: root, stdio: "inherit" });
}
