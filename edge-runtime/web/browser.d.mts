import type { LoadOptions, Model, ServeOptions } from './types.d.mts';
import type { Inputs, Outputs } from './model.d.mts';

export type { Inputs, Outputs, LoadOptions, ServeOptions };
export function load(options?: LoadOptions & { base?: string | URL }): Promise<Model<Inputs, Outputs>>;
export function fetchHandler(options?: ServeOptions & { base?: string | URL }): (request: Request) => Promise<Response>;
