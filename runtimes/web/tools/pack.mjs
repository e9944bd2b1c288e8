#!/usr/bin/env node
// Makes a copy of a bundle whose large files, but for rows, are in parts, for hosts that limit a file's size. The runtime joins them, and
// compares the whole with the manifest's digest.
//
//   bitfit-pack BUNDLE FOLDER [MEGABYTES]     parts of at most 20 MB, or as many megabytes

import { closeSync, copyFileSync, existsSync, mkdirSync, openSync, readFileSync, readSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

const [bundle, folder, megabytes = "20"] = process.argv.slice(2);
const most = Math.floor(Number(megabytes) * 1e6);
if (!folder || !(most >= 1)) fail("usage: bitfit-pack BUNDLE FOLDER [MEGABYTES]");
if (!existsSync(join(bundle, "manifest.json"))) fail(`error: ${bundle} has no manifest.json\nhint: expected a folder that bitfit-export wrote`);
if (existsSync(folder)) fail(`error: ${folder} exists\nhint: remove it, or name another folder`);

const manifest = JSON.parse(readFileSync(join(bundle, "manifest.json"), "utf-8"));
const rows = Object.values(manifest.tasks).map(({ file }) => file);
const parts = {};
try {
  for (const path of [...Object.keys(manifest.files), ...rows]) {
    const [from, to] = [join(bundle, path), join(folder, path)];
    mkdirSync(dirname(to), { recursive: true });
    if (statSync(from).size <= most || rows.includes(path)) copyFileSync(from, to);
    else {
      cut(from, to);
      parts[path] = most;
    }
  }
  // Last: a folder without a manifest is no bundle.
  writeFileSync(join(folder, "manifest.json"), `${JSON.stringify({ ...manifest, parts }, null, 2)}\n`);
} catch (error) {
  rmSync(folder, { recursive: true, force: true });
  fail(`error: ${error.message}`);
}
const count = Object.keys(parts).length;
console.log(`${folder}: ${count ? `${count} ${count === 1 ? "file" : "files"} in parts of ${most} bytes` : "no file is in parts"}`);

function cut(from, to) {
  const source = openSync(from, "r");
  const buffer = Buffer.alloc(most);
  for (let number = 0; ; ++number) {
    const size = readSync(source, buffer, 0, most, number * most);
    if (size === 0) break;
    writeFileSync(`${to}.part-${number}`, buffer.subarray(0, size));
  }
  closeSync(source);
}

function fail(message) {
  console.error(message);
  process.exit(2);
}
