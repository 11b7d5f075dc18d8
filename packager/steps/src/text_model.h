/* The models: text segments to tokens. ids at c->ids; what a segment needs on the way lies behind, at c->scratch. */
#ifndef TEXT_MODEL_H
#define TEXT_MODEL_H
#include "text.h"

static inline void token(ctx *c, u32 id) { ((u32 *)mem(c, c->ids))[c->num_ids++] = id; }

static inline u32 unknown(ctx *c) { return wb_fail(&c->head, UNKNOWN, c->row, c->pos); }

/* whole is the id of exactly s[0..n), or NONE. */
static u32 whole(ctx *c, const u8 *s, u32 n) {
  const trie *t = &conf()->vocab;
  u32 node = 0;
  c->left -= 20;
  for (u32 j = 0; j < n; j++, c->left -= 16)
    if ((node = child(t, node, s[j])) == NONE) return NONE;
  return value(t, node);
}

/* WordPiece: the longest pieces from the left, or the unknown token for all of it. hold is where its tokens began, any how many code points there are. */
static u32 wordpiece(ctx *c, const u8 *s, u32 n) {
  const config *k = conf();
  const trie *t = &k->vocab;
  if (c->step == 0) c->any = 0, c->hold = c->num_ids, c->step = 1;
  if (c->step == 1) {
    for (; c->pos < n && c->any <= k->max_chars; c->pos++, c->left -= 4) c->any += (s[c->pos] & 0xc0) != 0x80;
    if (c->any > k->max_chars) return token(c, k->unk), WB_DONE;
    c->pos = 0, c->step = 2;
  }
  while (c->pos < n) {
    if (c->left < 0) return WB_MORE;
    u32 node = c->pos ? k->go_on : 0, best = 0, id = 0;
    c->left -= 30;
    for (u32 j = c->pos; node != NONE && j < n && (node = child(t, node, s[j])) != NONE; j++, c->left -= 16)
      if (value(t, node) != NONE) best = j + 1, id = value(t, node);
    if (!best) {
      c->num_ids = c->hold;
      return token(c, k->unk), WB_DONE;
    }
    token(c, id);
    c->pos = best;
  }
  return WB_DONE;
}

typedef struct {
  u32 c, prev, next; /* c: NONE when merged into the one before */
} sym;

typedef struct {
  u32 rank, pos, id;
} merge;

static inline sym *syms(ctx *c) { return (sym *)mem(c, c->scratch); }

static inline int before(const merge *a, const merge *b) { return a->rank < b->rank || (a->rank == b->rank && a->pos < b->pos); }

/* pair is the merge of two tokens, or null: rank and the new token. */
static const u32 *pair(u32 a, u32 b) {
  const config *k = conf();
  if (a >= k->num_left) return 0;
  const u32 *first = (const u32 *)at(k->merges) + a, *p = at(k->pairs);
  u32 lo = first[0], hi = first[1], end = hi;
  while (lo < hi) {
    u32 mid = (lo + hi) / 2;
    if (p[3 * mid] < b) lo = mid + 1;
    else hi = mid;
  }
  return lo < end && p[3 * lo] == b ? p + 3 * lo + 1 : 0;
}

static void offer(ctx *c, u32 pos) {
  sym *s = syms(c);
  c->left -= 80;
  if (s[pos].next == NONE) return;
  const u32 *m = pair(s[pos].c, s[s[pos].next].c);
  if (!m) return;
  merge *h = (merge *)mem(c, c->scratch + c->syms * sizeof(sym)), x = {m[0], pos, m[1]};
  u32 i = c->heap++;
  for (; i && before(&x, &h[(i - 1) / 2]); i = (i - 1) / 2, c->left -= 8) h[i] = h[(i - 1) / 2];
  h[i] = x;
}

static merge least(ctx *c) {
  merge *h = (merge *)mem(c, c->scratch + c->syms * sizeof(sym)), top = h[0], x = h[--c->heap];
  u32 i = 0;
  for (u32 j; (j = 2 * i + 1) < c->heap; i = j, c->left -= 8) {
    if (j + 1 < c->heap && before(&h[j + 1], &h[j])) j++;
    if (!before(&h[j], &x)) break;
    h[i] = h[j];
  }
  h[i] = x;
  return top;
}

