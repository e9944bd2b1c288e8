// The files of a bundle that a session runs, read and compared with the manifest.

import { asNames } from "./arguments.js";
import { BundleError, COPY_AGAIN, InputError } from "./errors.js";
import { BundleFiles, type BundleSource, type ReadOptions } from "./files.js";
import { type FileRecord, inferProgram, type Manifest, readManifest, type TaskRecord } from "./manifest.js";
import { type BiasRow, decodeRow } from "./row.js";
import { quoted } from "./shown.js";
import type { TrustedKeys } from "./signatures.js";
import { MANIFEST_FILE, MAX_MODEL_SIZE, MAX_TOKENIZER_SIZE, TOKENIZER_FILE } from "./spec.js";

/** Rows that are downloaded beside each other. */
const DOWNLOADS = 8;

export interface OpenedBundle {
  readonly manifest: Manifest;
  /** The bytes of the model, its weights and its tokenizer, by their paths. */
  readonly contents: ReadonlyMap<string, Uint8Array<ArrayBuffer>>;
  /** The tasks to load, each with its row. */
  readonly tasks: readonly (readonly [TaskRecord, BiasRow])[];
  /** Keeps the manifest for openings without a network, once everything else is kept. */
  finish(): Promise<void>;
}

/**
 * Reads a bundle.
 *
 * @param wanted the tasks to load; by default all.
 * @throws BundleError: a file that is missing, or differs from the manifest; RowError, if it is a row; SignatureError, if no
 *   trusted key has signed it.
 * @throws InputError: a task that the bundle lacks.
 */
export async function openBundle(
  source: BundleSource,
  wanted: readonly string[] | undefined,
  options: ReadOptions,
  trusted?: TrustedKeys,
): Promise<OpenedBundle> {
  const files = await BundleFiles.of(source, options);
  const data = await files.manifest();
  await trusted?.check(data, await files.signature(MANIFEST_FILE), MANIFEST_FILE);
  const manifest = await readManifest(data);
  refuseUnknown(manifest);
  const records = chooseRecords(manifest, wanted);
  const needed = neededFiles(manifest);
  for (const [, record] of needed) files.expect(record.size);
  const contents = new Map<string, Uint8Array<ArrayBuffer>>();
  const reading = needed.map(async ([path, record]) => {
    contents.set(path, await files.recorded(path, record, limitOf(path, manifest), manifest));
  });
  const [rows] = await Promise.all([readRows(files, records, manifest, trusted), ...reading]);
  options.signal?.throwIfAborted();
  const tasks = records.map((record, index) => [record, rows[index] as BiasRow] as const);
  return { manifest, contents, tasks, finish: () => files.finish(data) };
}

function refuseUnknown(manifest: Manifest): void {
  if (manifest.modality !== "text") {
    throw new BundleError(`the bundle's model reads ${manifest.modality}, expected one that reads text`);
  }
  if (manifest.overridable) {
    throw new BundleError(
      "the bundle's biases are inputs with defaults, which onnxruntime-web does not take",
      "export the bundle without --overridable",
    );
  }
  if (manifest.acceleratorFiles.length) {
    throw new BundleError(
      `the bundle was compiled ahead of time for ${manifest.target}, which no browser runs`,
      "export the bundle with --target ort",
    );
  }
  if (manifest.prepacked) {
    throw new BundleError(
      "the bundle's weights are stored as another kind of processor wants them",
      "export the bundle without --prepack",
    );
  }
}

function chooseRecords(manifest: Manifest, tasks: readonly string[] | undefined): TaskRecord[] {
  if (tasks === undefined) return [...manifest.tasks.values()];
  return [...new Set(asNames(tasks))].map((name) => {
    const record = manifest.tasks.get(name);
    if (record) return record;
    const known = [...manifest.tasks.keys()].sort().join(", ") || "none";
    throw new InputError(`the bundle has no task ${quoted(name)}, expected one of ${known}`);
  });
}

/** All files but the graphs of other programs, which run nothing here. */
function neededFiles(manifest: Manifest): [string, FileRecord][] {
  const infer = inferProgram(manifest).file;
  const graphs = new Set([...manifest.programs.values()].map((program) => program.file));
  return [...manifest.files].filter(([path]) => path === infer || !graphs.has(path));
}

function limitOf(path: string, manifest: Manifest): number {
  if (path === TOKENIZER_FILE) return MAX_TOKENIZER_SIZE;
  return path === inferProgram(manifest).file ? MAX_MODEL_SIZE : Number.MAX_SAFE_INTEGER;
}

/** The bundle's rows, which must be those that the manifest records. */
async function readRows(
  files: BundleFiles,
  records: readonly TaskRecord[],
  manifest: Manifest,
  trusted: TrustedKeys | undefined,
): Promise<BiasRow[]> {
  const rows: BiasRow[] = [];
  let next = 0;
  const readOn = async (): Promise<void> => {
    for (let index = next++; index < records.length; index = next++) {
      const record = records[index] as TaskRecord;
      const data = await files.row(record.file, record.sha256);
      await trusted?.check(data, await files.signature(record.file), record.file);
      const row = decodeRow(data, manifest.layout, record.file);
      const found = `${row.task} (${row.problemType}, ${row.labels} labels, version ${row.taskVersion})`;
      const expected = `${record.name} (${record.problemType}, ${record.labelCount} labels, version ${record.taskVersion})`;
      if (found !== expected) throw new BundleError(`${record.file} is the row ${found}, expected ${expected}`, COPY_AGAIN);
      rows[index] = row;
    }
  };
  await Promise.all(Array.from({ length: DOWNLOADS }, readOn));
  return rows;
}
