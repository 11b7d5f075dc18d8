/* text: strings [N] to the tokens of a tokenizer.json: input_ids, attention_mask and token_type_ids (i64 or i32 [N, L], as the configuration says of
   each; the step may have the first one or two alone). See text.h for how a row is worked at.
   Errors of its own: 64, the rows differ in length (A the row, B its length) and the configuration does not pad them; 65, the text has something
   for which the model has neither a token nor an unknown one (A the row, B the byte within its piece). */
#include "text.h"
#include "text_model.h"
#include "text_norm.h"
#include "text_split.h"

enum { READ, WORK, TOKENIZE, KEEP, FILL };

WB_EXPORT("waybill_abi") u32 version(void) { return WB_ABI; }
WB_EXPORT("waybill_ctx") u32 context_size(void) { return sizeof(ctx); }
WB_EXPORT("waybill_heap") u32 heap(void) { return ((u32)wb_config() + wb_config_size() + 63) & ~63u; }

WB_EXPORT("waybill_bind") u32 bind(ctx *c) {
  c->bound = 0;
  u32 outs = c->head.num_outputs;
  u32 s = wb_check(&c->head, 1, outs >= 1 && outs <= 3 ? outs : 3);
  if (s) return s;
  wb_desc *x = wb_in(&c->head, 0);
  if (x->kind != 0 || x->dtype != WB_STRING) return wb_fail(&c->head, WB_ERR_DTYPE, 0, x->dtype);
  if (x->rank != 1) return wb_fail(&c->head, WB_ERR_RANK, 0, x->rank);
  if (x->dims[0] < 0 || x->dims[0] > 0x10000000) return wb_fail(&c->head, WB_ERR_DIM, 0, x->dims[0]);
  c->rows = (u32)x->dims[0];
  if ((u64)x->bytes < 4ull * (c->rows + 1)) return wb_fail(&c->head, WB_ERR_STRING, 0, x->bytes);
  c->row = c->count = c->longest = c->inside = 0;
  c->phase = READ;
  c->bound = 1;
  return WB_DONE;
}

static inline u32 *ends(ctx *c) { return (u32 *)c->head.arena_base; }
static inline u32 ids_at(ctx *c) { return (u32)align16((u64)c->rows * 4); }
static inline u32 base(ctx *c) { return (u32)align16(ids_at(c) + (u64)c->count * 4); }

/* row_length is how many tokens a row with n of its own gets, before the padding to the longest. */
static u64 row_length(u32 n) {
  const config *k = conf();
  u64 len = (u64)(n < k->room ? n : k->room) + k->before + k->after;
  return k->pad == PAD_FIXED && len < k->pad_length ? k->pad_length : len;
}

/* read copies a row into the arena and checks that it is UTF-8. */
static u32 read(ctx *c) {
  const wb_desc *x = wb_in(&c->head, 0);
  const u32 *off = (const u32 *)x->data;
  u32 status, size = x->bytes - 4 * (c->rows + 1), from = off[c->row], to = off[c->row + 1], n = to - from;
  if (from > to || to > size) return wb_fail(&c->head, WB_ERR_STRING, 0, c->row);
  const u8 *s = (const u8 *)(off + c->rows + 1) + from;
  u64 need = ids_at(c) + (u64)c->count * 4 + 16 + align16(n) + 64;
  if (grown(c, need, &status)) return status;
  if (!c->inside) c->at = 0, c->text = base(c), c->inside = 1;
  u8 *t = mem(c, c->text);
  while (c->at < n) {
    if (c->left < 0) return WB_MORE;
    u32 k = valid(s + c->at, n - c->at);
    if (!k) return wb_fail(&c->head, WB_ERR_STRING, 0, c->row);
    for (u32 j = 0; j < k; j++) t[c->at + j] = s[c->at + j];
    c->at += k, c->left -= 6;
  }
  c->len = n, c->unit = 1, c->num = 1, c->segs = c->text + (u32)align16(n);
  segs(c)[0].end = n, segs(c)[0].id = FIRST;
  c->op = c->stage = 0, c->phase = WORK;
  return WB_MORE;
}

enum { IN_PLACE, NEW_TEXT, NEW_SEGS };

