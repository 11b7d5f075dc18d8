/* Operations that make new text: replacing code points, bytes and matches, prepending, stripping, a precompiled character map, and
   the normal forms of Unicode. A segment that is a token or dropped has no text afterwards. */
#ifndef TEXT_NORM_H
#define TEXT_NORM_H
#include "text.h"

enum { ALWAYS, UNLESS, UNLESS_FIRST };

/* begin_text is the head of every such operation: it returns 0 for a segment without text, which it ends. */
static int begin_text(ctx *c, seg *s) {
  if (is_text(s->id)) return 1;
  c->from = s->end, s->end = c->made, c->left -= 4;
  c->i++;
  return 0;
}

static inline void end_text(ctx *c, seg *s) {
  c->from = s->end, s->end = c->made, c->inside = 0, c->i++;
}

/* map: a, b the table of two levels, c the replacements. An entry is 0, or its lowest bit with the length from bit 1 and the place from bit 8. */
static u32 op_map(ctx *c, const op *o) {
  u32 status, cp;
  while (c->i < c->num) {
    seg *s = segs(c) + c->i;
    if (!begin_text(c, s)) continue;
    if (!c->inside) c->at = c->from, c->inside = 1;
    for (; c->at < s->end; c->left -= 10) {
      if (c->left < 0) return WB_MORE;
      if (room(c, 1, 128, &status)) return status;
      const u8 *t = mem(c, c->text) + c->at;
      u32 n = decode(t, &cp), e = word_of(o->a, o->b, cp);
      if (e) emit(c, (const u8 *)at(o->c) + (e >> 8), e >> 1 & 127);
      else emit(c, t, n);
      c->at += n;
    }
    end_text(c, s);
  }
  return WB_DONE;
}

/* bytes: a the code points of the 256 bytes. */
static u32 op_bytes(ctx *c, const op *o) {
  u32 status;
  const u32 *to = at(o->a);
  while (c->i < c->num) {
    seg *s = segs(c) + c->i;
    if (!begin_text(c, s)) continue;
    if (!c->inside) c->at = c->from, c->inside = 1;
    for (; c->at < s->end; c->at++, c->left -= 5) {
      if (c->left < 0) return WB_MORE;
      if (room(c, 1, 16, &status)) return status;
      c->made += encode(mem(c, c->out) + c->made, to[mem(c, c->text)[c->at]]);
    }
    end_text(c, s);
  }
  return WB_DONE;
}

/* replace: a the automaton, b, c the place and length of what matches become. */
static u32 op_replace(ctx *c, const op *o) {
  const dfa *d = at(o->a);
  u32 status;
  while (c->i < c->num) {
    seg *s = segs(c) + c->i;
    if (!begin_text(c, s)) continue;
    if (!c->inside) {
      c->m_from = c->from, c->m_prev = d->classes, c->inside = 1;
      seek(c, d);
    }
    while (c->m_from < s->end) {
      if (room(c, 1, o->c + 16, &status)) return status;
      const u8 *t = mem(c, c->text);
      if (!scan(c, d, t, s->end)) return WB_MORE;
      if (c->m_end == NONE) {
        u32 from = c->m_from;
        emit(c, t + from, skip(c, d, t));
        continue;
      }
      emit(c, at(o->b), o->c);
      c->left -= o->c;
      behind(c, d);
    }
    end_text(c, s);
  }
  return WB_DONE;
}

/* prepend: a, b the place and length of what goes in front of text that is not empty; c: always, unless it already begins with d, e, or only where
   the row begins as well. */
static u32 op_prepend(ctx *c, const op *o) {
  u32 status;
  while (c->i < c->num) {
    seg *s = segs(c) + c->i;
    if (!begin_text(c, s)) continue;
    if (room(c, 1, o->b + 16, &status)) return status;
    if (!c->inside) {
      u32 add = s->end > c->from, same = s->end - c->from >= o->e;
      const u8 *t = mem(c, c->text) + c->from, *p = at(o->d);
      for (u32 j = 0; same && j < o->e; j++) same = t[j] == p[j];
      if (o->c != ALWAYS && same) add = 0;
      if (o->c == UNLESS_FIRST && s->id != FIRST) add = 0;
      if (add) emit(c, at(o->a), o->b);
      c->at = c->from, c->inside = 1, c->left -= 10;
    }
    for (; c->at < s->end;) {
      if (c->left < 0) return WB_MORE;
      u32 n = s->end - c->at < 4096 ? s->end - c->at : 4096;
      if (room(c, 1, n, &status)) return status;
      emit(c, mem(c, c->text) + c->at, n);
      c->at += n, c->left -= n;
    }
    end_text(c, s);
  }
  return WB_DONE;
}

