// The files of a bundle: where they come from, the cache of those that were downloaded, and the comparison with the manifest.

import { hexOf, sha256 } from "./digests.js";
import { BundleError, COPY_AGAIN, firstLine, InputError, RowError } from "./errors.js";
import type { FileRecord, Manifest } from "./manifest.js";
import { quoted, shown } from "./shown.js";
import { SIGNATURE_SIZE } from "./signatures.js";
import { MANIFEST_FILE, MAX_MANIFEST_SIZE, MAX_ROW_SIZE, SIGNATURE_SUFFIX } from "./spec.js";

type Bytes = Uint8Array<ArrayBuffer>;

/** One file: its bytes, or where they are. */
export type FileSource = string | URL | Blob | ArrayBuffer | Uint8Array;
/**
 * A bundle: the address of its folder (in Node a path, too), or its files, by their paths or as a picked folder gives them.
 */
export type BundleSource = string | URL | Readonly<Record<string, Blob | ArrayBuffer | Uint8Array>> | Iterable<File>;

export interface Progress {
  /** Bytes that have come, from the network or the cache. */
  readonly loaded: number;
  /** Bytes of all files, as far as their sizes are known. */
  readonly total: number;
  /** Of `loaded`, those that came from the cache. */
  readonly cached: number;
}

export interface ReadOptions {
  readonly signal?: AbortSignal | undefined;
  /** Keep downloaded files in Cache Storage, by their digests; by default true. */
  readonly cache?: boolean | undefined;
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

interface ReadLimits {
  /** The size that the file must have. */
  readonly size?: number;
  readonly limit: number;
  readonly signal?: AbortSignal | undefined;
  readonly onBytes?: (count: number) => void;
}

type Read = (path: string, limits: ReadLimits) => Promise<Bytes>;

const CACHE = "bitfit-runtime";

/** Forgets every bundle that this site has cached. */
export async function clearCache(): Promise<void> {
  await globalThis.caches?.delete(CACHE);
}

/** The files of one bundle. */
export class BundleFiles {
  private loaded = 0;
  private cached = 0;
  private total = 0;
  private readonly writes: Promise<void>[] = [];
  private readonly signatures = new Map<string, Bytes>();

  private constructor(
    private readonly read: Read,
    /** Where the bundle is, if files are to be cached. */
    private readonly address: string | undefined,
    private readonly options: ReadOptions,
  ) {}

  static async of(source: BundleSource, options: ReadOptions): Promise<BundleFiles> {
    if (typeof source === "string" || source instanceof URL) {
      const base = addressOf(source);
      if (!base) return new BundleFiles(await folderReader(String(source)), undefined, options);
      if (base.protocol === "file:") return new BundleFiles(await folderReader(base), undefined, options);
      const folder = base.href.replace(/[^/]$/, "$&/");
      const read: Read = (path, limits) => download(new URL(path.split("/").map(encodeURIComponent).join("/"), folder), limits);
      return new BundleFiles(read, options.cache === false ? undefined : folder, options);
    }
    if (typeof source !== "object" || source === null) {
      throw new InputError(`the bundle is ${quoted(source)}, expected an address or files`);
    }
    return new BundleFiles(givenReader(source), undefined, options);
  }

  /** The manifest's bytes; those of the last opening where the network cannot be reached. */
  async manifest(): Promise<Bytes> {
    const { signal } = this.options;
    const cache = await this.openCache();
    const key = this.address + MANIFEST_FILE;
    try {
      return await this.read(MANIFEST_FILE, { limit: MAX_MANIFEST_SIZE, signal });
    } catch (error) {
      const kept = signal?.aborted || !isNetworkFailure(error) ? undefined : await cache?.match(key);
      if (!kept) throw error;
      return new Uint8Array(await kept.arrayBuffer());
    }
  }

