// Keeps the page itself for openings without a network: what the network has is used, and else what was kept. The bundle is
// not kept here: the runtime keeps its files by their digests.

const KEPT = "bitfit-demo";

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  const { origin, pathname } = new URL(request.url);
  if (request.method !== "GET" || origin !== self.location.origin || pathname.includes("/bundle/")) return;
  event.respondWith(answer(request, event));
});

async function answer(request, event) {
  const cache = await caches.open(KEPT);
  try {
    const response = await fetch(request);
    if (response.ok) event.waitUntil(cache.put(request, response.clone()));
    return response;
  } catch (error) {
    const kept = await cache.match(request, { ignoreSearch: true });
    if (kept) return kept;
    throw error;
  }
}
