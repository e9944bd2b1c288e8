// Texts to sequences that the model can run: whole, cut, or in windows that overlap, as the Python package makes them.

import { InputError, UsageError } from "../errors.js";
import { quoted } from "../shown.js";
import type { Side, Tokenizer, Tokens } from "./tokenizer.js";

/**
 * A text; a pair of texts such as premise and hypothesis; a question and its context; or a text as the list of its words.
 * These are the lines that `bitfit run` reads.
 */
export type Text = string | TextPair | Question | Words;
export interface TextPair {
  readonly text: string;
  readonly text_pair?: string | null;
}
export interface Question {
  readonly question: string;
  readonly context: string;
}
export interface Words {
  readonly tokens: readonly string[];
}

/** A text in one form for all: what `first` and `second` are to the tokenizer. */
export interface Item {
  readonly form: "text" | "pair" | "words";
  readonly first: string | readonly string[];
  readonly second?: string;
}

/** How many tokens two windows of one context share, where there is room for as many new ones. */
const OVERLAP = 128;

/**
 * Returns texts as a list of items: one text, or several.
 *
 * @throws InputError: no text, or one that is none of the kinds.
 */
export function asItems(texts: Text | readonly Text[]): Item[] {
  const items = Array.isArray(texts) ? (texts as readonly Text[]) : [texts as Text];
  if (!items.length) throw new InputError("there is no text, expected at least one");
  return items.map((text, item) => {
    const found = asItem(text);
    if (!found) {
      throw new InputError(
        `is ${described(text)}, expected a string, {text, text_pair}, {question, context} or {tokens}`,
        { item },
      );
    }
    if (![found.first, found.second ?? ""].flat().every((each) => each.isWellFormed())) {
      throw new InputError("has half a surrogate pair, expected a string that UTF-8 can write", { item });
    }
    return found;
  });
}

function asItem(text: unknown): Item | undefined {
  if (typeof text === "string") return { form: "text", first: text };
  if (typeof text !== "object" || text === null) return undefined;
  const { tokens, question, context, text: first, text_pair: second } = text as Record<string, unknown>;
  if (Array.isArray(tokens)) {
    return tokens.length && tokens.every((each) => typeof each === "string") ? { form: "words", first: tokens } : undefined;
  }
  if (typeof question === "string" && typeof context === "string") {
    return { form: "pair", first: question, second: context };
  }
  if (typeof first !== "string") return undefined;
  if (second === undefined || second === null) return { form: "text", first };
  return typeof second === "string" ? { form: "pair", first, second } : undefined;
}

function described(text: unknown): string {
  if (typeof text !== "object" || text === null) return quoted(text);
  const keys = Object.keys(text);
  return Array.isArray(text) ? `a list of ${text.length}` : keys.length ? `an object with ${keys.join(", ")}` : "an empty object";
}

export class TextEncoder {
  /**
   * @param maxPositions the longest sequence that the model takes, in tokens.
   */
  constructor(private readonly tokenizer: Tokenizer, private readonly maxPositions: number) {}

  /**
   * The tokens of each item, with the model's special tokens.
   *
   * @param truncate cut a longer text at its end, the longer one of a pair first, instead of refusing it.
   * @throws InputError, UsageError: a text that is too long; a `maxLength` that the model or the special tokens don't allow.
   */
  tokenize(items: readonly Item[], maxLength: number | undefined, truncate: boolean): Tokens[] {
    const limit = this.checkLimit(maxLength);
    const found = items.map((item) => this.tokenizer.encode(item.first, item.second));
    const long = found.flatMap((tokens, item) => (tokens.ids.length > limit ? [item] : []));
    if (long.length && !truncate) {
      const [item] = long as [number];
      const others = long.length > 1 ? ` (${long.length} items are too long)` : "";
      throw new InputError(`has ${(found[item] as Tokens).ids.length} tokens, expected at most ${limit}${others}`, {
        item,
        hint: "shorten the text, or pass truncate: true to cut it",
      });
    }
    return found.map((tokens) => (tokens.ids.length > limit ? take(tokens, cutPositions(tokens.sides, limit)) : tokens));
  }

