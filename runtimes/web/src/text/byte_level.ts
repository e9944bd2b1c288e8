// GPT-2's and RoBERTa's byte-level BPE: the pre-tokenizer ByteLevel and the model BPE.

import { BundleError } from "../errors.js";
import type { Json } from "../json.js";
import type { JsonRecord } from "../record.js";
import { shown } from "../shown.js";
import { isSet, readVocabulary, type Scheme } from "./scheme.js";
import * as unicode from "./unicode.js";

/** Ids are below it, so that a double holds a pair of them. */
const ID_LIMIT = 2 ** 26;

interface Merge {
  readonly rank: number;
  /** Of what the two become. */
  readonly id: number;
}

// The vocabulary writes each byte as a character that can be seen: itself where it can be, else the next from U+0100.
function byteCharacters(): string[] {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => {
    const seen = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
    return String.fromCharCode(seen ? byte : next++);
  });
}

export class ByteLevel implements Scheme {
  private readonly prefixSpace: boolean;
  private readonly ignoreMerges: boolean;
  private readonly vocabulary: ReadonlyMap<string, number>;
  private readonly characters = byteCharacters();
  private readonly byteIds: readonly number[];
  /** By the ids of both sides. */
  private readonly merges = new Map<number, Merge>();
  private readonly encoder = new TextEncoder();

  constructor(file: JsonRecord) {
    if (isSet(file, "normalizer")) {
      throw new BundleError(`${file.where}: normalizer is ${shown(file.record("normalizer").text("type"))}, expected null`);
    }
    const splitter = file.record("pre_tokenizer");
    this.prefixSpace = splitter.boolean("add_prefix_space");
    if (isSet(splitter, "use_regex") && !splitter.boolean("use_regex")) {
      throw new BundleError(`${splitter.where}: use_regex is false, expected true`);
    }
    const model = file.record("model");
    for (const key of ["continuing_subword_prefix", "end_of_word_suffix"]) {
      if (isSet(model, key) && model.text(key)) {
        throw new BundleError(`${model.where}: ${key} is "${shown(model.text(key))}", expected none`);
      }
    }
    if (isSet(model, "dropout") || (isSet(model, "byte_fallback") && model.boolean("byte_fallback"))) {
      throw new BundleError(`${model.where} has dropout or byte_fallback, expected neither`);
    }
    this.ignoreMerges = isSet(model, "ignore_merges") && model.boolean("ignore_merges");
    this.vocabulary = readVocabulary(model);
    this.byteIds = this.characters.map((character) => this.idOf(character, model));
    model.list("merges").forEach((merge, rank) => {
      const [left, right] = sidesOf(merge);
      if (!left || !right) {
        throw new BundleError(`${model.where}: merges[${rank}] is malformed, expected two tokens`);
      }
      // Of two merges of the same pair the later one counts, as in the library.
      const key = pairKey(this.idOf(left, model), this.idOf(right, model));
      this.merges.set(key, { rank, id: this.idOf(left + right, model) });
    });
  }

  normalize(text: unicode.Characters): unicode.Characters {
    return text;
  }

  split(text: unicode.Characters, inList: boolean): [number, number][] {
    const { codes, starts } = text;
    if ((this.prefixSpace || inList) && codes.length && codes[0] !== 0x20) {
      codes.unshift(0x20);
      starts.unshift(starts[0] as number);
      text.ends.unshift(text.ends[0] as number);
    }
    const words: [number, number][] = [];
    for (let at = 0; at < codes.length; ) {
      const end = wordEnd(codes, at);
      words.push([at, end]);
      at = end;
    }
    return words;
  }

  ids(word: readonly number[]): number[] {
    const bytes = this.encoder.encode(unicode.stringOf(word));
    if (this.ignoreMerges) {
      const whole = this.vocabulary.get(Array.from(bytes, (byte) => this.characters[byte]).join(""));
      if (whole !== undefined) return [whole];
    }
    return this.merge(Array.from(bytes, (byte) => this.byteIds[byte] as number));
  }

  private idOf(token: string, model: JsonRecord): number {
    const id = this.vocabulary.get(token);
    if (id === undefined) {
      throw new BundleError(`${model.where}: vocab lacks "${shown(token)}", which a byte or a merge needs`);
    }
    if (id >= ID_LIMIT) throw new BundleError(`${model.where}: vocab has the id ${id}, expected less than ${ID_LIMIT}`);
    return id;
  }

