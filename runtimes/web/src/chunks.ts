// Texts to sequences that the model can run, and the model's outputs to answers: what each kind of task does with both. A
// text of a sentence or token task is one chunk. The context of a span task is one for each window.

import { type Answer, bestAnswers, findAnswers, labelWords, rankLabels, type Result } from "./answers.js";
import { InputError } from "./errors.js";
import { TOKEN_LOGITS } from "./spec.js";
import type { LoadedTask } from "./tasks.js";
import type { Item, TextEncoder } from "./text/encoder.js";
import type { Tokens } from "./text/tokenizer.js";

/** A sequence to run, and the place of the text that it comes from. */
export interface Chunk {
  readonly item: number;
  readonly tokens: Tokens;
}

type Kind = "sentence" | "token" | "span";

/** What a text of each kind of task is, as forms and in words. */
const TEXTS: Readonly<Record<Kind, readonly [readonly Item["form"][], string]>> = {
  sentence: [["text", "pair"], "one text or a pair of texts"],
  token: [["text", "words"], "one text or a list of words"],
  span: [["pair"], "a pair of a question and a context"],
};
const FORMS = { text: "one text", pair: "a pair of texts", words: "a list of words" };

/** Tokenises each text for its task. */
export function cutChunks(
  encoder: TextEncoder,
  items: readonly Item[],
  tasks: readonly LoadedTask[],
  maxLength: number | undefined,
  truncate: boolean,
): Chunk[] {
  const places: Record<Kind, number[]> = { sentence: [], token: [], span: [] };
  items.forEach((item, place) => {
    const task = tasks[place] as LoadedTask;
    const kind = task.problemType === "token" || task.problemType === "span" ? task.problemType : "sentence";
    const [forms, words] = TEXTS[kind];
    if (!forms.includes(item.form)) {
      throw new InputError(`is ${FORMS[item.form]}, expected ${words} for the task ${task.name}`, { item: place });
    }
    places[kind].push(place);
  });
  const chunks: Chunk[] = [];
  for (const kind of ["sentence", "token", "span"] as const) {
    const chosen = places[kind];
    const own = chosen.map((place) => items[place] as Item);
    const found = numbered(chosen, () =>
      kind === "span" ? encoder.windows(own, maxLength) : encoder.tokenize(own, maxLength, truncate).map((each) => [each]),
    );
    found.forEach((windows, index) => {
      const item = chosen[index] as number;
      if (windows.some((tokens) => !tokens.ids.length)) throw new InputError("has no token, expected at least one", { item });
      for (const tokens of windows) chunks.push({ item, tokens });
    });
  }
  return chunks;
}

/**
 * Returns the result of one chunk.
 *
 * @param values the task's output: [labels], or [tokens and padding, labels] for a token or span task.
 * @param width how many labels `values` has for each token.
 * @throws InputError: logits that are not numbers, which no answer can be made of.
 */
export function readChunk(
  task: LoadedTask,
  chunk: Chunk,
  item: Item,
  values: Float32Array,
  width: number,
  answers: number,
  maxTokens: number,
): Result {
  const { tokens } = chunk;
  const rows = task.output === TOKEN_LOGITS ? tokens.ids.length : 1;
  const logits = ownColumns(values, rows, width, task.labelCount);
  if (!logits.every(Number.isFinite)) {
    throw new InputError(`has logits that are not finite numbers from the task ${task.name}`, {
      item: chunk.item,
      hint: `its biases may be too large for the model; bitfit verify compares the task ${task.name} with PyTorch`,
    });
  }
  if (task.output !== TOKEN_LOGITS) return rankLabels(task, logits);
  if (task.problemType === "token") return labelWords(task, logits, tokens, item.first);
  return findAnswers(logits, tokens, item.second as string, maxTokens, answers);
}

/** One result of those of a text's chunks: words in order, everything else best first. */
export function joinResults(task: LoadedTask, results: readonly Result[]): Result {
  return task.problemType === "span" ? bestAnswers(results.flat() as Answer[]) : (results[0] as Result);
}

/** Errors about an item of a part of the texts name it by its place among all of them. */
function numbered<Value>(places: readonly number[], call: () => Value): Value {
  try {
    return call();
  } catch (error) {
    if (!(error instanceof InputError) || error.item === undefined) throw error;
    throw new InputError(error.found, { item: places[error.item], hint: error.hint });
  }
}

/** The first columns of the first rows of [.., width]. */
export function ownColumns(values: Float32Array, rows: number, width: number, columns: number): Float32Array {
  if (width === columns) return values.subarray(0, rows * width);
  const own = new Float32Array(rows * columns);
  for (let row = 0; row < rows; ++row) own.set(values.subarray(row * width, row * width + columns), row * columns);
  return own;
}
