// Logits to what a Hugging Face pipeline returns: for texts, for their words, and for spans of them.

import type { LoadedTask } from "./tasks.js";
import { standsForText } from "./text/encoder.js";
import type { Tokens } from "./text/tokenizer.js";

/** A label and its probability; a regression has no label, and its score is the value itself. */
export interface Prediction {
  label?: string;
  score: number;
}

/** A word, its label with the label's probability, and where it is: `text.slice(start, end)`. */
export interface WordLabel {
  word: string;
  label: string;
  score: number;
  start: number;
  end: number;
}

/** A part of a context, its probability, and where it is: `context.slice(start, end)`. */
export interface Answer {
  answer: string;
  score: number;
  start: number;
  end: number;
}

export type Result = Prediction[] | WordLabel[] | Answer[];

type TaskInfo = Pick<LoadedTask, "problemType" | "labels">;

/** The task's labels with their scores, best first; equal scores keep the order of the labels. */
export function rankLabels(task: TaskInfo, logits: Float32Array): Prediction[] {
  if (task.problemType === "regression") return [{ score: logits[0] as number }];
  const scores = task.problemType === "multi_label" ? Array.from(logits, sigmoid) : softmax(logits);
  return bestFirst(scores).map((index) => ({ label: task.labels[index] as string, score: scores[index] as number }));
}

/**
 * Each word with the label of its first token, in order. A word that has no token is left out.
 *
 * @param logits [tokens, labels].
 * @param text that the tokens come from, or the list of its words.
 */
export function labelWords(task: TaskInfo, logits: Float32Array, tokens: Tokens, text: string | readonly string[]): WordLabel[] {
  const labels = task.labels.length;
  const found: WordLabel[] = [];
  let before: number | null = null;
  tokens.words.forEach((word, place) => {
    const [start, end] = tokens.spans[place] as readonly [number, number];
    if (word !== null && word !== before && start < end) {
      const scores = softmax(logits.subarray(place * labels, (place + 1) * labels));
      const best = scores.indexOf(Math.max(...scores));
      const own = typeof text === "string" ? text.slice(start, end) : (text[word] as string);
      found.push({ word: own, label: task.labels[best] as string, score: scores[best] as number, start, end });
    }
    before = word;
  });
  return found;
}

/**
 * The most likely spans of one window of a context, best first. A score is the product of two probabilities, that the first
 * token starts the answer and that the last one ends it, over the context's tokens and the special token before the
 * question, which stands for "no answer" and is never one. An answer begins and ends with whole words.
 *
 * @param logits [tokens, 2], for start and end.
 * @param maxTokens the longest answer.
 * @param count how many different answers to return, if there are as many.
 */
export function findAnswers(logits: Float32Array, tokens: Tokens, context: string, maxTokens: number, count: number): Answer[] {
  const places = [...tokens.sides.keys()].filter((place) => tokens.sides[place] === 1);
  const counted = tokens.sides[0] === null ? [0, ...places] : places;
  const [start, end] = [0, 1].map((column) =>
    softmax(counted.map((place) => logits[2 * place + column] as number)).slice(counted.length - places.length),
  ) as [number[], number[]];
  const candidates: { score: number; first: number; last: number }[] = [];
  places.forEach((place, first) => {
    if (!standsForText(tokens, place, 1)) return;
    for (let last = first; last < Math.min(first + maxTokens, places.length); ++last) {
      if (!standsForText(tokens, places[last] as number, 1)) continue;
      candidates.push({ score: (start[first] as number) * (end[last] as number), first, last });
    }
  });
  candidates.sort((left, right) => right.score - left.score);
  const found = new Map<string, Answer>();
  for (const { score, first, last } of candidates) {
    const [begin] = tokens.spans[places[first] as number] as readonly [number, number];
    const [, stop] = tokens.spans[places[last] as number] as readonly [number, number];
    const key = `${begin}-${stop}`;
    if (!found.has(key)) found.set(key, { answer: context.slice(begin, stop), score, start: begin, end: stop });
    if (found.size === count) break;
  }
  return [...found.values()];
}

/** The answers of all windows of a context, best first; one that several windows have counts once. */
export function bestAnswers(answers: readonly Answer[]): Answer[] {
  const sorted = [...answers].sort((left, right) => right.score - left.score || left.start - right.start || left.end - right.end);
  const found = new Map<string, Answer>();
  for (const answer of sorted) {
    const key = `${answer.start}-${answer.end}`;
    if (!found.has(key)) found.set(key, answer);
  }
  return [...found.values()];
}

function bestFirst(scores: readonly number[]): number[] {
  return [...scores.keys()].sort((left, right) => (scores[right] as number) - (scores[left] as number));
}

function softmax(values: ArrayLike<number>): number[] {
  let most = Number.NEGATIVE_INFINITY;
  for (let index = 0; index < values.length; ++index) most = Math.max(most, values[index] as number);
  const powers = Array.from(values, (value) => Math.exp(value - most));
  const all = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / all);
}

/** 1 / (1 + exp(-x)), in a form that does not overflow. */
function sigmoid(value: number): number {
  return 0.5 * (1 + Math.tanh(0.5 * value));
}