  /** Merges pairs, the one of the lowest rank first and of equal ones the leftmost, until none is left. */
  private merge(ids: number[]): number[] {
    // A linked list of symbols and a heap of pairs, because a word can be as long as the text.
    const before = ids.map((_, place) => place - 1);
    const after = ids.map((_, place) => (place + 1 < ids.length ? place + 1 : -1));
    const gone = new Uint8Array(ids.length);
    const pairs = new Heap();
    const mergeAt = (left: number): Merge | undefined => {
      const right = after[left] as number;
      return right < 0 ? undefined : this.merges.get(pairKey(ids[left] as number, ids[right] as number));
    };
    const consider = (left: number): void => {
      const found = left < 0 ? undefined : mergeAt(left);
      if (found) pairs.push({ rank: found.rank, left, id: found.id });
    };
    for (let place = 0; place < ids.length; ++place) consider(place);
    for (let best = pairs.pop(); best; best = pairs.pop()) {
      const { left } = best;
      // One of the two may have been merged with another meanwhile.
      if (gone[left] || mergeAt(left)?.id !== best.id) continue;
      const right = after[left] as number;
      ids[left] = best.id;
      gone[right] = 1;
      after[left] = after[right] as number;
      if ((after[left] as number) >= 0) before[after[left] as number] = left;
      consider(before[left] as number);
      consider(left);
    }
    return ids.filter((_, place) => !gone[place]);
  }
}

interface Pair {
  readonly rank: number;
  readonly left: number;
  readonly id: number;
}

/** The pair of the lowest rank first, and of equal ones the leftmost. */
class Heap {
  private readonly pairs: Pair[] = [];

  push(pair: Pair): void {
    const { pairs } = this;
    let at = pairs.push(pair) - 1;
    for (let parent = (at - 1) >> 1; at > 0 && isBefore(pair, pairs[parent] as Pair); at = parent, parent = (at - 1) >> 1) {
      pairs[at] = pairs[parent] as Pair;
      pairs[parent] = pair;
    }
  }

  pop(): Pair | undefined {
    const { pairs } = this;
    const first = pairs[0];
    const last = pairs.pop();
    if (!last || !pairs.length) return first;
    pairs[0] = last;
    for (let at = 0, child = 1; child < pairs.length; child = 2 * at + 1) {
      if (child + 1 < pairs.length && isBefore(pairs[child + 1] as Pair, pairs[child] as Pair)) ++child;
      if (!isBefore(pairs[child] as Pair, last)) break;
      pairs[at] = pairs[child] as Pair;
      pairs[child] = last;
      at = child;
    }
    return first;
  }
}

function isBefore(left: Pair, right: Pair): boolean {
  return left.rank !== right.rank ? left.rank < right.rank : left.left < right.left;
}

function pairKey(left: number, right: number): number {
  return left * ID_LIMIT + right;
}

function sidesOf(merge: Json): [string, string] {
  if (typeof merge === "string") {
    const space = merge.indexOf(" ");
    return space < 0 ? ["", ""] : [merge.slice(0, space), merge.slice(space + 1)];
  }
  const [left, right] = Array.isArray(merge) && merge.length === 2 ? merge : [];
  return typeof left === "string" && typeof right === "string" ? [left, right] : ["", ""];
}

// The length of the contraction at `at`, such as 're; 0 where there is none.
function contraction(codes: readonly number[], at: number): number {
  if (codes[at] !== 0x27) return 0;
  const next = String.fromCodePoint(codes[at + 1] ?? 0, codes[at + 2] ?? 0);
  return /^[stmd]/.test(next) ? 2 : /^(?:re|ve|ll)/.test(next) ? 3 : 0;
}

function kindOf(code: number): number {
  return unicode.isLetter(code) ? 1 : unicode.isNumber(code) ? 2 : unicode.isRegexSpace(code) ? 3 : 4;
}

// Where the word that starts at `at` ends, by GPT-2's expression:
// 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
function wordEnd(codes: readonly number[], at: number): number {
  const size = contraction(codes, at);
  if (size) return at + size;
  const next = codes[at + 1];
  const first = codes[at] === 0x20 && next !== undefined && kindOf(next) !== 3 ? at + 1 : at;
  const kind = kindOf(codes[first] as number);
  let last = first + 1;
  while (last < codes.length && kindOf(codes[last] as number) === kind) ++last;
  // The last of several spaces before a word belongs to the word, if it is a space; else it stands alone.
  return kind === 3 && last < codes.length && last - first > 1 ? last - 1 : last;
}
