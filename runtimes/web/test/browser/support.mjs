// A Chromium, and a server of the demo's folder that can fail in the ways that a network does.

import { statSync } from "node:fs";
import { once } from "node:events";
import { chromium } from "playwright-core";
import { serve } from "../../tools/serve.mjs";

export const DEMO = process.env.BITFIT_WEB_DEMO;
export const CHROMIUM = process.env.BITFIT_CHROMIUM;
export const SKIP = DEMO && CHROMIUM ? false : "BITFIT_WEB_DEMO and BITFIT_CHROMIUM name no folder and no browser";

/** Starts a browser. It is root in a container that runs the tests, where Chromium's sandbox cannot be. */
export function launch(...flags) {
  return chromium.launch({ executablePath: CHROMIUM, args: ["--no-sandbox", ...flags] });
}

/** Starts a browser whose caches are in a folder, as a visitor's are. */
export function launchWithProfile(folder) {
  return chromium.launchPersistentContext(folder, { executablePath: CHROMIUM, args: ["--no-sandbox"] });
}

/**
 * Serves the demo's folder. `faults` has, by the end of a path, what happens to it: `cut` ends the connection in the middle,
 * `short` sends fewer bytes as if they were all, `changed` flips a bit, `stall` never ends, `gone` is a 404. `requests` are
 * the paths that were asked for.
 */
export async function startServer({ folder = DEMO, isolated = true } = {}) {
  const faults = new Map();
  const requests = [];
  const before = (request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    requests.push(pathname);
    const fault = [...faults].find(([end]) => pathname.endsWith(end))?.[1];
    if (!fault) return false;
    if (fault === "gone") {
      response.writeHead(404).end();
      return true;
    }
    const { size } = statSync(`${folder}${pathname}`);
    const half = Buffer.alloc(size >> 1);
    if (fault === "short") response.writeHead(200, { "Content-Length": half.length }).end(half);
    else if (fault === "changed") response.writeHead(200, { "Content-Length": size }).end(Buffer.alloc(size));
    else {
      response.writeHead(200, { "Content-Length": size });
      response.write(half, () => fault === "cut" && response.destroy());
    }
    return true;
  };
  const server = serve(folder, { isolated, before }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  const close = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  };
  return { address: `http://localhost:${port}/`, faults, requests, close };
}
