// The worker's side of WorkerSession: one session, which does what the page asks for.

import { fromPlain, toPlain } from "./errors.js";
import { BiasSession } from "./session.js";
import type { LoadOptions, OpenOptions, PredictOptions, RunInputs } from "./session_types.js";
import type { CallMessage, FromWorker, TaskChanges, ToWorker } from "./worker_messages.js";

const scope = globalThis as unknown as { postMessage(message: FromWorker): void; onmessage: (event: MessageEvent<ToWorker>) => void };
const calls = new Map<number, AbortController>();
let session: BiasSession | undefined;

scope.onmessage = ({ data }) => {
  if ("abort" in data) calls.get(data.id)?.abort(fromPlain(data.abort));
  else void answer(data);
};

async function answer(message: CallMessage): Promise<void> {
  const { id } = message;
  const controller = new AbortController();
  calls.set(id, controller);
  try {
    const [value, changes] = await perform(message, controller.signal);
    scope.postMessage({ id, value, changes });
  } catch (error) {
    scope.postMessage({ id, error: toPlain(error) });
  } finally {
    calls.delete(id);
  }
}

async function perform({ id, call, args }: CallMessage, signal: AbortSignal): Promise<[unknown, TaskChanges]> {
  if (call === "open") {
    const [source, options, ortAddress] = args as [string, OpenOptions, string];
    const ort = await import(/* webpackIgnore: true */ /* @vite-ignore */ ortAddress);
    session = await BiasSession.open(source, {
      ...options,
      ort,
      signal,
      onProgress: (progress) => scope.postMessage({ id, progress }),
    });
    const opened = session;
    return [opened.manifest, opened.tasks.map((name) => [name, opened.labels(name)])];
  }
  const own = session as BiasSession; // a page has none before it is open
  switch (call) {
    case "loadTask": {
      const [row, options] = args as [Blob, LoadOptions];
      const name = await own.loadTask(row, { ...options, signal });
      return [name, [[name, own.labels(name)]]];
    }
    case "unloadTask": {
      const [name] = args as [string];
      own.unloadTask(name);
      return [undefined, [[name, null]]];
    }
    case "run":
    case "runOutputs": {
      const [task, inputs] = args as [string, RunInputs];
      return [await own[call](task, { ...inputs, signal }), []];
    }
    case "predict": {
      const [texts, task, options] = args as [string, string, PredictOptions];
      return [await own.predict(texts, task, { ...options, signal }), []];
    }
    case "encode":
      return [own.encode(...(args as Parameters<BiasSession["encode"]>)), []];
    case "close":
      return [await own.close(), []];
  }
}
