// A preprocessing step in AssemblyScript: cleans free text for a tokeniser or a text classifier. Each string loses its
// leading and trailing white space, runs of white space inside become one blank, and ASCII letters become lower case.
// README.md has the build command.

const MAGIC: u32 = 826431831;
const DONE: u32 = 0, MORE: u32 = 1, FAILED: u32 = 4;
const STRING: u32 = 8;
const ERR_ABI: u32 = 1, ERR_DTYPE: u32 = 2, ERR_RANK: u32 = 3, ERR_MEMORY: u32 = 7, ERR_STATE: u32 = 11;

/** Bytes of text looked at in one resume: about 2 ms. */
const CHUNK: u32 = 1 << 18;

// The context block: the header of docs/abi.md, then what this step remembers between resumes.
@unmanaged
class Ctx {
  magic: u32; arenaBase: u32; arenaSize: u32; numInputs: u32; inputs: u32; numOutputs: u32; outputs: u32; budget: u32;
  want: u32; errCode: u32; errNode: u32; flags: u32; errA: i64; errB: i64;
  bound: u32; // 1 between bind and the end
  out: usize; // the output's block, 0 before the first resume
  n: u32; // strings
  next: u32; // string to look at
  at: u32; // bytes of text written
  pad: u32;
}

@unmanaged
class Desc {
  kind: u32; dtype: u32; rank: u32; flags: u32;
  d0: i64; d1: i64; d2: i64; d3: i64; d4: i64; d5: i64; d6: i64; d7: i64;
  data: u32; bytes: u32; cap: u32; aux: u32;
}

export function waybill_abi(): u32 { return 1; }
export function waybill_ctx(): u32 { return offsetof<Ctx>(); }
// The blocks are 16-byte aligned: heap.alloc is AssemblyScript's own allocator, without its garbage collector.
export function waybill_alloc(size: u32): usize { return size < 0x3ffffff0 ? heap.alloc(size) : 0; }
export function waybill_free(p: usize): void { heap.free(p); }

function fail(c: Ctx, code: u32, a: i64, b: i64): u32 {
  c.errCode = code;
  c.errA = a;
  c.errB = b;
  return FAILED;
}

export function waybill_bind(p: usize): u32 {
  const c = changetype<Ctx>(p);
  c.bound = 0;
  if (c.magic != MAGIC) return fail(c, ERR_ABI, 0, c.magic);
  if (c.numInputs != 1) return fail(c, ERR_ABI, 1, c.numInputs);
  if (c.numOutputs != 1) return fail(c, ERR_ABI, 2, c.numOutputs);
  const x = changetype<Desc>(<usize>c.inputs);
  if (x.kind != 0 || x.dtype != STRING) return fail(c, ERR_DTYPE, 0, x.dtype);
  if (x.rank > 8) return fail(c, ERR_RANK, 0, x.rank);
  c.n = (x.bytes - x.aux) / 4 - 1;
  c.next = 0;
  c.at = 0;
  c.out = 0;
  c.bound = 1;
  return DONE;
}

@inline
function blank(b: u32): bool { return b == 32 || (b >= 9 && b <= 13); }

export function waybill_resume(p: usize): u32 {
  const c = changetype<Ctx>(p);
  if (!c.bound) return fail(c, ERR_STATE, 0, 0);
  const x = changetype<Desc>(<usize>c.inputs);
  if (!c.out) {
    c.out = waybill_alloc(x.bytes); // the text only gets shorter
    if (!c.out) return fail(c, ERR_MEMORY, x.bytes, 0);
    store<u32>(c.out, 0);
  }
  const head = (c.n + 1) * 4;
  const text = <usize>x.data + head, to = c.out + head;
  let work: u32 = 0;
  while (c.next < c.n && work < CHUNK) {
    const begin = load<u32>(<usize>x.data + 4 * c.next), end = load<u32>(<usize>x.data + 4 * c.next + 4);
    const first = c.at;
    let gap = false;
    for (let i = begin; i < end; i++) {
      let b = <u32>load<u8>(text + i);
      if (blank(b)) {
        gap = true;
        continue;
      }
      if (gap && c.at > first) store<u8>(to + c.at++, 32);
      gap = false;
      if (b >= 65 && b <= 90) b |= 32; // bytes of longer UTF-8 sequences are above 127
      store<u8>(to + c.at++, <u8>b);
    }
    work += end - begin + 16;
    c.next++;
    store<u32>(c.out + 4 * c.next, c.at);
  }
  if (c.next < c.n) return MORE;
  const y = changetype<Desc>(<usize>c.outputs);
  memory.copy(changetype<usize>(y), changetype<usize>(x), offsetof<Desc>());
  y.data = <u32>c.out;
  y.bytes = head + c.at;
  y.cap = x.bytes;
  y.aux = c.at;
  c.bound = 0;
  return DONE;
}

export function waybill_part(p: usize, i: u32): u32 { return fail(changetype<Ctx>(p), ERR_STATE, i, 0); }
