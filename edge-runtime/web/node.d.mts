import type { Server } from 'node:http';
import type { LoadOptions, Model, ServeOptions } from './types.d.mts';
import type { Inputs, Outputs } from './model.d.mts';

export type { Inputs, Outputs, LoadOptions, ServeOptions };
export function load(options?: LoadOptions): Promise<Model<Inputs, Outputs>>;
export function fetchHandler(options?: ServeOptions): (request: Request) => Promise<Response>;
export function serve(options?: ServeOptions & { host?: string; port?: number }): Promise<Server>;
