// Who made a file: detached Ed25519 signatures, checked by WebCrypto. docs/files.md has their format.

import { hexOf } from "./digests.js";
import { SignatureError, UsageError } from "./errors.js";
import { quoted, shown } from "./shown.js";
import { SIGNATURE_MAGIC } from "./spec.js";

/** A public key: its 32 bytes, or their 64 hexadecimal digits. */
export type PublicKey = string | Uint8Array | ArrayBuffer;

const KEY_SIZE = 32;
const MAGIC = new TextEncoder().encode(SIGNATURE_MAGIC);
/** The bytes of a signature file. */
export const SIGNATURE_SIZE = MAGIC.length + KEY_SIZE + 64;

/** The keys whose signatures are accepted. */
export class TrustedKeys {
  private constructor(private readonly keys: ReadonlyMap<string, Uint8Array<ArrayBuffer>>) {}

  /** @throws UsageError: there is none, or one is not a public key. */
  static of(keys: readonly PublicKey[]): TrustedKeys {
    const known = new Map([...keys].map((each) => keyOf(each)).map((key) => [hexOf(key), key]));
    if (!known.size) throw new UsageError("there is no trusted key, expected at least one");
    return new TrustedKeys(known);
  }

  /**
   * Checks that a trusted key has signed these bytes.
   *
   * @param signature the signature file; undefined where there is none.
   * @throws SignatureError: it has not. UsageError: this browser cannot check signatures.
   */
  async check(data: Uint8Array<ArrayBuffer>, signature: Uint8Array<ArrayBuffer> | undefined, where: string): Promise<void> {
    if (!signature) throw new SignatureError("missing", `${where} has no signature beside it`, "bitfit sign FILE --key KEY");
    if (signature.length !== SIGNATURE_SIZE || MAGIC.some((byte, index) => byte !== signature[index])) {
      throw new SignatureError("malformed", `that of ${where} is not ${SIGNATURE_SIZE} bytes that begin with ${SIGNATURE_MAGIC}`);
    }
    const name = hexOf(signature.subarray(MAGIC.length, MAGIC.length + KEY_SIZE));
    const key = this.keys.get(name);
    if (!key) throw new SignatureError("untrusted", `${where} is signed by ${name.slice(0, 16)}..., which is not a trusted key`);
    if (!(await verify(key, signature.subarray(MAGIC.length + KEY_SIZE), data))) {
      throw new SignatureError("wrong", `${where} is not what its signature was made for`, "copy both files again");
    }
  }
}

async function verify(key: Uint8Array<ArrayBuffer>, signature: Uint8Array<ArrayBuffer>, data: Uint8Array<ArrayBuffer>): Promise<boolean> {
  const subtle = globalThis.crypto?.subtle;
  try {
    const imported = await subtle.importKey("raw", key, "Ed25519", false, ["verify"]);
    return await subtle.verify("Ed25519", imported, signature, data);
  } catch (error) {
    throw new UsageError("signatures cannot be checked here, expected WebCrypto with Ed25519", "serve the page by HTTPS, or update the browser", error);
  }
}

function keyOf(key: PublicKey): Uint8Array<ArrayBuffer> {
  if (typeof key === "string") {
    if (!/^[0-9a-f]{64}$/.test(key.trim())) throw new UsageError(`a trusted key is ${quoted(shown(key))}, expected 64 hexadecimal digits`);
    return Uint8Array.from(key.trim().match(/../g) as string[], (pair) => Number.parseInt(pair, 16));
  }
  const bytes = new Uint8Array(key as ArrayBuffer).slice();
  if (bytes.length !== KEY_SIZE) throw new UsageError(`a trusted key has ${bytes.length} bytes, expected ${KEY_SIZE}`);
  return bytes;
}
