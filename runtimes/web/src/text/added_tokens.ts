// Tokens that are found in a text before it is cut into words, such as [MASK].

import { BundleError } from "../errors.js";
import type { JsonRecord } from "../record.js";
import { shown } from "../shown.js";
import { checkedId, type Scheme } from "./scheme.js";
import * as unicode from "./unicode.js";

interface AddedToken {
  readonly codes: readonly number[];
  readonly id: number;
  readonly stripLeft: boolean;
  readonly stripRight: boolean;
}

/** A stretch of text; `id` where it is an added token. */
interface Part {
  readonly text: unicode.Characters;
  readonly id?: number;
}

export class AddedTokens {
  private readonly raw: AddedToken[] = [];
  private readonly normalized: AddedToken[] = [];

  constructor(file: JsonRecord, scheme: Scheme) {
    for (const each of file.has("added_tokens") ? file.records("added_tokens") : []) {
      const content = each.text("content");
      if (each.boolean("single_word")) {
        throw new BundleError(`${each.where}: single_word is true for "${shown(content)}", expected false`);
      }
      const isNormalized = each.boolean("normalized");
      const characters = unicode.charactersOf(content);
      const { codes } = isNormalized ? scheme.normalize(characters) : characters;
      const id = checkedId(each, each.integer("id"), "id");
      const token = { codes, id, stripLeft: each.boolean("lstrip"), stripRight: each.boolean("rstrip") };
      if (codes.length) (isNormalized ? this.normalized : this.raw).push(token);
    }
    for (const tokens of [this.raw, this.normalized]) tokens.sort((left, right) => right.codes.length - left.codes.length);
  }

  /** Cuts a text around the added tokens in it, the longest first: those that are sought before or after normalising. */
  cut(text: unicode.Characters, normalized: boolean): Part[] {
    const tokens = normalized ? this.normalized : this.raw;
    const { codes } = text;
    if (!tokens.length) return codes.length ? [{ text }] : [];
    const parts: Part[] = [];
    let start = 0; // of the ordinary text before the next token
    for (let at = 0; at < codes.length; ) {
      const token = tokens.find((each) => each.codes.every((code, index) => code === codes[at + index]));
      if (!token) {
        ++at;
        continue;
      }
      let first = at;
      let last = at + token.codes.length;
      while (token.stripLeft && first > start && unicode.isSpace(codes[first - 1] as number)) --first;
      while (token.stripRight && last < codes.length && unicode.isSpace(codes[last] as number)) ++last;
      if (first > start) parts.push({ text: unicode.part(text, start, first) });
      parts.push({ text: unicode.part(text, first, last), id: token.id });
      at = start = last;
    }
    if (start < codes.length) parts.push({ text: unicode.part(text, start, codes.length) });
    return parts;
  }
}