static u32 run(ctx *c, const op *o, u32 *makes) {
  *makes = NEW_TEXT;
  switch (o->kind) {
  case OP_ADDED: return *makes = NEW_SEGS, op_added(c, o);
  case OP_SPLIT: return *makes = NEW_SEGS, op_split(c, o);
  case OP_CHUNK: return *makes = NEW_SEGS, op_chunk(c, o);
  case OP_MAP: return op_map(c, o);
  case OP_BYTES: return op_bytes(c, o);
  case OP_REPLACE: return op_replace(c, o);
  case OP_PREPEND: return op_prepend(c, o);
  case OP_STRIP: return op_strip(c, o);
  case OP_CHARSMAP: return op_charsmap(c, o);
  case OP_DECOMPOSE: return op_decompose(c, o);
  case OP_ENCODE: return op_encode(c);
  case OP_ORDER: return *makes = IN_PLACE, op_order(c);
  case OP_COMPOSE: return *makes = IN_PLACE, op_compose(c, o);
  }
  return wb_fail(&c->head, WB_ERR_STATE, o->kind, 0);
}

/* work runs the operations over the row. */
static u32 work(ctx *c) {
  const config *k = conf();
  for (; c->op < k->num_ops; c->op++, c->stage = 0) {
    const op *o = (const op *)at(k->ops) + c->op;
    if (c->stage == 0) {
      u64 a = c->text + (u64)c->len * c->unit, b = c->segs + (u64)c->num * 8, end = align16(a > b ? a : b);
      if (end > 0xf0000000u) return wb_fail(&c->head, WB_ERR_MEMORY, (i64)end, 0);
      c->out = (u32)end, c->made = c->i = c->from = c->inside = c->slid = c->moved = 0, c->stage = 1;
      c->left -= 50;
    }
    u32 makes = o->kind <= OP_SPLIT || o->kind == OP_CHUNK ? NEW_SEGS : o->kind == OP_ORDER || o->kind == OP_COMPOSE ? IN_PLACE : NEW_TEXT;
    if (c->stage == 1) {
      u32 s = run(c, o, &makes);
      if (s != WB_DONE) return s;
      c->stage = 2;
    }
    u32 at0 = base(c);
    if (makes == NEW_TEXT) {
      u32 unit = o->kind == OP_DECOMPOSE ? 4 : 1, size = c->num * 8, at1 = at0 + (u32)align16(size);
      if (!c->slid) {
        if (!slide(c, at0, c->segs, size)) return WB_MORE;
        c->segs = at0, c->slid = 1;
      }
      if (!slide(c, at1, c->out, c->made * unit)) return WB_MORE;
      c->text = at1, c->len = c->made, c->unit = unit;
    } else if (makes == NEW_SEGS) {
      u32 size = c->len * c->unit, at1 = at0 + (u32)align16(size);
      if (!c->slid) {
        if (!slide(c, at0, c->text, size)) return WB_MORE;
        c->text = at0, c->slid = 1;
      }
      if (!slide(c, at1, c->out, c->made * 8)) return WB_MORE;
      c->segs = at1, c->num = c->made;
    }
  }
  u64 a = c->text + (u64)c->len, b = c->segs + (u64)c->num * 8, ids = align16(a > b ? a : b), end = align16(ids + ((u64)c->len + c->num) * 4);
  u32 status;
  if (grown(c, end, &status)) return status;
  c->ids = (u32)ids, c->scratch = (u32)end, c->num_ids = c->i = c->from = c->step = c->pos = 0;
  c->phase = TOKENIZE;
  return WB_MORE;
}

/* keep brings the row's tokens to those of the rows before it. */
static u32 keep(ctx *c) {
  const config *k = conf();
  u32 n = c->num_ids < k->room ? c->num_ids : k->room, from = c->ids + (k->cut_left ? (c->num_ids - n) * 4 : 0);
  if (!slide(c, ids_at(c) + c->count * 4, from, n * 4)) return WB_MORE;
  c->count += n;
  ends(c)[c->row] = c->count;
  u64 len = row_length(n);
  if (len > 0xf0000000u || (u64)c->count * 4 > 0xe0000000u) return wb_fail(&c->head, WB_ERR_MEMORY, (i64)len, 0);
  if (k->pad != PAD_LONGEST && c->row && len != c->longest) return wb_fail(&c->head, RAGGED, c->row, (i64)len);
  if (len > c->longest) c->longest = (u32)len;
  c->row++, c->inside = 0, c->left -= 80;
  c->phase = READ;
  return WB_MORE;
}

