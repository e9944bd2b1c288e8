// Serves a folder on this machine with the headers that the page wants.
//
//   node tools/serve.mjs FOLDER [PORT]
//
// Port 0 is any free one. The first line on stdout is the address.

import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { extname, join, normalize, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { constants, createBrotliCompress, createGzip } from "node:zlib";

const TYPES = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".mjs": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".wasm": "application/wasm",
};
/** Weights and rows hardly become smaller. */
const COMPRESSED = new Set([".html", ".css", ".js", ".mjs", ".json", ".wasm", ".onnx"]);

/** Returns a server of a folder. `before` may answer a request in its place: it then returns true. */
export function serve(folder, { isolated = true, before = () => false } = {}) {
  const root = resolve(folder);
  return createServer((request, response) => {
    if (before(request, response)) return;
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const file = join(root, normalize(path.endsWith("/") ? `${path}index.html` : path));
    const found = file.startsWith(root) ? statSync(file, { throwIfNoEntry: false }) : undefined;
    const headers = { "Cache-Control": "no-cache", "Accept-Ranges": "bytes", "X-Content-Type-Options": "nosniff" };
    if (isolated) {
      // With these a page may share memory with its workers, and WebAssembly may have threads.
      headers["Cross-Origin-Opener-Policy"] = "same-origin";
      headers["Cross-Origin-Embedder-Policy"] = "require-corp";
    }
    if (!found?.isFile()) {
      response.writeHead(404, headers).end("not found");
      return;
    }
    const type = extname(file);
    headers["Content-Type"] = TYPES[type] ?? "application/octet-stream";
    headers.ETag = `"${found.size}-${Math.trunc(found.mtimeMs)}"`;
    if (request.headers["if-none-match"] === headers.ETag) {
      response.writeHead(304, headers).end();
      return;
    }
    send(request, response, file, found.size, headers, COMPRESSED.has(type));
  });
}

function send(request, response, file, size, headers, compress) {
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  if (range) {
    const [start, end] = [Number(range[1]), Math.min(size - 1, Number(range[2] || size - 1))];
    response.writeHead(206, { ...headers, "Content-Range": `bytes ${start}-${end}/${size}`, "Content-Length": end - start + 1 });
    createReadStream(file, { start, end }).pipe(response);
    return;
  }
  const accepted = String(request.headers["accept-encoding"] ?? "");
  const encoding = !compress ? undefined : ["br", "gzip"].find((each) => accepted.includes(each));
  if (!encoding) {
    response.writeHead(200, { ...headers, "Content-Length": size });
    createReadStream(file).pipe(response);
    return;
  }
  response.writeHead(200, { ...headers, "Content-Encoding": encoding, Vary: "Accept-Encoding" });
  const quick = { params: { [constants.BROTLI_PARAM_QUALITY]: 4 } };
  createReadStream(file).pipe(encoding === "br" ? createBrotliCompress(quick) : createGzip()).pipe(response);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [folder, port = "8010"] = process.argv.slice(2);
  if (!folder) {
    console.error("usage: node tools/serve.mjs FOLDER [PORT]");
    process.exit(2);
  }
  const server = serve(folder).listen(Number(port), "127.0.0.1", () => console.log(`http://localhost:${server.address().port}/`));
}
