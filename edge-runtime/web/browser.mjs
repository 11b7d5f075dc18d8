// The bundle in a browser, Deno or Bun: import { load } from 'https://.../browser.mjs'. Its files are fetched from beside it.

import facts from './artifact.mjs';
import { openBundle } from './bundle.mjs';
import { handler } from './v2.mjs';

const reader = (base) => async (file) => {
  const res = await fetch(new URL(file, base));
  if (!res.ok) throw new Error(`${file}: ${res.status} ${res.statusText}`);
  return new Uint8Array(await res.arrayBuffer());
};

/** load opens the model. digest: refuse any other artifact; prove: run its golden vectors first; maxMemory: bytes; base: where the files are. */
export async function load({ base = import.meta.url, ...options } = {}) {
  return (await openBundle({ ...options, facts, read: reader(base) })).model;
}

/** fetchHandler answers the Open Inference Protocol, for a service worker: a function from a Request to a promise of a Response. */
export function fetchHandler({ base = import.meta.url, maxBody, maxQueue, log, ...options } = {}) {
  const open = () => openBundle({ prove: Boolean(facts.golden), ...options, facts, read: reader(base) });
  return handler({ ...facts, open, maxBody, maxQueue, log });
}