  /** The signature of a file of the bundle; undefined where there is none. Without a network that of the last opening. */
  async signature(path: string): Promise<Bytes | undefined> {
    const name = path + SIGNATURE_SUFFIX;
    try {
      const found = await this.read(name, { limit: SIGNATURE_SIZE, signal: this.options.signal });
      this.signatures.set(name, found);
      return found;
    } catch (error) {
      this.options.signal?.throwIfAborted();
      if (!(error instanceof BundleError)) throw error;
      if (!isNetworkFailure(error)) return undefined;
      const kept = await (await this.openCache())?.match(this.address + name);
      if (!kept) throw error;
      return new Uint8Array(await kept.arrayBuffer());
    }
  }

  /** Keeps the manifest and the signatures for openings without a network, once everything else is kept. */
  async finish(manifest: Bytes): Promise<void> {
    await Promise.all(this.writes);
    const cache = await this.openCache();
    const kept = [...this.signatures].map(([name, bytes]) => cache?.put(this.address + name, new Response(bytes)).catch(() => undefined));
    await Promise.all(kept);
    await cache?.put(this.address + MANIFEST_FILE, new Response(manifest)).catch(() => undefined);
  }

  expect(bytes: number): void {
    this.total += bytes;
  }

  /**
   * Returns a file that the manifest records, after its size and SHA-256 were compared.
   *
   * @throws BundleError: it cannot be read, or is not the one that the manifest records.
   */
  async recorded(path: string, record: FileRecord, limit: number, manifest: Manifest): Promise<Bytes> {
    if (record.size > limit) throw new BundleError(`${shown(path)} has ${record.size} bytes, expected at most ${limit}`, COPY_AGAIN);
    return this.fetched(path, record.sha256, async (limits) => {
      const partSize = manifest.parts.get(path);
      const whole = { ...limits, size: record.size };
      return partSize ? this.joined(path, record.size, partSize, whole) : this.read(path, whole);
    }, limit);
  }

  /** Returns the bytes of a row that the manifest records, after its SHA-256 was compared. */
  async row(path: string, digest: string): Promise<Bytes> {
    return this.fetched(path, digest, (limits) => this.read(path, limits), MAX_ROW_SIZE);
  }

  private async fetched(
    path: string,
    digest: string,
    read: (limits: ReadLimits) => Promise<Bytes>,
    limit: number,
  ): Promise<Bytes> {
    const cache = await this.openCache();
    const key = cache ? cacheKey(digest) : "";
    const kept = await cache?.match(key);
    if (kept) {
      const bytes = new Uint8Array(await kept.arrayBuffer());
      this.options.signal?.throwIfAborted();
      if (hexOf(await sha256(bytes)) === digest) {
        this.cached += bytes.length;
        this.progress(bytes.length);
        return bytes;
      }
      await cache?.delete(key);
    }
    let seen = 0;
    const bytes = await read({
      limit,
      signal: this.options.signal,
      onBytes: (count) => {
        seen += count;
        this.progress(count);
      },
    });
    if (!seen) this.progress(bytes.length);
    const found = hexOf(await sha256(bytes));
    if (found !== digest) {
      throw new BundleError(`${shown(path)} has sha256 ${found.slice(0, 12)}, expected ${digest.slice(0, 12)}`, COPY_AGAIN);
    }
    // What does not fit is downloaded again the next time.
    if (cache) this.writes.push(cache.put(key, new Response(bytes)).catch(() => undefined));
    return bytes;
  }

  /** A file that is served in parts of the same size, `<path>.part-<number>`. */
  private async joined(path: string, size: number, partSize: number, limits: ReadLimits): Promise<Bytes> {
    const whole = new Uint8Array(size);
    for (let at = 0, number = 0; at < size; at += partSize, ++number) {
      const part = await this.read(`${path}.part-${number}`, { ...limits, size: Math.min(partSize, size - at) });
      whole.set(part, at);
    }
    return whole;
  }

  private progress(count: number): void {
    this.loaded += count;
    this.options.onProgress?.({ loaded: this.loaded, cached: this.cached, total: Math.max(this.total, this.loaded) });
  }

