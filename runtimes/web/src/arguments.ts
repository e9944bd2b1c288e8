// Checks of what a caller passes besides arrays and texts: task names, label names, numbers.

import { InputError, UsageError } from "./errors.js";
import { isName } from "./record.js";
import type { BiasRow } from "./row.js";
import { quoted, shown } from "./shown.js";
import { TASK_NAME } from "./spec.js";

const INT_MAX = 2 ** 31 - 1;

/** Task names as a list; a list must have `items` of them, where that is given. */
export function asNames(task: string | readonly string[], items?: number): string[] {
  if (typeof task === "string") return [task];
  if (!Array.isArray(task)) {
    throw new InputError(`the task is ${quoted(task)}, expected the name of a loaded task, or a list of names`);
  }
  const wrong = task.findIndex((name) => typeof name !== "string");
  if (wrong >= 0) throw new InputError(`a task is ${quoted(task[wrong])}, expected the name of a loaded task`);
  if (items !== undefined && task.length !== items) {
    throw new InputError(`there are ${task.length} tasks for ${items} items, expected one task, or one for each item`);
  }
  return [...task];
}

export function checkName(name: string): string {
  if (typeof name !== "string" || !TASK_NAME.test(name)) {
    throw new InputError(`the task name is ${quoted(name)}, expected letters, digits, '.', '_' or '-'`);
  }
  return name;
}

export function checkLabels(name: string, row: BiasRow, labels: readonly string[]): readonly string[] {
  const count = row.problemType === "regression" ? 0 : row.labels;
  if (!Array.isArray(labels) || labels.length !== count || !labels.every(isName) || new Set(labels).size !== count) {
    throw new InputError(`the labels of ${shown(name)} are ${quoted(labels)}, expected ${count} different names`);
  }
  return labels;
}

export function checkPositive(what: string, value: number): void {
  if (!Number.isInteger(value) || value < 1) throw new UsageError(`${what} is ${quoted(value)}, expected 1 or more`);
  if (value > INT_MAX) throw new UsageError(`${what} is ${value}, expected at most ${INT_MAX}`);
}