/* strip: a 1 the left, 2 the right side; b, c the table of spaces (class 2). */
static u32 op_strip(ctx *c, const op *o) {
  u32 status, cp;
  while (c->i < c->num) {
    seg *s = segs(c) + c->i;
    if (!begin_text(c, s)) continue;
    if (!c->inside) c->at = c->from, c->any = !(o->a & 1), c->lo = c->made, c->inside = 1;
    for (; c->at < s->end; c->left -= 8) {
      if (c->left < 0) return WB_MORE;
      if (room(c, 1, 16, &status)) return status;
      const u8 *t = mem(c, c->text) + c->at;
      u32 n = decode(t, &cp), space = class_of(o->b, o->c, cp) & 2;
      c->at += n;
      if (!c->any && space) continue;
      c->any = 1;
      emit(c, t, n);
      if (!space) c->lo = c->made; /* the end, if only spaces follow */
    }
    if (o->a & 2) c->made = c->lo;
    end_text(c, s);
  }
  return WB_DONE;
}

/* first_value is the value of the shortest key that s[0..n) begins with, or NONE. */
static u32 first_value(const trie *t, const u8 *s, u32 n) {
  u32 node = 0;
  for (u32 j = 0; j < n && (node = child(t, node, s[j])) != NONE; j++)
    if (value(t, node) != NONE) return value(t, node);
  return NONE;
}

/* charsmap: a the automaton of grapheme clusters; b, c, d the trie, whose values count pairs (place, length) at e, within f. A cluster of less than
   six bytes is replaced as a whole, otherwise each of its code points for itself. */
static u32 op_charsmap(ctx *c, const op *o) {
  const dfa *d = at(o->a);
  const trie *t = (const trie *)&o->b;
  const u32 *to = at(o->e);
  u32 status, cp;
  while (c->i < c->num) {
    seg *s = segs(c) + c->i;
    if (!begin_text(c, s)) continue;
    if (!c->inside) {
      c->m_from = c->from, c->m_prev = d->classes, c->any = 0, c->inside = 1;
      seek(c, d);
    }
    while (c->m_from < s->end) {
      const u8 *x = mem(c, c->text);
      if (!c->any) {
        if (!scan(c, d, x, s->end)) return WB_MORE;
        c->any = 1, c->at = c->m_from;
      }
      u32 whole = c->m_end - c->m_from < 6;
      while (c->at < c->m_end) {
        if (c->left < 0) return WB_MORE;
        u32 n = whole ? c->m_end - c->at : decode(x + c->at, &cp), v = first_value(t, x + c->at, n);
        c->left -= 60 + 12 * n;
        if (v == NONE) {
          if (whole) {
            whole = 0;
            n = decode(x + c->at, &cp), v = first_value(t, x + c->at, n);
          }
        }
        if (room(c, 1, v == NONE ? 16 : to[2 * v + 1] + 16, &status)) return status;
        if (v == NONE) emit(c, x + c->at, n);
        else emit(c, (const u8 *)at(o->f) + to[2 * v], to[2 * v + 1]), c->left -= to[2 * v + 1];
        c->at += n;
        if (c->at < c->m_end) whole = 0;
      }
      c->any = 0;
      behind(c, d);
    }
    end_text(c, s);
  }
  return WB_DONE;
}

/* decompose: text becomes code points as u32 with their combining class from bit 24 on. a, b, c as in map; d, e the table of classes. */
static inline void put(ctx *c, const op *o, u32 cp) { ((u32 *)mem(c, c->out))[c->made++] = cp | class_of(o->d, o->e, cp) << 24; }

static u32 op_decompose(ctx *c, const op *o) {
  u32 status, cp;
  while (c->i < c->num) {
    seg *s = segs(c) + c->i;
    if (!begin_text(c, s)) continue;
    if (!c->inside) c->at = c->from, c->inside = 1;
    for (; c->at < s->end; c->left -= 12) {
      if (c->left < 0) return WB_MORE;
      if (room(c, 4, 512, &status)) return status;
      u32 n = decode(mem(c, c->text) + c->at, &cp), e = word_of(o->a, o->b, cp);
      if (cp >= 0xac00 && cp < 0xd7a4) {
        u32 k = cp - 0xac00;
        put(c, o, 0x1100 + k / 588);
        put(c, o, 0x1161 + wb_rem(k, 588) / 28);
        u32 tail = wb_rem(k, 28);
        if (tail) put(c, o, 0x11a7 + tail);
      } else if (e) {
        const u8 *r = (const u8 *)at(o->c) + (e >> 8), *end = r + (e >> 1 & 127);
        while (r < end) {
          u32 x;
          r += decode(r, &x);
          put(c, o, x);
        }
      } else {
        put(c, o, cp);
      }
      c->at += n;
    }
    end_text(c, s);
  }
  return WB_DONE;
}

