// Tokenises texts, for the tests that compare the ids with Python's: a tokenizer.json, and JSON texts on stdin.

import { readFileSync } from "node:fs";
import { asItems, Tokenizer } from "../../build/internals.js";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const tokenizer = new Tokenizer(new Uint8Array(readFileSync(process.argv[2])));
const found = asItems(JSON.parse(Buffer.concat(chunks).toString())).map(({ first, second }) => tokenizer.encode(first, second));
process.stdout.write(JSON.stringify(found.map(({ ids, words, spans }) => ({ ids, words, spans }))));
