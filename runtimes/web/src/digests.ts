// SHA-256 and CRC-32C.

/**
 * Returns SHA-256 of bytes, 32 of them: by WebCrypto, which takes no time of the page's, or by code of our own where a
 * page has none because it was not served securely.
 */
export async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  const subtle = globalThis.crypto?.subtle;
  return subtle ? new Uint8Array(await subtle.digest("SHA-256", bytes)) : sha256Here(bytes);
}

export function hexOf(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// FIPS 180-4. The constants are fractions of the roots of the first primes.
const PRIMES = Array.from({ length: 312 }, (_, number) => number).filter(
  (number) => number > 1 && !Array.from({ length: number }, (_, each) => each).some((each) => each > 1 && number % each === 0),
);
const fraction = (root: number): number => ((root - Math.floor(root)) * 2 ** 32) | 0;
const ROUNDS = Int32Array.from(PRIMES, (prime) => fraction(Math.cbrt(prime)));

/** Returns what `sha256` does, without WebCrypto. */
export function sha256Here(bytes: Uint8Array): Uint8Array {
  const state = Int32Array.from(PRIMES.slice(0, 8), (prime) => fraction(Math.sqrt(prime)));
  const whole = bytes.length - (bytes.length % 64);
  hashBlocks(state, bytes, whole);
  const rest = bytes.length - whole;
  const tail = new Uint8Array(rest < 56 ? 64 : 128);
  tail.set(bytes.subarray(whole));
  tail[rest] = 0x80;
  new DataView(tail.buffer).setBigUint64(tail.length - 8, BigInt(bytes.length) * 8n);
  hashBlocks(state, tail, tail.length);
  const digest = new DataView(new ArrayBuffer(32));
  state.forEach((word, index) => digest.setInt32(4 * index, word));
  return new Uint8Array(digest.buffer);
}

function hashBlocks(state: Int32Array, bytes: Uint8Array, size: number): void {
  const words = new Int32Array(64);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const at = (values: Int32Array, index: number): number => values[index] as number;
  const turn = (word: number, by: number): number => (word >>> by) | (word << (32 - by));
  for (let start = 0; start < size; start += 64) {
    for (let i = 0; i < 16; ++i) words[i] = view.getInt32(start + 4 * i);
    for (let i = 16; i < 64; ++i) {
      const early = at(words, i - 15);
      const late = at(words, i - 2);
      const small = turn(early, 7) ^ turn(early, 18) ^ (early >>> 3);
      const large = turn(late, 17) ^ turn(late, 19) ^ (late >>> 10);
      words[i] = (at(words, i - 16) + small + at(words, i - 7) + large) | 0;
    }
    let [a, b, c, d, e, f, g, h] = state as unknown as [number, number, number, number, number, number, number, number];
    for (let i = 0; i < 64; ++i) {
      const first = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + at(ROUNDS, i) + at(words, i)) | 0;
      const second = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + first) | 0; d = c; c = b; b = a; a = (first + second) | 0;
    }
    [a, b, c, d, e, f, g, h].forEach((word, index) => { state[index] = at(state, index) + word; });
  }
}

// Four tables, so that four bytes are taken at once.
let tables: readonly [Uint32Array, Uint32Array, Uint32Array, Uint32Array] | undefined;

function makeTables(): NonNullable<typeof tables> {
  const all = [0, 1, 2, 3].map(() => new Uint32Array(256)) as unknown as NonNullable<typeof tables>;
  for (let byte = 0; byte < 256; ++byte) {
    let crc = byte;
    for (let bit = 0; bit < 8; ++bit) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
    all[0][byte] = crc;
  }
  for (let byte = 0; byte < 256; ++byte) {
    let crc = all[0][byte] as number;
    for (let table = 1; table < 4; ++table) {
      crc = (crc >>> 8) ^ (all[0][crc & 0xff] as number);
      (all[table] as Uint32Array)[byte] = crc;
    }
  }
  return all;
}

/** Returns CRC-32C (Castagnoli) of bytes, as an unsigned number. */
export function crc32c(bytes: Uint8Array): number {
  const [zero, one, two, three] = (tables ??= makeTables());
  let crc = 0xffffffff;
  let at = 0;
  for (const last = bytes.length - 3; at < last; at += 4) {
    crc ^=
      (bytes[at] as number) | ((bytes[at + 1] as number) << 8) | ((bytes[at + 2] as number) << 16) | ((bytes[at + 3] as number) << 24);
    crc =
      (three[crc & 0xff] as number) ^ (two[(crc >>> 8) & 0xff] as number) ^ (one[(crc >>> 16) & 0xff] as number) ^ (zero[crc >>> 24] as number);
  }
  for (; at < bytes.length; ++at) crc = (crc >>> 8) ^ (zero[(crc ^ (bytes[at] as number)) & 0xff] as number);
  return (crc ^ 0xffffffff) >>> 0;
}
