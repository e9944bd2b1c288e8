// The tokenizer of a bundle: WordPiece and byte-level BPE, with the word and the characters of each token. The ids are those
// of Hugging Face's tokenizers, which conformance/tokenizer has cases of.

import { BundleError } from "../errors.js";
import { type JsonRecord, parseObject } from "../record.js";
import { quoted, shown } from "../shown.js";
import { MAX_TOKENIZER_SIZE, TOKENIZER_FILE } from "../spec.js";
import { AddedTokens } from "./added_tokens.js";
import { ByteLevel } from "./byte_level.js";
import { checkedId, isSet, type Scheme } from "./scheme.js";
import * as unicode from "./unicode.js";
import { WordPiece } from "./wordpiece.js";

/** 0 for the text, 1 for the second one of a pair, null for a special token. */
export type Side = 0 | 1 | null;

/** The tokens of a text or of a window of one, not padded; the lists are equally long. */
export interface Tokens {
  readonly ids: number[];
  readonly typeIds: number[];
  readonly sides: Side[];
  /** The number of the token's word in its side, null for a special token. */
  readonly words: (number | null)[];
  /**
   * The UTF-16 code units of that word in its side, from start to before end, without spaces around it. Both are 0 for a
   * special token, and for a word that is nothing but a space. A list of words counts as the words with a space between
   * each two.
   */
  readonly spans: (readonly [number, number])[];
}

/** A place of the sequence that the model wants: a text, or special tokens. */
interface Place {
  readonly side: Side;
  readonly typeId: number;
  readonly ids: readonly number[];
}

interface Templates {
  readonly single: readonly Place[];
  readonly pair: readonly Place[];
}

const text = (side: 0 | 1, typeId: number): Place => ({ side, typeId, ids: [] });
const special = (typeId: number, ...ids: number[]): Place => ({ side: null, typeId, ids });
const PLAIN: Templates = { single: [text(0, 0)], pair: [text(0, 0), text(1, 1)] };

export class Tokenizer {
  private readonly scheme: Scheme;
  private readonly added: AddedTokens;
  private readonly templates: Templates;

  /**
   * @param data the bytes of tokenizer.json. A truncation or padding that is baked into the file is not used.
   * @throws BundleError: the file is malformed, or has a component that is not known here.
   */
  constructor(data: Uint8Array, where: string = TOKENIZER_FILE) {
    if (data.length > MAX_TOKENIZER_SIZE) {
      throw new BundleError(`${where} has ${data.length} bytes, expected at most ${MAX_TOKENIZER_SIZE}`);
    }
    const file = parseObject(data, where);
    this.scheme = readScheme(file);
    this.added = new AddedTokens(file, this.scheme);
    this.templates = readTemplates(file);
  }

  /** The tokens of a text, of a pair of texts, or of a text as the list of its words, with the special tokens. */
  encode(first: string | readonly string[], second?: string): Tokens {
    const tokens: Tokens = { ids: [], typeIds: [], sides: [], words: [], spans: [] };
    for (const place of second === undefined ? this.templates.single : this.templates.pair) {
      for (const id of place.ids) push(tokens, id, null, null, [0, 0]);
      if (place.side === 0 && typeof first !== "string") this.appendWords(first, tokens);
      else if (place.side !== null) {
        this.appendText(place.side === 0 ? (first as string) : (second as string), place.side, tokens);
      }
      while (tokens.typeIds.length < tokens.ids.length) tokens.typeIds.push(place.typeId);
    }
    return tokens;
  }

  private appendWords(words: readonly string[], tokens: Tokens): void {
    let start = 0;
    words.forEach((word, number) => {
      const span: [number, number] = [start, start + word.length];
      for (const [ids] of this.wordsOf(word, true)) for (const id of ids) push(tokens, id, 0, number, span);
      start = span[1] + 1;
    });
  }

  private appendText(whole: string, side: 0 | 1, tokens: Tokens): void {
    let word = 0;
    for (const [ids, span] of this.wordsOf(whole, false)) {
      for (const id of ids) push(tokens, id, side, word, span);
      ++word;
    }
  }

