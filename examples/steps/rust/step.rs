//! A postprocessing step in Rust: for each row of an f32 matrix of scores, the index and the value of the largest, and
//! the margin to the second. README.md has the build command. Only `core` is used; the guest owns its memory.
#![no_std]
#![crate_type = "cdylib"]

use core::panic::PanicInfo;
use core::slice;

#[panic_handler]
fn panic(_: &PanicInfo) -> ! {
    core::arch::wasm32::unreachable()
}

const ABI: u32 = 1;
const MAGIC: u32 = 826_431_831;
const DONE: u32 = 0;
const MORE: u32 = 1;
const FAILED: u32 = 4;
const F32: u32 = 1;
const I64: u32 = 7;
const ERR_ABI: u32 = 1;
const ERR_DTYPE: u32 = 2;
const ERR_RANK: u32 = 3;
const ERR_DIM: u32 = 4;
const ERR_MEMORY: u32 = 7;
const ERR_STATE: u32 = 11;

/// Scores looked at in one resume: well under 2 ms.
const CHUNK: u64 = 1 << 19;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Desc {
    kind: u32,
    dtype: u32,
    rank: u32,
    flags: u32,
    dims: [i64; 8],
    data: u32,
    bytes: u32,
    cap: u32,
    aux: u32,
}

/// The context block: the ABI's header, then what this step remembers between resumes.
#[repr(C)]
pub struct Ctx {
    magic: u32,
    arena_base: u32,
    arena_size: u32,
    num_inputs: u32,
    inputs: u32,
    num_outputs: u32,
    outputs: u32,
    budget: u32,
    want: u32,
    err_code: u32,
    err_node: u32,
    flags: u32,
    err_a: i64,
    err_b: i64,
    bound: u32,
    out: u32, // block of the outputs; 0 before the first resume
    rows: u64,
    cols: u64,
    next: u64,
}

/// A bump allocator is enough: a step that is not declared reentrant is started anew for each call.
struct Heap {
    next: u32,
    end: u32,
}

static mut HEAP: Heap = Heap { next: 0, end: 0 };

extern "C" {
    static __heap_base: u8;
}

const PAGE: u64 = 65536;

#[no_mangle]
pub unsafe extern "C" fn waybill_alloc(size: u32) -> u32 {
    if HEAP.next == 0 {
        HEAP.next = &__heap_base as *const u8 as u32;
        HEAP.end = (core::arch::wasm32::memory_size(0) as u64 * PAGE).min(u32::MAX as u64) as u32;
    }
    let start = (HEAP.next as u64 + 15) & !15;
    let end = start + size as u64;
    if end > u32::MAX as u64 {
        return 0;
    }
    if end > HEAP.end as u64 {
        let pages = (end - HEAP.end as u64 + PAGE - 1) / PAGE;
        if core::arch::wasm32::memory_grow(0, pages as usize) == usize::MAX {
            return 0;
        }
        HEAP.end = (HEAP.end as u64 + pages * PAGE).min(u32::MAX as u64) as u32;
    }
    HEAP.next = end as u32;
    start as u32
}

#[no_mangle]
pub extern "C" fn waybill_free(_: u32) {}

#[no_mangle]
pub extern "C" fn waybill_abi() -> u32 {
    ABI
}

#[no_mangle]
pub extern "C" fn waybill_ctx() -> u32 {
    core::mem::size_of::<Ctx>() as u32
}

fn fail(c: &mut Ctx, code: u32, a: i64, b: i64) -> u32 {
    c.err_code = code;
    c.err_a = a;
    c.err_b = b;
    FAILED
}

#[no_mangle]
pub unsafe extern "C" fn waybill_bind(p: *mut Ctx) -> u32 {
    let c = &mut *p;
    c.bound = 0;
    if c.magic != MAGIC {
        let m = c.magic as i64;
        return fail(c, ERR_ABI, 0, m);
    }
    if c.num_inputs != 1 || c.num_outputs != 3 {
        let (field, n) = if c.num_inputs != 1 { (1, c.num_inputs) } else { (2, c.num_outputs) };
        return fail(c, ERR_ABI, field, n as i64);
    }
    let x = *(c.inputs as *const Desc);
    if x.kind != 0 || x.dtype != F32 {
        return fail(c, ERR_DTYPE, 0, x.dtype as i64);
    }
    if x.rank != 2 {
        return fail(c, ERR_RANK, 0, x.rank as i64);
    }
    if x.dims[1] < 2 {
        return fail(c, ERR_DIM, 1, x.dims[1]); // there is no second largest of one
    }
    c.rows = x.dims[0] as u64;
    c.cols = x.dims[1] as u64;
    c.next = 0;
    c.out = 0;
    c.bound = 1;
    DONE
}

#[no_mangle]
pub unsafe extern "C" fn waybill_resume(p: *mut Ctx) -> u32 {
    let c = &mut *p;
    if c.bound == 0 {
        return fail(c, ERR_STATE, 0, 0);
    }
    let n = c.rows as usize;
    if c.out == 0 {
        let bytes = c.rows * 16; // i64 index, f32 value, f32 margin
        c.out = if bytes < u32::MAX as u64 { waybill_alloc(bytes as u32) } else { 0 };
        if c.out == 0 {
            return fail(c, ERR_MEMORY, bytes as i64, 0);
        }
    }
    let x = *(c.inputs as *const Desc);
    let index = c.out;
    let value = c.out + 8 * n as u32;
    let margin = value + 4 * n as u32;
    if n > 0 {
        let scores = slice::from_raw_parts(x.data as *const f32, n * c.cols as usize);
        let indices = slice::from_raw_parts_mut(index as *mut i64, n);
        let values = slice::from_raw_parts_mut(value as *mut f32, n);
        let margins = slice::from_raw_parts_mut(margin as *mut f32, n);
        let end = (c.next + 1 + CHUNK / c.cols).min(c.rows);
        while c.next < end {
            let i = c.next as usize;
            let row = &scores[i * c.cols as usize..(i + 1) * c.cols as usize];
            let (mut best, mut second) = (0, f32::NEG_INFINITY);
            for j in 1..row.len() {
                if row[j] > row[best] {
                    second = row[best];
                    best = j;
                } else if row[j] > second {
                    second = row[j];
                }
            }
            indices[i] = best as i64;
            values[i] = row[best];
            margins[i] = row[best] - second;
            c.next += 1;
        }
        if c.next < c.rows {
            return MORE;
        }
    }
    let outs = slice::from_raw_parts_mut(c.outputs as *mut Desc, 3);
    for (o, (dtype, data, size)) in outs.iter_mut().zip([(I64, index, 8), (F32, value, 4), (F32, margin, 4)]) {
        *o = Desc { kind: 0, dtype, rank: 1, flags: 0, dims: [0; 8], data, bytes: size * n as u32, cap: size * n as u32, aux: 0 };
        o.dims[0] = n as i64;
    }
    c.bound = 0;
    DONE
}

#[no_mangle]
pub unsafe extern "C" fn waybill_part(p: *mut Ctx, i: u32) -> u32 {
    fail(&mut *p, ERR_STATE, i as i64, 0)
}
