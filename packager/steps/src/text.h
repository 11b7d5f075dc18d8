/* What the parts of the text step share: the configuration, the context, and the text of the row at work.

   A row is text with segments: each has its end (it begins where the one before ends) and what it is, a token's id or text that is still to be
   done. The operations of the configuration run one behind the other over the whole row; each writes new text or new segments behind what
   there is, in the arena that only grows at its end, and both slide down when it is done. Every operation is a loop whose state lies in the
   context, so that it stops when the budget of a resume is spent and goes on in the next one.

   Configuration: the words of `config`, whose offsets count from its start; packager/steps/textconfig.go writes it. */
#ifndef TEXT_H
#define TEXT_H
#include "waybill.h"

enum { RAGGED = 64, UNKNOWN = 65 };
enum { PAD_NONE, PAD_FIXED, PAD_LONGEST };
enum { NONE = 0xffffffff };

/* What a segment is, other than the id of a token. FIRST is text that begins where the row begins. */
enum { TEXT = 0xffffffff, FIRST = 0xfffffffe, DROP = 0xfffffffd };

enum { OP_ADDED = 1, OP_SPLIT, OP_MAP, OP_BYTES, OP_REPLACE, OP_PREPEND, OP_STRIP, OP_CHARSMAP, OP_DECOMPOSE, OP_ORDER, OP_COMPOSE, OP_ENCODE, OP_CHUNK };
enum { MODEL_WORDPIECE, MODEL_BPE, MODEL_UNIGRAM, MODEL_WORDLEVEL };

typedef struct {
  u32 kind, a, b, c, d, e, f, g;
} op;

/* A trie whose nodes lie level by level: the children of node i are first[i] to first[i + 1], by rising label. */
typedef struct {
  u32 first, label, value;
} trie;

typedef struct {
  u32 pages, class, classes, start, next;
} dfa;

typedef struct {
  u32 room, cut_left, pad, pad_length, pad_multiple, pad_left, pad_id, pad_type;
  u32 type, before, after, frame, ops, num_ops;
  u32 model, unk, flags;
  trie vocab;
  u32 go_on;                          /* WordPiece, BPE: the node behind the prefix of pieces that continue a word, or NONE */
  u32 max_chars;                      /* WordPiece */
  u32 suffix, suffix_len;             /* BPE: end of word */
  u32 bytes;                          /* 256 ids of the bytes' tokens, or 0 */
  u32 merges, num_left, pairs;        /* BPE: pairs[merges[a] .. merges[a + 1]] are the merges of a, by rising right side */
  u32 scores;                         /* Unigram: f64 of each id */
  u32 narrow;                         /* bit i: output i is i32, else i64 */
  double unk_score;
} config;

enum { FUSE_UNK = 1, WHOLE_WORDS = 2 };

typedef struct {
  u32 end, id;
} seg;

typedef struct {
  wb_ctx head;
  i64 left; /* of the budget of this resume */
  u32 bound, phase, rows, row, count, longest;
  u64 fill;
  /* the row */
  u32 text, len, unit, segs, num, out, made; /* offsets in the arena; len and made in units (bytes, or code points as u32) or segments */
  u32 op, stage, slid, moved;
  u32 i, from, inside;    /* the segment at work, its begin (in units), and whether it has been begun */
  u32 at, lo, ws, hold;   /* an operation's own */
  u32 was, any;
  u32 m_from, m_at, m_end, m_state, m_prev, m_last; /* the matcher */
  u32 counts[256];
  /* the model */
  u32 ids, num_ids, scratch, step, pos, syms, heap, pend;
} ctx;

static inline const config *conf(void) { return (const config *)wb_config(); }
static inline const void *at(u32 off) { return wb_config() + off; }
static inline u8 *mem(ctx *c, u32 off) { return (u8 *)c->head.arena_base + off; }
static inline seg *segs(ctx *c) { return (seg *)mem(c, c->segs); }
static inline seg *made(ctx *c) { return (seg *)mem(c, c->out); }
static inline u64 align16(u64 n) { return (n + 15) & ~15ull; }
static inline int is_text(u32 id) { return id == TEXT || id == FIRST; }

/* decode reads one code point of text that is known to be UTF-8. */
static inline u32 decode(const u8 *s, u32 *cp) {
  u32 a = s[0];
  if (a < 0x80) return *cp = a, 1;
  if (a < 0xe0) return *cp = (a & 31) << 6 | (s[1] & 63), 2;
  if (a < 0xf0) return *cp = (a & 15) << 12 | (s[1] & 63) << 6 | (s[2] & 63), 3;
  return *cp = (a & 7) << 18 | (s[1] & 63) << 12 | (s[2] & 63) << 6 | (s[3] & 63), 4;
}

static inline u32 encode(u8 *s, u32 cp) {
  if (cp < 0x80) return s[0] = (u8)cp, 1;
  if (cp < 0x800) return s[0] = (u8)(0xc0 | cp >> 6), s[1] = (u8)(0x80 | (cp & 63)), 2;
  if (cp < 0x10000) return s[0] = (u8)(0xe0 | cp >> 12), s[1] = (u8)(0x80 | (cp >> 6 & 63)), s[2] = (u8)(0x80 | (cp & 63)), 3;
  s[0] = (u8)(0xf0 | cp >> 18), s[1] = (u8)(0x80 | (cp >> 12 & 63)), s[2] = (u8)(0x80 | (cp >> 6 & 63)), s[3] = (u8)(0x80 | (cp & 63));
  return 4;
}