static inline void symbol(ctx *c, u32 id) {
  sym *s = syms(c);
  s[c->any].c = id, s[c->any].prev = c->any - 1, s[c->any].next = NONE; /* prev of the first: NONE */
  if (c->any) s[c->any - 1].next = c->any;
  c->any++;
}

/* BPE: any is the number of symbols, syms how many there is room for, pend whether an unknown token waits. */
static u32 bpe(ctx *c, const u8 *s, u32 n) {
  const config *k = conf();
  const trie *t = &k->vocab;
  u32 status, cp;
  if (c->step == 0) {
    if (k->flags & WHOLE_WORDS) {
      u32 id = whole(c, s, n);
      if (id != NONE) return token(c, id), WB_DONE;
    }
    if (grown(c, (u64)c->scratch + (u64)n * (sizeof(sym) + 2 * sizeof(merge)), &status)) return status;
    c->any = c->pend = c->heap = 0, c->syms = n, c->step = 1;
  }
  if (c->step == 1) {
    while (c->pos < n) {
      if (c->left < 0) return WB_MORE;
      u32 len = decode(s + c->pos, &cp), node = c->pos ? k->go_on : 0, id = NONE;
      for (u32 j = 0; j < len && node != NONE; j++) node = child(t, node, s[c->pos + j]);
      if (c->pos + len == n)
        for (u32 j = 0; j < k->suffix_len && node != NONE; j++) node = child(t, node, ((const u8 *)at(k->suffix))[j]);
      if (node != NONE) id = value(t, node);
      c->left -= 40;
      if (id != NONE) {
        if (c->pend) symbol(c, k->unk), c->pend = 0;
        symbol(c, id);
        c->pos += len;
        continue;
      }
      if (k->bytes) {
        const u32 *b = at(k->bytes);
        u32 all = 1;
        for (u32 j = 0; j < len; j++) all &= b[s[c->pos + j]] != NONE;
        if (all) {
          for (u32 j = 0; j < len; j++) symbol(c, b[s[c->pos + j]]);
          c->pos += len;
          continue;
        }
      }
      if (k->unk == NONE - 1) return unknown(c);
      if (k->unk != NONE) {
        if (c->pend && !(k->flags & FUSE_UNK)) symbol(c, k->unk);
        c->pend = 1;
      }
      c->pos += len;
    }
    if (c->pend) symbol(c, k->unk);
    c->pos = 0, c->step = 2;
  }
  if (c->step == 2) {
    for (; c->pos < c->any; c->pos++) {
      if (c->left < 0) return WB_MORE;
      offer(c, c->pos);
    }
    c->step = 3;
  }
  if (c->step == 3) {
    while (c->heap) {
      if (c->left < 0) return WB_MORE;
      merge m = least(c);
      sym *x = syms(c), *a = x + m.pos;
      c->left -= 60;
      if (a->c == NONE || a->next == NONE) continue;
      const u32 *p = pair(a->c, x[a->next].c);
      if (!p || p[1] != m.id) continue;
      sym *b = x + a->next;
      a->c = m.id, a->next = b->next, b->c = NONE;
      if (a->next != NONE) x[a->next].prev = m.pos;
      if (a->prev != NONE) offer(c, a->prev);
      offer(c, m.pos);
    }
    c->pos = 0, c->step = 4;
  }
  for (; c->pos != NONE && c->any; c->pos = syms(c)[c->pos].next, c->left -= 3) {
    if (c->left < 0) return WB_MORE;
    token(c, syms(c)[c->pos].c);
  }
  return WB_DONE;
}

typedef struct {
  double score;
  u32 start, id; /* of the best piece that ends here; start: NONE when there is none. Later: where the piece that begins here ends */
} node;

