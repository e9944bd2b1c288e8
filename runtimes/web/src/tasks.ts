// The loaded tasks. A row's values are made once, when it is loaded, and never change, so a switch of task is another array
// for the next run. Runs that have begun keep the rows that they began with.
//
// The frozen model reads a table of rows, and each item of a batch says which of them is its own. onnxruntime-web copies
// its inputs for every run, so the table of a run has the rows of its own tasks alone: a run takes as long with a thousand
// loaded tasks as with one.

import { InputError } from "./errors.js";
import { type Layout, product, resolve } from "./layout.js";
import type { BiasRow, HeadTensor } from "./row.js";
import { quoted } from "./shown.js";
import { BIAS_TABLE, LOGITS, PACKED_BIAS, type ProblemType, TASK_IDS, TOKEN_LOGITS } from "./spec.js";
import type { FloatTensor, IntTensor } from "./tensors.js";

/** A loaded row. */
export interface LoadedTask {
  readonly name: string;
  readonly problemType: ProblemType;
  /** In id order; empty for a regression. */
  readonly labels: readonly string[];
  /** The number of head outputs. */
  readonly labelCount: number;
  readonly taskVersion: number;
  /** The graph output that the task's answers are in. */
  readonly output: string;
  readonly row: BiasRow;
}

export type Feeds = Record<string, FloatTensor | IntTensor>;

/** How many names a message lists. */
const NAMES_SHOWN = 10;

export class TaskStore {
  private readonly loaded = new Map<string, LoadedTask>();
  private readonly single = new WeakMap<LoadedTask, Feeds>();

  /**
   * @param layoutKind how biases enter the graph.
   * @param labels the number of labels that the graph's head inputs have, where it is fixed.
   */
  constructor(
    private readonly layout: Layout,
    private readonly layoutKind: "table" | "packed" | "named",
    private readonly labels: number | undefined,
  ) {}

  /** Whether one run can serve items of different tasks. */
  get mixesTasks(): boolean {
    return this.layoutKind === "table";
  }

  /** The names of the loaded tasks, in the order in which they came first. */
  get names(): string[] {
    return [...this.loaded.keys()];
  }

  find(name: string): LoadedTask | undefined {
    return this.loaded.get(name);
  }

  get(name: string): LoadedTask {
    const task = this.loaded.get(name);
    if (task) return task;
    const names = this.names.sort();
    if (!names.length) throw new InputError(`the task ${quoted(name)} is not loaded, and no other is`);
    const more = names.length > NAMES_SHOWN ? ` and ${names.length - NAMES_SHOWN} more` : "";
    throw new InputError(
      `the task ${quoted(name)} is not loaded, expected one of ${names.slice(0, NAMES_SHOWN).join(", ")}${more}`,
    );
  }

  add(row: BiasRow, name: string, labels: readonly string[]): LoadedTask {
    const old = this.loaded.get(name);
    if (old && row.taskVersion < old.taskVersion) {
      throw new InputError(
        `the task ${name} has version ${row.taskVersion}, expected ${old.taskVersion} or more, the version that is loaded`,
        { hint: "unload the task first to go back to an older version" },
      );
    }
    const { problemType, labels: labelCount, taskVersion } = row;
    const output = problemType === "token" || problemType === "span" ? TOKEN_LOGITS : LOGITS;
    const task = { name, problemType, labels: [...labels], labelCount, taskVersion, output, row };
    this.loaded.set(name, task);
    return task;
  }

  remove(name: string): void {
    this.get(name);
    this.loaded.delete(name);
  }

  clear(): void {
    this.loaded.clear();
  }

  /**
   * Returns the graph inputs that bring biases and heads.
   *
   * @param tasks the task of each item, or the one task of all.
   * @throws InputError: the items have different tasks, and the layout runs one at a time.
   */
  feeds(tasks: readonly LoadedTask[]): Feeds {
    const distinct = [...new Set(tasks)] as [LoadedTask, ...LoadedTask[]];
    const [first, second] = distinct;
    if (second && !this.mixesTasks) {
      throw new InputError(
        `the items of the batch have the tasks ${first.name} and ${second.name}, expected one task: ` +
          "the bundle's layout runs one at a time",
        { hint: "export the bundle with --layout table to mix tasks in a batch" },
      );
    }
    if (second) return this.tableOf(distinct, tasks);
    let feeds = this.single.get(first);
    if (!feeds) {
      feeds = this.mixesTasks ? this.tableOf([first], [first]) : this.ownInputs(first.row);
      this.single.set(first, feeds);
    }
    return feeds;
  }

  /** A table of some rows, and the place of each item's own. */
  private tableOf(distinct: readonly LoadedTask[], tasks: readonly LoadedTask[]): Feeds {
    const rows = distinct.map((task) => task.row);
    const labels = Math.max(...rows.map((row) => row.labels));
    const places = new Map(distinct.map((task, place) => [task, BigInt(place)]));
    const ids = BigInt64Array.from(tasks, (task) => places.get(task) as bigint);
    const feeds: Feeds = {
      [TASK_IDS]: { data: ids, dims: [tasks.length] },
      [BIAS_TABLE]: { data: joined(rows.map((row) => row.biases)), dims: [rows.length, this.layout.biasCount] },
    };
    this.layout.head.forEach((entry, index) => {
      const shape = resolve(entry, labels);
      const parts = rows.map((row) => filled(row.head[index] as HeadTensor, shape));
      feeds[entry.name] = { data: joined(parts), dims: [rows.length, ...shape] };
    });
    return feeds;
  }

  /** The inputs of a graph that runs one task at a time. */
  private ownInputs(row: BiasRow): Feeds {
    const feeds: Feeds = {};
    if (this.layoutKind === "packed") feeds[PACKED_BIAS] = { data: row.biases, dims: [row.biases.length] };
    else {
      for (const { name, shape, offset } of this.layout.biases) {
        feeds[name] = { data: row.biases.slice(offset, offset + product(shape)), dims: shape };
      }
    }
    this.layout.head.forEach((entry, index) => {
      const shape = resolve(entry, this.labels ?? row.labels);
      feeds[entry.name] = { data: filled(row.head[index] as HeadTensor, shape), dims: shape };
    });
    return feeds;
  }
}

/** The values of one array after those of another; a single array as it is. */
function joined(parts: readonly Float32Array<ArrayBuffer>[]): Float32Array<ArrayBuffer> {
  const [first] = parts as [Float32Array<ArrayBuffer>];
  if (parts.length === 1) return first;
  const values = new Float32Array(parts.length * first.length);
  parts.forEach((part, index) => values.set(part, index * first.length));
  return values;
}

/** Zeros of this shape with the tensor's values at the start of each dimension; a tensor that has the shape as it is. */
function filled(tensor: HeadTensor, shape: readonly number[]): Float32Array<ArrayBuffer> {
  const { values } = tensor;
  const size = product(shape);
  if (values.length === size) return values;
  const zeros = new Float32Array(size);
  const [rows = 0, ...inner] = tensor.shape;
  const found = product(inner);
  const wanted = product(shape.slice(1));
  if (inner.every((each, axis) => each === shape[axis + 1])) zeros.set(values); // fewer rows, or none
  else if (inner.length === 1) {
    for (let row = 0; row < rows; ++row) zeros.set(values.subarray(row * found, (row + 1) * found), row * wanted);
  } else {
    for (let row = 0; row < rows; ++row) {
      const part = { shape: inner, values: values.subarray(row * found, (row + 1) * found) as Float32Array<ArrayBuffer> };
      zeros.set(filled(part, shape.slice(1)), row * wanted);
    }
  }
  return zeros;
}
