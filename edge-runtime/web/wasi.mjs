// The frozen set of host functions that user steps may import: the same as edge-runtime/engine/hostfuncs.go, function by
// function, so that a step gives the same bits here. docs/abi.md lists it.

import { sha256 } from './sha256.mjs';

const BADF = 8, FAULT = 21, INVAL = 28, NOTSUP = 58;
const CLOCK_START = 1577836800n * 1000000000n;
const CLOCK_TICK = 1000n;

/** Thrown by proc_exit and abort: the step crashed. */
export class StepExit extends Error {}

/** hostImports makes the import object of one step instance; getMemory returns its memory. */
export function hostImports(getMemory, log) {
  let clock = CLOCK_START;
  let block = new Uint8Array(32), used = 32, blocks = 0n;
  let partial = '';
  const text = new TextDecoder('utf-8');
  const view = () => new DataView(getMemory().buffer);
  const inside = (p, n) => p + n <= getMemory().buffer.byteLength;
  const tick = () => (clock += CLOCK_TICK);
  const fill = (b) => {
    for (let i = 0; i < b.length; i++) {
      if (used === 32) {
        const seed = new Uint8Array(19 + 8);
        seed.set(new TextEncoder().encode('waybill step random'));
        new DataView(seed.buffer).setBigUint64(19, blocks++, true);
        block = sha256(seed);
        used = 0;
      }
      b[i] = block[used++];
    }
  };
  const put32 = (p, v) => (inside(p >>> 0, 4) ? (view().setUint32(p >>> 0, v, true), 0) : FAULT);
  const put64 = (p, v) => (inside(p >>> 0, 8) ? (view().setBigUint64(p >>> 0, v, true), 0) : FAULT);
  const bad = () => BADF;
  const std = (fd) => (fd >>> 0 > 2 ? BADF : 0);
  const empty = (a, b) => put32(a, 0) || put32(b, 0);

  const wasi = {
    args_get: () => 0, args_sizes_get: empty, environ_get: () => 0, environ_sizes_get: empty,
    clock_res_get: (_id, p) => put64(p, CLOCK_TICK),
    clock_time_get: (_id, _precision, p) => put64(p, tick()),
    random_get: (p, n) => {
      p >>>= 0; n >>>= 0;
      if (!inside(p, n)) return FAULT;
      fill(new Uint8Array(getMemory().buffer, p, n));
      return 0;
    },
    sched_yield: () => 0,
    proc_exit: (code) => { throw new StepExit(`exit status ${code >>> 0}`); },
    poll_oneoff: (src, dst, n, nOut) => {
      src >>>= 0; dst >>>= 0; n >>>= 0;
      if (n === 0 || n > 1024) return INVAL;
      if (!inside(src, 48 * n) || !inside(dst, 32 * n)) return FAULT;
      const v = view();
      new Uint8Array(v.buffer, dst, 32 * n).fill(0);
      for (let i = 0; i < n; i++) {
        const s = src + 48 * i, e = dst + 32 * i;
        v.setBigUint64(e, v.getBigUint64(s, true), true);
        v.setUint8(e + 10, v.getUint8(s + 8));
        if (v.getUint8(s + 8) !== 0) { v.setUint16(e + 8, NOTSUP, true); continue; }
        let t = v.getBigUint64(s + 24, true);
        if ((v.getUint16(s + 40, true) & 1) === 0) t = BigInt.asUintN(64, t + clock);
        if (t > clock) clock = t;
      }
      return put32(nOut, n);
    },
    fd_write: (fd, iovs, n, written) => {
      if (fd !== 1 && fd !== 2) return BADF;
      iovs >>>= 0; n >>>= 0;
      if (n > 1024) return INVAL;
      let total = 0;
      for (let i = 0; i < n; i++) {
        if (!inside(iovs + 8 * i, 8)) return FAULT;
        const p = view().getUint32(iovs + 8 * i, true), size = view().getUint32(iovs + 8 * i + 4, true);
        if (!inside(p, size)) return FAULT;
        partial += text.decode(new Uint8Array(getMemory().buffer, p, size).slice());
        total += size;
      }
      const lines = partial.split('\n');
      partial = lines.pop();
      for (const l of lines) log(l);
      return put32(written, total);
    },
    fd_read: (fd, _iovs, _n, p) => (fd !== 0 ? BADF : put32(p, 0)),
    fd_fdstat_get: (fd, p) => {
      p >>>= 0;
      if (fd >>> 0 > 2) return BADF;
      if (!inside(p, 24)) return FAULT;
      new Uint8Array(getMemory().buffer, p, 24).fill(0);
      const v = view();
      v.setUint8(p, 2);
      v.setBigUint64(p + 8, 66n, true);
      v.setBigUint64(p + 16, 66n, true);
      return 0;
    },
    fd_fdstat_set_flags: std, fd_close: std,
  };
  for (const name of ['fd_seek', 'fd_tell', 'fd_sync', 'fd_datasync', 'fd_advise', 'fd_allocate', 'fd_pread', 'fd_pwrite',
    'fd_readdir', 'fd_renumber', 'fd_filestat_get', 'fd_filestat_set_size', 'fd_filestat_set_times', 'fd_fdstat_set_rights',
    'fd_prestat_get', 'fd_prestat_dir_name', 'path_create_directory', 'path_filestat_get', 'path_filestat_set_times',
    'path_link', 'path_open', 'path_readlink', 'path_remove_directory', 'path_rename', 'path_symlink', 'path_unlink_file']) {
    wasi[name] = bad;
  }
  const utf16 = (p) => {
    p >>>= 0;
    if (p < 4 || !inside(p - 4, 4)) return '(no text)';
    const n = Math.min(view().getUint32(p - 4, true), 8192);
    if (!inside(p, n)) return '(no text)';
    return new TextDecoder('utf-16le').decode(new Uint8Array(getMemory().buffer, p, n).slice());
  };
  const env = {
    abort: (msg, file, line, col) => { throw new StepExit(`abort: ${utf16(msg)} at ${utf16(file)}:${line}:${col}`); },
  };
  return { wasi_snapshot_preview1: wasi, env };
}