/* Unigram: the pieces with the highest sum of scores, from left to right in double precision; of equal ones the first found. */
static u32 unigram(ctx *c, const u8 *s, u32 n) {
  const config *k = conf();
  const trie *t = &k->vocab;
  const double *scores = at(k->scores);
  u32 status, cp;
  if (c->step == 0) {
    if (grown(c, (u64)c->scratch + ((u64)n + 1) * sizeof(node), &status)) return status;
    c->step = 1;
  }
  node *x = (node *)mem(c, c->scratch);
  if (c->step == 1) {
    for (; c->pos <= n; c->pos++, c->left -= 5) {
      if (c->left < 0) return WB_MORE;
      x[c->pos].score = 0, x[c->pos].start = NONE, x[c->pos].id = 0;
    }
    c->pos = 0, c->step = 2;
  }
  if (c->step == 2) {
    while (c->pos < n) {
      if (c->left < 0) return WB_MORE;
      u32 len = decode(s + c->pos, &cp), single = 0, at_node = 0;
      double here = x[c->pos].score;
      for (u32 j = c->pos; j < n && (at_node = child(t, at_node, s[j])) != NONE; j++, c->left -= 16) {
        u32 id = value(t, at_node);
        if (id == NONE) continue;
        double sum = scores[id] + here;
        node *to = x + j + 1;
        if (to->start == NONE || sum > to->score) to->score = sum, to->start = c->pos, to->id = id;
        if (j + 1 - c->pos == len) single = 1;
      }
      if (!single) {
        if (k->unk == NONE) return unknown(c);
        double sum = k->unk_score + here;
        node *to = x + c->pos + len;
        if (to->start == NONE || sum > to->score) to->score = sum, to->start = c->pos, to->id = k->unk;
      }
      c->pos += len, c->left -= 50;
    }
    c->step = 3;
  }
  if (c->step == 3) { /* back from the end; the pieces' beginnings learn their ends */
    for (; c->pos; c->left -= 12) {
      if (c->left < 0) return WB_MORE;
      u32 start = x[c->pos].start;
      x[start].score = (double)c->pos;
      c->pos = start;
    }
    c->step = 4;
  }
  while (c->pos < n) {
    if (c->left < 0) return WB_MORE;
    if (c->step == 4) {
      u32 end = (u32)x[c->pos].score;
      c->left -= 12;
      if (x[end].id != k->unk) {
        token(c, x[end].id);
        c->pos = end;
        continue;
      }
      c->hold = c->pos, c->step = 5;
    }
    if (c->step == 5) { /* unknown pieces in a row count as one text */
      while (c->hold < n && x[(u32)x[c->hold].score].id == k->unk) {
        if (c->left < 0) return WB_MORE;
        c->hold = (u32)x[c->hold].score, c->left -= 12;
      }
      u32 id = whole(c, s + c->pos, c->hold - c->pos);
      c->step = 6;
      if (id == NONE && !k->bytes) id = k->unk;
      if (id != NONE) {
        token(c, id);
        c->pos = c->hold, c->step = 4;
        continue;
      }
      c->any = c->pos;
    }
    const u32 *b = at(k->bytes);
    if (c->step == 6) { /* does every byte have a token? */
      for (; c->any < c->hold && b[s[c->any]] != NONE; c->any++, c->left -= 2)
        if (c->left < 0) return WB_MORE;
      if (c->any < c->hold) {
        token(c, k->unk);
        c->pos = c->hold, c->step = 4;
        continue;
      }
      c->step = 7;
    }
    for (; c->pos < c->hold; c->left -= 3) {
      if (c->left < 0) return WB_MORE;
      token(c, b[s[c->pos++]]);
    }
    c->step = 4;
  }
  return WB_DONE;
}

static u32 wordlevel(ctx *c, const u8 *s, u32 n) {
  u32 id = whole(c, s, n);
  if (id == NONE) id = conf()->unk;
  if (id == NONE) return unknown(c);
  return token(c, id), WB_DONE;
}

/* tokenize does the segments of a row until there are enough tokens. */
static u32 tokenize(ctx *c) {
  const config *k = conf();
  for (; c->i < c->num; c->i++, c->step = c->pos = 0) {
    if (c->left < 0) return WB_MORE;
    if (!k->cut_left && c->num_ids >= k->room) break;
    seg s = segs(c)[c->i];
    if (is_text(s.id)) {
      const u8 *text = mem(c, c->text) + c->from;
      u32 n = s.end - c->from, status = WB_DONE;
      if (n)
        switch (k->model) {
        case MODEL_WORDPIECE: status = wordpiece(c, text, n); break;
        case MODEL_BPE: status = bpe(c, text, n); break;
        case MODEL_UNIGRAM: status = unigram(c, text, n); break;
        default: status = wordlevel(c, text, n);
        }
      if (status != WB_DONE) return status;
    } else if (s.id != DROP) {
      token(c, s.id);
    }
    c->from = s.end, c->left -= 10;
  }
  return WB_DONE;
}

#endif
