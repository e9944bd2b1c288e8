// bitfit-runtime: many BitFit tasks on one cached model, in browsers and in Node.

export type { Answer, Prediction, WordLabel } from "./answers.js";
export { BitfitError, BundleError, InputError, RowError, SignatureError, UsageError } from "./errors.js";
export { type BundleSource, clearCache, type FileSource, type Progress } from "./files.js";
export { type Line, readLines } from "./jsonl.js";
export type { Layout } from "./layout.js";
export { type Manifest, readManifest } from "./manifest.js";
export { type BiasRow, decodeRow } from "./row.js";
export { BiasSession } from "./session.js";
export type {
  EncodedTexts, EncodeOptions, Found, FoundList, LoadOptions, OpenOptions, PredictOptions, RunInputs, Session,
} from "./session_types.js";
export type { SignatureFault } from "./errors.js";
export type { PublicKey } from "./signatures.js";
export type { ProblemType, RowFault } from "./spec.js";
export type { FloatTensor, TextInputs } from "./tensors.js";
export type { Question, Text, TextPair, Words } from "./text/encoder.js";
export { type WorkerOptions, WorkerSession } from "./worker_session.js";
