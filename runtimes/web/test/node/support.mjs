// What several tests need: the cases of conformance/, and the parts of the package.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("../../", import.meta.url));
export const CONFORMANCE = join(ROOT, "../../conformance");

export const bytesOf = (...path) => new Uint8Array(readFileSync(join(...path)));
export const jsonOf = (...path) => JSON.parse(readFileSync(join(...path), "utf-8"));

/** The cases count characters, and JavaScript code units: returns the place of a character in a text. */
export function placesIn(text) {
  const places = [0];
  for (const character of text) places.push(places.at(-1) + character.length);
  return (count) => places[count];
}
