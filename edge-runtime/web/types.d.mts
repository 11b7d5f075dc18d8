// Types of the loader. model.d.mts has those of one artifact.

/** The array that holds the elements of a type; FP16, BF16 and smaller ones as their bits. */
export interface Arrays {
  f32: Float32Array; f64: Float64Array; i8: Int8Array; i16: Int16Array; i32: Int32Array; i64: BigInt64Array;
  u8: Uint8Array; u16: Uint16Array; u32: Uint32Array; u64: BigUint64Array; bool: Uint8Array; f16: Uint16Array; bf16: Uint16Array;
  f8e4m3fn: Uint8Array; f8e4m3fnuz: Uint8Array; f8e5m2: Uint8Array; f8e5m2fnuz: Uint8Array; f8e8m0: Uint8Array;
  u4: Uint8Array; i4: Uint8Array; f4e2m1: Uint8Array; u2: Uint8Array; i2: Uint8Array;
}

/** A tensor, row-major. Strings that are not UTF-8 are given as their bytes. */
export type Tensor<D extends keyof Arrays | 'string' = keyof Arrays | 'string'> = D extends keyof Arrays
  ? { kind?: 'tensor'; dtype: D; shape: number[]; data: Arrays[D] }
  : { kind?: 'tensor'; dtype: 'string'; shape: number[]; strings: (string | Uint8Array)[] };

/** A sequence of values, an optional of at most one, or a map as its keys and its values. */
export interface Composite<K extends 'sequence' | 'optional' | 'map' = 'sequence' | 'optional' | 'map'> {
  kind: K;
  dtype?: string;
  elems: Value[];
}

export type Value = Tensor | Composite;

/** A loaded model. Calls are answered one after the other. */
export interface Model<I, O> {
  readonly iface: Record<string, unknown>;
  /** run fails with an Error whose kind is 'input', 'memory' or 'crash' where one of these is the cause. */
  run(inputs: I, options?: { signal?: AbortSignal }): Promise<O>;
}

export interface LoadOptions {
  /** The digest of the artifact that is wanted; any other is refused. */
  digest?: string;
  /** Run the golden vectors before the first answer. */
  prove?: boolean;
  /** Bytes of linear memory, below what the artifact itself allows. */
  maxMemory?: number;
  /** Takes what steps write. */
  log?: (step: string, line: string) => void;
}

export interface ServeOptions extends Omit<LoadOptions, 'log'> {
  maxBody?: number;
  maxQueue?: number;
  log?: (line: string) => void;
}
