// The bundle as a module Worker, in Cloudflare Workers or anywhere else where workerd runs. The generated worker.mjs hands
// in what such a host loads by static imports only: text (JSON files), data (weights) and compiled modules.

import { openBundle } from './bundle.mjs';
import { handler } from './v2.mjs';

/** worker makes the default export of a Worker. The model is loaded, and proven, at the first request that needs it. */
export function worker({ facts, text, data, compiled, maxMemory, maxBody }) {
  const read = async (file) => (Object.hasOwn(text, file) ? new TextEncoder().encode(text[file]) : new Uint8Array(data[file]));
  const log = (line) => console.error(line);
  const handle = handler({ ...facts, open: () => openBundle({ facts, read, compiled, maxMemory, log: (step, line) => log(`${step}: ${line}`) }), maxBody, log });
  return { fetch: (request) => handle(request) };
}