/* order: every run of marks by rising class, those of one class as they stand. Long runs are counted and dealt out behind the text. */
static u32 op_order(ctx *c) {
  u32 status;
  u32 *t = (u32 *)mem(c, c->text);
  for (; c->i < c->num; c->i++, c->inside = 0) {
    u32 end = segs(c)[c->i].end;
    if (!c->inside) c->at = c->from, c->any = 0, c->inside = 1;
    while (c->at < end) {
      if (c->left < 0) return WB_MORE;
      if (c->any == 0) { /* find a run */
        c->left -= 3;
        if (!(t[c->at] >> 24)) {
          c->at++;
          continue;
        }
        c->lo = c->at, c->any = 1;
        for (u32 j = 0; j < 256; j++) c->counts[j] = 0;
      }
      if (c->any == 1) { /* count it */
        while (c->lo < end && t[c->lo] >> 24) {
          if (c->left < 0) return WB_MORE;
          c->counts[t[c->lo++] >> 24]++, c->left -= 3;
        }
        u32 sum = 0;
        for (u32 j = 0; j < 256; j++) {
          u32 n = c->counts[j];
          c->counts[j] = sum, sum += n;
        }
        c->left -= 256;
        c->hold = c->lo, c->lo = c->at, c->any = 2;
      }
      if (grown(c, (u64)c->out + 4ull * (c->hold - c->at), &status)) return status;
      u32 *x = (u32 *)mem(c, c->out);
      if (c->any == 2) { /* deal it out */
        for (; c->lo < c->hold; c->left -= 4) {
          if (c->left < 0) return WB_MORE;
          x[c->counts[t[c->lo] >> 24]++] = t[c->lo];
          c->lo++;
        }
        c->lo = c->at, c->any = 3;
      }
      for (; c->lo < c->hold; c->left -= 2) { /* and bring it back */
        if (c->left < 0) return WB_MORE;
        t[c->lo] = x[c->lo - c->at];
        c->lo++;
      }
      c->at = c->hold, c->any = 0;
    }
    c->from = end, c->left -= 4;
  }
  return WB_DONE;
}

/* composed is what two code points make together, or NONE; a, b: triples (first, second, both) that rise. */
static u32 composed(const op *o, u32 x, u32 y) {
  if (x >= 0x1100 && x < 0x1113 && y >= 0x1161 && y < 0x1176) return 0xac00 + ((x - 0x1100) * 21 + y - 0x1161) * 28;
  if (x >= 0xac00 && x < 0xd7a4 && wb_rem(x - 0xac00, 28) == 0 && y > 0x11a7 && y < 0x11c3) return x + y - 0x11a7;
  const u32 *t = at(o->a);
  u32 lo = 0, hi = o->b;
  while (lo < hi) {
    u32 mid = (lo + hi) / 2;
    const u32 *p = t + 3 * mid;
    if (p[0] < x || (p[0] == x && p[1] < y)) lo = mid + 1;
    else hi = mid;
  }
  return lo < o->b && t[3 * lo] == x && t[3 * lo + 1] == y ? t[3 * lo + 2] : NONE;
}

/* compose, in place: made counts what is kept, lo is the last starter, ws the class of the mark kept last behind it. */
static u32 op_compose(ctx *c, const op *o) {
  u32 *t = (u32 *)mem(c, c->text);
  while (c->i < c->num) {
    seg *s = segs(c) + c->i;
    if (!c->inside) c->at = c->from, c->lo = NONE, c->ws = 0, c->inside = 1;
    for (; c->at < s->end; c->left -= 40) {
      if (c->left < 0) return WB_MORE;
      u32 x = t[c->at++], class = x >> 24;
      if (c->lo != NONE && (c->lo == c->made - 1 || (c->ws && c->ws < class))) {
        u32 both = composed(o, t[c->lo] & 0xffffff, x & 0xffffff);
        if (both != NONE) {
          t[c->lo] = both;
          continue;
        }
      }
      if (!class) c->lo = c->made, c->ws = 0;
      else if (c->lo != NONE) c->ws = class;
      t[c->made++] = x;
    }
    end_text(c, s);
  }
  c->len = c->made;
  return WB_DONE;
}

/* encode: code points become UTF-8 again. */
static u32 op_encode(ctx *c) {
  u32 status;
  while (c->i < c->num) {
    seg *s = segs(c) + c->i;
    if (!begin_text(c, s)) continue;
    if (!c->inside) c->at = c->from, c->inside = 1;
    for (; c->at < s->end; c->at++, c->left -= 6) {
      if (c->left < 0) return WB_MORE;
      if (room(c, 1, 16, &status)) return status;
      c->made += encode(mem(c, c->out) + c->made, ((u32 *)mem(c, c->text))[c->at] & 0xffffff);
    }
    end_text(c, s);
  }
  return WB_DONE;
}

#endif