static inline void store(u32 out, u32 narrow, u64 i, u32 v) {
  if (narrow) ((u32 *)out)[i] = v;
  else ((u64 *)out)[i] = v;
}

/* fill writes the outputs; the numbers of a narrow one are below 2^31. */
static u32 fill(ctx *c) {
  const config *k = conf();
  u32 outs = c->head.num_outputs, status, L = c->longest, out[3], narrow[3];
  u64 total = (u64)c->rows * L, end = (ids_at(c) + (u64)c->count * 4 + 63) & ~63ull;
  if (total > 0x10000000) return wb_fail(&c->head, WB_ERR_MEMORY, (i64)total, 0);
  for (u32 i = 0; i < 3; i++) {
    narrow[i] = k->narrow >> i & 1;
    out[i] = (u32)(c->head.arena_base + end);
    if (i < outs) end = (end + total * (narrow[i] ? 4 : 8) + 63) & ~63ull;
  }
  if (wb_need(&c->head, end, &status)) return status;
  const u32 *frame = at(k->frame), *all = (const u32 *)mem(c, ids_at(c));
  for (; c->fill < total; c->fill++, c->left -= 10) {
    if (c->left < 0) return WB_MORE;
    u32 row = (u32)c->fill / L, j = wb_rem((u32)c->fill, L), start = row ? ends(c)[row - 1] : 0, n = ends(c)[row] - start;
    u32 len = n + k->before + k->after, shift = k->pad_left ? L - len : 0;
    u32 v = k->pad_id, t = k->pad_type;
    int real = j >= shift && j - shift < len;
    if (real) {
      u32 i = j - shift;
      if (i < k->before) v = frame[2 * i], t = frame[2 * i + 1];
      else if (i < k->before + n) v = all[start + i - k->before], t = k->type;
      else v = frame[2 * (i - n)], t = frame[2 * (i - n) + 1];
    }
    store(out[0], narrow[0], c->fill, v);
    if (outs > 1) store(out[1], narrow[1], c->fill, (u32)real);
    if (outs > 2) store(out[2], narrow[2], c->fill, t);
  }
  i64 dims[2] = {c->rows, L};
  for (u32 i = 0; i < outs; i++) wb_put(wb_out(&c->head, i), narrow[i] ? WB_I32 : WB_I64, 2, dims, out[i], (u32)(total * (narrow[i] ? 4 : 8)), 0);
  c->bound = 0;
  return WB_DONE;
}

WB_EXPORT("waybill_resume") u32 resume(ctx *c) {
  if (!c->bound) return wb_fail(&c->head, WB_ERR_STATE, 0, 0);
  const config *k = conf();
  u32 status;
  c->left = c->head.budget ? c->head.budget : 350000;
  while (c->left >= 0) {
    u32 s;
    switch (c->phase) {
    case READ:
      if (c->row == c->rows) {
        if (!c->rows) c->longest = (u32)row_length(0);
        if (k->pad == PAD_LONGEST && k->pad_multiple) c->longest += wb_rem(k->pad_multiple - wb_rem(c->longest, k->pad_multiple), k->pad_multiple);
        c->phase = FILL, c->fill = 0;
        continue;
      }
      if (grown(c, ids_at(c), &status)) return status;
      s = read(c);
      break;
    case WORK: s = work(c); break;
    case TOKENIZE:
      s = tokenize(c);
      if (s == WB_DONE) c->phase = KEEP, c->moved = 0, s = WB_MORE;
      break;
    case KEEP: s = keep(c); break;
    default: s = fill(c);
    }
    if (s != WB_MORE) return s;
  }
  return WB_MORE;
}

WB_EXPORT("waybill_part") u32 part(ctx *c, u32 i) { return wb_fail(&c->head, WB_ERR_STATE, i, 0); }
