// What the tests of parts need and the package does not export.

export * from "../src/answers.js";
export * from "../src/batches.js";
export * from "../src/digests.js";
export * from "../src/errors.js";
export * from "../src/json.js";
export * from "../src/jsonl.js";
export * from "../src/layout.js";
export * from "../src/manifest.js";
export * from "../src/onnx_file.js";
export * from "../src/record.js";
export * from "../src/row.js";
export * from "../src/shown.js";
export * from "../src/signatures.js";
export * from "../src/spec.js";
export { TextEncoder as Encoder, asItems } from "../src/text/encoder.js";
export * from "../src/text/tokenizer.js";
export * from "../src/tasks.js";
