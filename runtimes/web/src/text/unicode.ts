// What the tokenizers know of characters: the classes are those of Hugging Face's library (unicode_tables.ts).

import * as tables from "./unicode_tables.js";

/** A text as characters, by their codes, each with the stretch of the original that it comes from. */
export interface Characters {
  codes: number[];
  /** In UTF-16 code units, as JavaScript counts a string. */
  starts: number[];
  ends: number[];
}

export function charactersOf(text: string): Characters {
  const found: Characters = { codes: [], starts: [], ends: [] };
  for (let at = 0; at < text.length; ) {
    const code = text.codePointAt(at) as number;
    const end = at + (code > 0xffff ? 2 : 1);
    append(found, code, at, end);
    at = end;
  }
  return found;
}

export function append(to: Characters, code: number, start: number, end: number): void {
  to.codes.push(code);
  to.starts.push(start);
  to.ends.push(end);
}

export function part(text: Characters, first: number, last: number): Characters {
  return {
    codes: text.codes.slice(first, last),
    starts: text.starts.slice(first, last),
    ends: text.ends.slice(first, last),
  };
}

export function stringOf(codes: readonly number[]): string {
  let text = "";
  for (const code of codes) text += String.fromCodePoint(code);
  return text;
}

interface Runs {
  firsts: number[];
  lasts: number[];
  values: number[];
}

function unpack(packed: string): Runs {
  const runs: Runs = { firsts: [], lasts: [], values: [] };
  let end = 0;
  for (const word of packed.split(" ")) {
    const [gap = 0, more = 0, value = 0] = word.split(",").map((digits) => Number.parseInt(digits, 36));
    runs.firsts.push(end + gap);
    runs.lasts.push(end + gap + more);
    runs.values.push(value);
    end += gap + more + 1;
  }
  return runs;
}

/** Returns the place of the run that has the code, or -1. */
function placeIn(runs: Runs, code: number): number {
  let low = 0;
  let high = runs.firsts.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((runs.firsts[middle] as number) <= code) low = middle + 1;
    else high = middle;
  }
  return low > 0 && code <= (runs.lasts[low - 1] as number) ? low - 1 : -1;
}

/** Returns a test of a class of characters, whose table is unpacked when it is first needed. */
function classOf(packed: string): (code: number) => boolean {
  let runs: Runs | undefined;
  return (code) => placeIn((runs ??= unpack(packed)), code) >= 0;
}

export const isControl = classOf(tables.CONTROLS);
export const isSpace = classOf(tables.SPACES);
export const isPunctuation = classOf(tables.PUNCTUATION);
export const isNonspacingMark = classOf(tables.NONSPACING_MARKS);
export const isLetter = classOf(tables.LETTERS);
export const isNumber = classOf(tables.NUMBERS);
export const isRegexSpace = classOf(tables.REGEX_SPACES);
const isUndecomposed = classOf(tables.UNDECOMPOSED);

/** The ranges are BERT's, which leave some newer blocks out. */
export function isChinese(code: number): boolean {
  return (
    (code >= 0x4e00 && code <= 0x9fff) || (code >= 0x3400 && code <= 0x4dbf) || (code >= 0x20000 && code <= 0x2a6df) ||
    (code >= 0x2a700 && code <= 0x2b73f) || (code >= 0x2b740 && code <= 0x2b81f) || (code >= 0x2b920 && code <= 0x2ceaf) ||
    (code >= 0xf900 && code <= 0xfaff) || (code >= 0x2f800 && code <= 0x2fa1f)
  );
}

let classes: Runs | undefined;

function combiningClass(code: number): number {
  if (code < 0x300) return 0;
  classes ??= unpack(tables.COMBINING_CLASSES);
  return classes.values[placeIn(classes, code)] ?? 0;
}

/** Canonical decomposition, NFD. */
export function decompose(text: Characters): Characters {
  const parts: Characters = { codes: [], starts: [], ends: [] };
  text.codes.forEach((code, index) => {
    const start = text.starts[index] as number;
    const end = text.ends[index] as number;
    if (code < 0xc0 || isUndecomposed(code)) append(parts, code, start, end);
    else for (const each of String.fromCodePoint(code).normalize("NFD")) append(parts, each.codePointAt(0) as number, start, end);
  });
  sortMarks(parts.codes);
  return parts;
}

/** Sorts marks in a row by their classes. Their origins stay where they are, as in the library. */
function sortMarks(codes: number[]): void {
  for (let first = 0; first < codes.length; ++first) {
    if (combiningClass(codes[first] as number) === 0) continue;
    let last = first + 1;
    while (last < codes.length && combiningClass(codes[last] as number) !== 0) ++last;
    if (last - first > 1) {
      const marks = codes.slice(first, last).sort((left, right) => combiningClass(left) - combiningClass(right));
      codes.splice(first, marks.length, ...marks);
    }
    first = last;
  }
}

export function lower(text: Characters): Characters {
  const result: Characters = { codes: [], starts: [], ends: [] };
  text.codes.forEach((code, index) => {
    const start = text.starts[index] as number;
    const end = text.ends[index] as number;
    if (code < 0x80) append(result, code >= 0x41 && code <= 0x5a ? code + 32 : code, start, end);
    else for (const each of String.fromCodePoint(code).toLowerCase()) append(result, each.codePointAt(0) as number, start, end);
  });
  return result;
}

/** What Python's str.isspace() counts as a space. */
export function isBlank(code: number): boolean {
  return isSpace(code) || (code >= 0x1c && code <= 0x1f);
}