  /** Cache Storage, where files are to be cached and the page has it: it needs a secure address. */
  private async openCache(): Promise<Cache | undefined> {
    if (this.address === undefined || !globalThis.caches) return undefined;
    return globalThis.caches.open(CACHE).catch(() => undefined);
  }
}

/**
 * Returns the bytes of a row file, of which none was checked.
 *
 * @throws BundleError: the file cannot be read; RowError, if it is too large.
 */
export async function readRowFile(source: FileSource, signal?: AbortSignal): Promise<[Bytes, string]> {
  signal?.throwIfAborted();
  if (typeof source === "string" || source instanceof URL) {
    const address = addressOf(source);
    const where = shown(String(source));
    const limits = { limit: MAX_ROW_SIZE, signal };
    if (address && address.protocol !== "file:") return [await download(address, limits), where];
    const path = address ?? String(source);
    return [await (await folderReader(""))("", limits, path), where];
  }
  const name = source instanceof Blob && "name" in source ? shown(String(source.name)) : "the row";
  return [await bytesOf(source, name, { limit: MAX_ROW_SIZE }), name];
}

/** Returns the signature of a row: the one that is given, or the file beside the row; undefined where there is none. */
export async function readSignature(
  row: FileSource,
  given: FileSource | undefined,
  signal?: AbortSignal,
): Promise<Bytes | undefined> {
  const beside = typeof row === "string" || row instanceof URL ? signatureBeside(row) : undefined;
  const source = given ?? beside;
  if (source === undefined) return undefined;
  try {
    return (await readRowFile(source, signal))[0];
  } catch (error) {
    signal?.throwIfAborted();
    if (error instanceof BundleError && !isNetworkFailure(error)) return undefined;
    throw error;
  }
}

function signatureBeside(row: string | URL): string | URL {
  const address = addressOf(row);
  if (!address) return row + SIGNATURE_SUFFIX;
  const beside = new URL(address);
  beside.pathname += SIGNATURE_SUFFIX;
  return beside;
}

function cacheKey(digest: string): string {
  return new URL(`/bitfit-runtime/${digest}`, globalThis.location?.href).href;
}

/** The address that a text is, relative to the page where there is one; undefined for a path in Node. */
function addressOf(source: string | URL): URL | undefined {
  if (source instanceof URL) return source;
  try {
    return new URL(source, globalThis.document?.baseURI ?? globalThis.location?.href);
  } catch {
    return undefined;
  }
}

class NetworkError extends BundleError {}

function isNetworkFailure(error: unknown): boolean {
  return error instanceof NetworkError;
}

async function download(address: URL, { size, limit, signal, onBytes }: ReadLimits): Promise<Bytes> {
  const where = shown(address.href);
  const failed = (error: unknown): never => {
    signal?.throwIfAborted();
    throw new NetworkError(`${where} cannot be read: ${firstLine(error)}`, "look at the connection and the address", error);
  };
  // A manifest is asked for anew, for the files that it names are known by their digests.
  const cache = address.pathname.endsWith(`/${MANIFEST_FILE}`) ? "no-cache" : "default";
  const response = await fetch(address, { signal: signal ?? null, cache }).catch(failed);
  if (!response.ok) {
    await response.body?.cancel();
    throw new BundleError(`${where} cannot be read: the server answers ${response.status} ${response.statusText}`.trim(), COPY_AGAIN);
  }
  const most = size ?? limit;
  const parts: Uint8Array[] = [];
  let whole = size === undefined ? undefined : new Uint8Array(size);
  let count = 0;
  const reader = response.body?.getReader();
  for (;;) {
    const { done, value } = (await reader?.read().catch(failed)) ?? { done: true, value: undefined };
    if (done) break;
    if (count + value.length > most) {
      await reader?.cancel();
      throw tooLarge(where, count + value.length, size, limit);
    }
    if (whole) whole.set(value, count);
    else parts.push(value);
    count += value.length;
    onBytes?.(value.length);
  }
  if (size !== undefined && count !== size) throw wrongSize(where, count, size);
  if (!whole) {
    whole = new Uint8Array(count);
    let at = 0;
    for (const part of parts) {
      whole.set(part, at);
      at += part.length;
    }
  }
  return whole;
}

function givenReader(source: Exclude<BundleSource, string | URL>): Read {
  const files = new Map<string, Blob | ArrayBuffer | Uint8Array>();
  if (Symbol.iterator in source) {
    for (const file of source) {
      // A picked folder's own name is the first part of each path.
      files.set(file.webkitRelativePath ? file.webkitRelativePath.split("/").slice(1).join("/") : file.name, file);
    }
  } else for (const [path, file] of Object.entries(source)) files.set(path, file);
  return async (path, limits) => {
    const file = files.get(path);
    if (!file) throw new BundleError(`the bundle has no ${shown(path)}, expected it among its files`, COPY_AGAIN);
    return bytesOf(file, path, limits);
  };
}

async function bytesOf(source: Blob | ArrayBuffer | Uint8Array, where: string, { size, limit }: ReadLimits): Promise<Bytes> {
  const isBlob = source instanceof Blob;
  if (!isBlob && !(source instanceof ArrayBuffer) && !(source instanceof Uint8Array)) {
    throw new InputError(`${where} is ${quoted(source)}, expected a Blob, an ArrayBuffer or a Uint8Array`);
  }
  const count = isBlob ? source.size : source.byteLength;
  if (size !== undefined && count !== size) throw wrongSize(where, count, size);
  if (count > limit) throw tooLarge(where, count, undefined, limit);
  try {
    // Copies: what was checked is what is used, whatever the caller does with its bytes.
    return isBlob ? new Uint8Array(await source.arrayBuffer()) : new Uint8Array(source as Uint8Array).slice();
  } catch (error) {
    throw new BundleError(`${where} cannot be read: ${firstLine(error)}`, undefined, error);
  }
}

/** Files of a folder in Node, or the one at `file`. */
async function folderReader(folder: string | URL): Promise<(path: string, limits: ReadLimits, file?: string | URL) => Promise<Bytes>> {
  if (typeof process === "undefined" || !process.versions?.node) {
    throw new InputError(`${quoted(String(folder))} is a path, expected an address`);
  }
  const [fs, nodePath, nodeUrl] = await Promise.all([
    import(/* webpackIgnore: true */ /* @vite-ignore */ "node:fs/promises"),
    import(/* webpackIgnore: true */ /* @vite-ignore */ "node:path"),
    import(/* webpackIgnore: true */ /* @vite-ignore */ "node:url"),
  ]);
  const base = folder instanceof URL ? nodeUrl.fileURLToPath(folder) : folder;
  return async (path, { size, limit, signal }, file) => {
    const full = file === undefined ? nodePath.join(base, path) : file;
    const where = shown(String(full));
    try {
      const found = await fs.stat(full);
      if (!found.isFile()) throw new BundleError(`${where} cannot be read: it is not a regular file`, COPY_AGAIN);
      if (size !== undefined && found.size !== size) throw wrongSize(where, found.size, size);
      if (found.size > limit) throw tooLarge(where, found.size, undefined, limit);
      return new Uint8Array(await fs.readFile(full, { signal }));
    } catch (error) {
      if (error instanceof BundleError) throw error;
      signal?.throwIfAborted();
      throw new BundleError(`${where} cannot be read: ${firstLine(error)}`, COPY_AGAIN, error);
    }
  };
}

function wrongSize(where: string, found: number, expected: number): BundleError {
  return new BundleError(`${shown(where)} has ${found} bytes, expected ${expected}`, COPY_AGAIN);
}

function tooLarge(where: string, found: number, size: number | undefined, limit: number): BundleError {
  if (size !== undefined) return new BundleError(`${shown(where)} has more than ${size} bytes, expected ${size}`, COPY_AGAIN);
  const message = `${shown(where)} has ${found} bytes or more, expected at most ${limit}`;
  return limit === MAX_ROW_SIZE ? new RowError("TRAILING_BYTES", message) : new BundleError(message, COPY_AGAIN);
}