  /** The words of a text in order: the ids of each, and its characters. */
  private *wordsOf(whole: string, inList: boolean): Generator<[readonly number[], [number, number]]> {
    for (const raw of this.added.cut(unicode.charactersOf(whole), false)) {
      if (raw.id !== undefined) {
        yield [[raw.id], spanOf(raw.text, 0, raw.text.codes.length)];
        continue;
      }
      for (const { id, text: ordinary } of this.added.cut(this.scheme.normalize(raw.text), true)) {
        if (id !== undefined) {
          yield [[id], spanOf(ordinary, 0, ordinary.codes.length)];
          continue;
        }
        for (const [first, last] of this.scheme.split(ordinary, inList)) {
          yield [this.scheme.ids(ordinary.codes.slice(first, last)), spanOf(ordinary, first, last)];
        }
      }
    }
  }
}

function push(tokens: Tokens, id: number, side: Side, word: number | null, span: readonly [number, number]): void {
  tokens.ids.push(id);
  tokens.sides.push(side);
  tokens.words.push(word);
  tokens.spans.push(span);
}

/** The stretch of the original of some characters, without spaces around it: byte-level words begin with one. */
function spanOf({ codes, starts, ends }: unicode.Characters, from: number, to: number): [number, number] {
  let first = from;
  let last = to;
  while (first < last && unicode.isBlank(codes[first] as number)) ++first;
  while (first < last && unicode.isBlank(codes[last - 1] as number)) --last;
  return first < last ? [starts[first] as number, ends[last - 1] as number] : [0, 0];
}

function readScheme(file: JsonRecord): Scheme {
  const model = file.record("model").text("type");
  const splitter = isSet(file, "pre_tokenizer") ? file.record("pre_tokenizer").text("type") : "null";
  if (model === "WordPiece" && splitter === "BertPreTokenizer") return new WordPiece(file);
  if (model === "BPE" && splitter === "ByteLevel") return new ByteLevel(file);
  throw new BundleError(
    `${file.where} has the model ${shown(model)} and the pre_tokenizer ${shown(splitter)}, ` +
      "expected WordPiece and BertPreTokenizer, or BPE and ByteLevel",
    "tokenise elsewhere and run ids",
  );
}

function readTemplates(file: JsonRecord): Templates {
  if (!isSet(file, "post_processor")) return PLAIN;
  const processor = file.record("post_processor");
  const type = processor.text("type");
  if (type === "TemplateProcessing") return readTemplateProcessing(processor);
  if (type === "ByteLevel") return PLAIN;
  if (type !== "BertProcessing" && type !== "RobertaProcessing") {
    throw new BundleError(
      `${processor.where} is ${shown(type)}, expected TemplateProcessing, BertProcessing, RobertaProcessing or ByteLevel`,
    );
  }
  const start = namedToken(processor, "cls");
  const end = namedToken(processor, "sep");
  const single = [special(0, start), text(0, 0), special(0, end)];
  return type === "BertProcessing"
    ? { single, pair: [...single, text(1, 1), special(1, end)] }
    : { single, pair: [special(0, start), text(0, 0), special(0, end, end), text(1, 0), special(0, end)] };
}

/** `sep` and `cls` of the processors from before there were templates: a token and its id. */
function namedToken(processor: JsonRecord, key: string): number {
  const values = processor.integersOrTexts(key);
  if (values.length !== 2) {
    throw new BundleError(`${processor.where}: ${key} is ${quoted(values)}, expected a token and its id`);
  }
  return checkedId(processor, values[1], key);
}

function readTemplateProcessing(processor: JsonRecord): Templates {
  const specials = new Map<string, number[]>();
  for (const [name, token] of processor.namedRecords("special_tokens")) {
    specials.set(name, token.integers("ids").map((id) => checkedId(token, id, "an id")));
  }
  const read = (key: string, texts: string): Place[] => {
    let found = "";
    const places = processor.records(key).map((each) => {
      if (each.has("Sequence")) {
        const sequence = each.record("Sequence");
        found += sequence.text("id");
        return text(sequence.text("id") === "A" ? 0 : 1, checkedId(sequence, sequence.integer("type_id"), "type_id"));
      }
      const token = each.record("SpecialToken");
      const ids = specials.get(token.text("id"));
      if (!ids) throw new BundleError(`${token.where} is ${quoted(token.text("id"))}, expected one of special_tokens`);
      return special(checkedId(token, token.integer("type_id"), "type_id"), ...ids);
    });
    if ([...found].sort().join("") !== texts) {
      throw new BundleError(`${processor.where}: ${key} has the texts ${quoted(found)}, expected each once`);
    }
    return places;
  };
  return { single: read("single", "A"), pair: read("pair", "AB") };
}