  /**
   * The tokens of each question and context; a context that is too long becomes several windows that overlap.
   *
   * @throws InputError: a question that leaves a context no room, or a context without a word.
   */
  windows(items: readonly Item[], maxLength: number | undefined): Tokens[][] {
    const limit = this.checkLimit(maxLength);
    return items.map(({ first, second }, item) => {
      const tokens = this.tokenizer.encode(first, second);
      const question = tokens.sides.filter((side) => side !== 1).length;
      if (question >= limit) {
        throw new InputError(`has a question of ${question} tokens with the special ones, expected fewer than ${limit}`, {
          item,
          hint: "shorten the question",
        });
      }
      const windows = [...contextWindows(tokens.sides, limit, OVERLAP)].map((kept) => take(tokens, kept));
      if (!windows.some((window) => window.sides.some((_, place) => standsForText(window, place, 1)))) {
        throw new InputError("has a context without a word, expected at least one", { item });
      }
      return windows;
    });
  }

  private checkLimit(maxLength: number | undefined): number {
    if (maxLength === undefined) return this.maxPositions;
    if (!Number.isInteger(maxLength) || maxLength < 1 || maxLength > this.maxPositions) {
      throw new UsageError(`maxLength is ${quoted(maxLength)}, expected 1 to ${this.maxPositions} tokens`);
    }
    return maxLength;
  }
}

/** Returns whether the token stands for characters of this side. */
export function standsForText(tokens: Tokens, place: number, side: Side): boolean {
  const [start, end] = tokens.spans[place] as readonly [number, number];
  return tokens.sides[place] === side && start < end;
}

/** The tokens at these positions. */
export function take(tokens: Tokens, kept: readonly number[]): Tokens {
  const pick = <Each>(values: readonly Each[]): Each[] => kept.map((position) => values[position] as Each);
  return {
    ids: pick(tokens.ids),
    typeIds: pick(tokens.typeIds),
    sides: pick(tokens.sides),
    words: pick(tokens.words),
    spans: pick(tokens.spans),
  };
}

/** The first tokens of each side, and all special tokens, `limit` in all. */
function cutPositions(sides: readonly Side[], limit: number): number[] {
  const count = (wanted: Side): number => sides.filter((side) => side === wanted).length;
  const specials = count(null);
  if (limit < specials) {
    throw new UsageError(`maxLength is ${limit}, expected at least ${specials}, the number of special tokens`);
  }
  const left = longestFirst(count(0), count(1), limit - specials);
  return [...sides.keys()].filter((position) => {
    const side = sides[position] as Side;
    if (side === null) return true;
    left[side] -= 1;
    return left[side] >= 0;
  });
}

/**
 * How many tokens of each side stay when they have more than `room` together: a side that takes at most half of the room
 * stays whole; else each gets half, and the longer one, or of two equal ones the second, the odd token.
 */
function longestFirst(first: number, second: number, room: number): [number, number] {
  const shorter = Math.min(first, second, Math.floor(room / 2));
  return first <= second ? [shorter, room - shorter] : [room - shorter, shorter];
}

/** Positions of at most `limit` tokens each: all but the second text's, and a stretch of those. */
function* contextWindows(sides: readonly Side[], limit: number, overlap: number): Generator<number[]> {
  const all = [...sides.keys()];
  // The tokens of a text stand together.
  let first = sides.includes(1) ? sides.indexOf(1) : sides.length;
  const last = first + sides.filter((side) => side === 1).length;
  const before = all.slice(0, first);
  const after = all.slice(last);
  const room = limit - before.length - after.length;
  const step = room - Math.min(overlap, Math.floor(room / 2));
  for (; ; first += step) {
    yield [...before, ...all.slice(first, Math.min(first + room, last)), ...after];
    if (first + room >= last) return;
  }
}
