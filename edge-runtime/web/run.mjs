// A command-line driver: reads a job (see job.mjs) as JSON from stdin, writes the outputs as JSON to stdout.

import { readFile } from 'node:fs/promises';
import { runJob } from './job.mjs';

let text = '';
for await (const chunk of process.stdin) text += chunk;
const result = await runJob(JSON.parse(text), readFile, (step, line) => process.stderr.write(`${step}: ${line}\n`));
process.stdout.write(JSON.stringify(result) + '\n');
