/* The guest side of docs/abi.md in C, for the built-in steps. No libc. */
#ifndef WAYBILL_H
#define WAYBILL_H

typedef unsigned char u8;
typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

#define WB_EXPORT(name) __attribute__((export_name(name)))

enum { WB_MAGIC = 826431831, WB_ABI = 1 };
enum { WB_DONE, WB_MORE, WB_PARALLEL, WB_NEED_MEMORY, WB_FAILED };
enum { WB_F32 = 1, WB_U8 = 2, WB_I16 = 5, WB_I32 = 6, WB_I64 = 7, WB_STRING = 8, WB_BOOL = 9, WB_F16 = 10, WB_F64 = 11, WB_BF16 = 16 };
enum { WB_TENSOR, WB_SEQUENCE, WB_OPTIONAL, WB_MAP };
enum { WB_ERR_ABI = 1, WB_ERR_DTYPE, WB_ERR_RANK, WB_ERR_DIM, WB_ERR_SHAPE, WB_ERR_INDEX, WB_ERR_MEMORY,
       WB_ERR_OVERFLOW, WB_ERR_VALUE, WB_ERR_STRING, WB_ERR_STATE, WB_ERR_USER = 64 };

typedef struct {
  u32 kind, dtype, rank, flags;
  i64 dims[8];
  u32 data, bytes, cap, aux;
} wb_desc;

/* The context block. What follows `tail` is the step's own and zeroed by the host. */
typedef struct {
  u32 magic, arena_base, arena_size, num_inputs, inputs, num_outputs, outputs, budget, want, err_code, err_node, flags;
  i64 err_a, err_b;
} wb_ctx;

_Static_assert(sizeof(wb_desc) == 96, "descriptor");
_Static_assert(sizeof(wb_ctx) == 64, "context header");

/* Remainders without the instruction, which wazero miscompiles on arm64; the empty asm keeps the compiler from finding it again. */
static inline u32 wb_rem(u32 a, u32 b) {
  u32 q = a / b;
  __asm__("" : "+r"(q));
  return a - q * b;
}

static inline u64 wb_rem64(u64 a, u64 b) {
  u64 q = a / b;
  __asm__("" : "+r"(q));
  return a - q * b;
}

static inline u32 wb_fail(wb_ctx *c, u32 code, i64 a, i64 b) {
  c->err_code = code, c->err_a = a, c->err_b = b;
  return WB_FAILED;
}

static inline wb_desc *wb_in(wb_ctx *c, u32 i) { return (wb_desc *)c->inputs + i; }
static inline wb_desc *wb_out(wb_ctx *c, u32 i) { return (wb_desc *)c->outputs + i; }

/* wb_need tells whether the arena holds `bytes`; if not it asks for the rest, and resume must return WB_NEED_MEMORY. */
static inline int wb_need(wb_ctx *c, u64 bytes, u32 *status) {
  if (bytes <= c->arena_size) return 0;
  if (bytes > 0xf0000000u) {
    *status = wb_fail(c, WB_ERR_MEMORY, (i64)bytes, 0);
    return 1;
  }
  c->want = (u32)bytes - c->arena_size;
  *status = WB_NEED_MEMORY;
  return 1;
}

/* The configuration, which packing puts behind the linker's own data: its length in bytes, then what the step defines. */
extern u8 __heap_base;
static inline const u8 *wb_config(void) { return &__heap_base + 4; }
static inline u32 wb_config_size(void) { return *(const u32 *)&__heap_base; }

static inline u32 wb_check(wb_ctx *c, u32 inputs, u32 outputs) {
  if (c->magic != WB_MAGIC) return wb_fail(c, WB_ERR_ABI, 0, c->magic);
  if (c->num_inputs != inputs) return wb_fail(c, WB_ERR_ABI, 1, c->num_inputs);
  if (c->num_outputs != outputs) return wb_fail(c, WB_ERR_ABI, 2, c->num_outputs);
  return WB_DONE;
}

static inline void wb_put(wb_desc *d, u32 dtype, u32 rank, const i64 *dims, u32 data, u32 bytes, u32 aux) {
  d->kind = 0, d->dtype = dtype, d->rank = rank, d->flags = 0;
  for (u32 i = 0; i < 8; i++) d->dims[i] = i < rank ? dims[i] : 0;
  d->data = data, d->bytes = d->cap = bytes, d->aux = aux;
}

#endif