/* valid is the length of the UTF-8 sequence at s[0..n), 0 when it is none. */
static inline u32 valid(const u8 *s, u32 n) {
  u32 a = s[0], v;
  if (a < 0x80) return 1;
  u32 k = a >= 0xc2 && a < 0xe0 ? 2 : a >= 0xe0 && a < 0xf0 ? 3 : a >= 0xf0 && a < 0xf5 ? 4 : 0;
  if (!k || k > n) return 0;
  for (u32 i = 1; i < k; i++)
    if ((s[i] & 0xc0) != 0x80) return 0;
  decode(s, &v);
  if ((k == 3 && (v < 0x800 || (v >= 0xd800 && v < 0xe000))) || (k == 4 && (v < 0x10000 || v > 0x10ffff))) return 0;
  return k;
}

/* two_level looks a code point up in bytes of two levels. */
static inline u32 class_of(u32 pages, u32 classes, u32 cp) {
  return ((const u8 *)at(classes))[(u32)((const unsigned short *)at(pages))[cp >> 8] << 8 | (cp & 255)];
}

static inline u32 word_of(u32 pages, u32 entries, u32 cp) {
  return ((const u32 *)at(entries))[(u32)((const unsigned short *)at(pages))[cp >> 8] << 8 | (cp & 255)];
}

/* child is the node behind `node` for a byte, or NONE. */
static inline u32 child(const trie *t, u32 node, u8 b) {
  const u32 *first = at(t->first);
  const u8 *label = at(t->label);
  u32 lo = first[node], hi = first[node + 1], end = hi;
  while (lo < hi) {
    u32 mid = (lo + hi) / 2;
    if (label[mid] < b) lo = mid + 1;
    else hi = mid;
  }
  return lo < end && label[lo] == b ? lo : NONE;
}

static inline u32 value(const trie *t, u32 node) { return ((const u32 *)at(t->value))[node]; }

/* grown makes sure that the arena holds `bytes`; if not it asks for half as much again, and resume must return the status. */
static int grown(ctx *c, u64 bytes, u32 *status) {
  return bytes > c->head.arena_size && wb_need(&c->head, bytes + bytes / 2 < 0xf0000000u ? bytes + bytes / 2 : bytes, status);
}

/* room makes sure that `n` more bytes fit behind what the operation has made, in units of `unit` bytes. */
static inline int room(ctx *c, u32 unit, u32 n, u32 *status) { return grown(c, (u64)c->out + (u64)c->made * unit + n, status); }

static inline void emit(ctx *c, const u8 *s, u32 n) {
  u8 *to = mem(c, c->out) + c->made;
  for (u32 i = 0; i < n; i++) to[i] = s[i];
  c->made += n;
}

static inline void push(ctx *c, u32 end, u32 id) {
  made(c)[c->made].end = end;
  made(c)[c->made++].id = id;
}

/* slide moves n bytes down in the arena, piece by piece; it returns 1 when all are there. */
static int slide(ctx *c, u32 to, u32 from, u32 n) {
  while (to != from && c->moved < n) {
    if (c->left < 0) return 0;
    u32 k = n - c->moved < 1 << 18 ? n - c->moved : 1 << 18;
    __builtin_memmove(mem(c, to + c->moved), mem(c, from + c->moved), k);
    c->moved += k, c->left -= k / 4;
  }
  c->moved = 0;
  return 1;
}

/* seek begins to match at m_from. */
static inline void seek(ctx *c, const dfa *d) {
  c->m_state = ((const unsigned short *)at(d->start))[c->m_prev];
  c->m_at = c->m_from, c->m_last = c->m_prev, c->m_end = NONE;
}

/* scan walks the automaton up to `end`; it returns 1 when it is decided whether something matches at m_from: then up to m_end. */
static int scan(ctx *c, const dfa *d, const u8 *text, u32 end) {
  const unsigned short *next = at(d->next);
  while (c->left >= 0) {
    u32 cp, n = 0, class = d->classes;
    if (c->m_at < end) {
      n = decode(text + c->m_at, &cp);
      class = class_of(d->pages, d->class, cp);
    }
    u32 v = next[c->m_state * (d->classes + 1) + class];
    if (v & 0x8000) c->m_end = c->m_at, c->hold = c->m_last;
    c->m_state = v & 0x7fff;
    c->left -= 6;
    if (!c->m_state || !n) return 1;
    c->m_at += n, c->m_last = class;
  }
  return 0;
}

/* skip goes on behind a code point at which nothing matches; it returns the code point's length. */
static inline u32 skip(ctx *c, const dfa *d, const u8 *text) {
  u32 cp, n = decode(text + c->m_from, &cp);
  c->m_prev = class_of(d->pages, d->class, cp);
  c->m_from += n;
  seek(c, d);
  return n;
}

/* behind goes on behind a match. */
static inline void behind(ctx *c, const dfa *d) {
  c->m_from = c->m_end, c->m_prev = c->hold;
  seek(c, d);
}

#endif
