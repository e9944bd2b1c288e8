// BERT's WordPiece: BertNormalizer, BertPreTokenizer and the greedy longest match of the model WordPiece.

import { BundleError } from "../errors.js";
import { checkRange, type JsonRecord } from "../record.js";
import { shown } from "../shown.js";
import { isSet, readVocabulary, type Scheme } from "./scheme.js";
import * as unicode from "./unicode.js";

export class WordPiece implements Scheme {
  private readonly clean: boolean;
  private readonly chinese: boolean;
  private readonly strip: boolean;
  private readonly lowercase: boolean;
  private readonly prefix: string;
  private readonly mostCharacters: number;
  private readonly vocabulary: ReadonlyMap<string, number>;
  private readonly unknown: number;
  /** Of the longest entry, in UTF-16 code units. */
  private readonly longest: number;

  constructor(file: JsonRecord) {
    const normalizer = file.record("normalizer");
    const type = normalizer.text("type");
    if (type !== "BertNormalizer") {
      throw new BundleError(`${normalizer.where} is ${shown(type)}, expected BertNormalizer`);
    }
    this.clean = normalizer.boolean("clean_text");
    this.chinese = normalizer.boolean("handle_chinese_chars");
    this.lowercase = normalizer.boolean("lowercase");
    this.strip = isSet(normalizer, "strip_accents") ? normalizer.boolean("strip_accents") : this.lowercase;
    const model = file.record("model");
    this.prefix = model.text("continuing_subword_prefix");
    const most = model.integer("max_input_chars_per_word");
    checkRange(most, 0, 2 ** 31 - 1, `${model.where}: max_input_chars_per_word`);
    this.mostCharacters = Number(most);
    this.vocabulary = readVocabulary(model);
    const unknown = model.text("unk_token");
    const id = this.vocabulary.get(unknown);
    if (id === undefined) throw new BundleError(`${model.where}: vocab lacks the unk_token "${shown(unknown)}"`);
    this.unknown = id;
    let longest = 0;
    for (const token of this.vocabulary.keys()) longest = Math.max(longest, token.length);
    this.longest = longest;
  }

  normalize(text: unicode.Characters): unicode.Characters {
    let result: unicode.Characters = { codes: [], starts: [], ends: [] };
    text.codes.forEach((original, index) => {
      let code = original;
      const start = text.starts[index] as number;
      const end = text.ends[index] as number;
      if (this.clean && !(code >= 0x20 && code < 0x7f)) {
        if (unicode.isControl(code)) return;
        if (unicode.isSpace(code)) code = 0x20;
      }
      const alone = this.chinese && unicode.isChinese(code);
      if (alone) unicode.append(result, 0x20, start, end);
      unicode.append(result, code, start, end);
      if (alone) unicode.append(result, 0x20, start, end);
    });
    if (this.strip && result.codes.some((code) => code >= 0xc0)) {
      const parts = unicode.decompose(result);
      result = { codes: [], starts: [], ends: [] };
      parts.codes.forEach((code, index) => {
        if (!unicode.isNonspacingMark(code)) unicode.append(result, code, parts.starts[index] as number, parts.ends[index] as number);
      });
    }
    return this.lowercase ? unicode.lower(result) : result;
  }

  split(text: unicode.Characters): [number, number][] {
    const words: [number, number][] = [];
    let start = 0;
    text.codes.forEach((code, at) => {
      const punctuation = unicode.isPunctuation(code);
      if (!punctuation && !unicode.isSpace(code)) return;
      if (start < at) words.push([start, at]);
      if (punctuation) words.push([at, at + 1]);
      start = at + 1;
    });
    if (start < text.codes.length) words.push([start, text.codes.length]);
    return words;
  }

  ids(word: readonly number[]): number[] {
    if (word.length > this.mostCharacters) return [this.unknown];
    const text = unicode.stringOf(word);
    const ids: number[] = [];
    for (let at = 0; at < text.length; ) {
      const prefix = at === 0 ? "" : this.prefix;
      let end = Math.min(text.length, at + this.longest);
      let id: number | undefined;
      // A half of a surrogate pair is in no vocabulary, so code units do as well as characters.
      for (; end > at; --end) {
        id = this.vocabulary.get(prefix + text.slice(at, end));
        if (id !== undefined) break;
      }
      if (id === undefined) return [this.unknown];
      ids.push(id);
      at = end;
    }
    return ids;
  }
}
