// Answers questions, for the tests that compare them with Python's: a bundle, and JSON on stdin.
//
//   {"texts": [...], "tasks": [...], "options": {...}}  ->  the answers, as JSON on stdout

import { BiasSession } from "../../dist/index.js";

const chunks = [];
for await (const chunk of process.stdin) chunks.push(chunk);
const { texts, tasks, options } = JSON.parse(Buffer.concat(chunks).toString());
const session = await BiasSession.open(process.argv[2], { threads: 1 });
process.stdout.write(JSON.stringify(await session.predict(texts, tasks, options)));
await session.close();
