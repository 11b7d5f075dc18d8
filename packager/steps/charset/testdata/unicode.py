"""Makes ../unicode.txt: what the `tokenizers` library takes each code point for. It asks the library where that is possible, and reads the
tables of the crates that it is built from otherwise.

usage: unicode.py CRATES   (CRATES holds the sources of onig_sys, unicode-normalization-alignments and unicode-segmentation)

A line `set NAME` is followed by ranges: the distance from the end of the one before, and behind a dot how many more code points follow, all
in hexadecimal. A line `map NAME` is followed by code points (distance from the one before), each with what it becomes.
"""
import glob
import os
import re
import sys

from tokenizers import normalizers as N, pre_tokenizers as P

crates = sys.argv[1]
codes = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
out = []


def source(pattern):
    with open(sorted(glob.glob(os.path.join(crates, pattern)))[-1]) as f:
        return f.read()


def wrap(head, items):
    out.append(head)
    line = ""
    for i in items:
        if len(line) + len(i) > 150:
            out.append(line)
            line = ""
        line += (" " if line else "") + i
    if line:
        out.append(line)


def put_set(name, cps):
    cps = sorted(cps)
    items, at, i = [], 0, 0
    while i < len(cps):
        j = i
        while j + 1 < len(cps) and cps[j + 1] == cps[j] + 1:
            j += 1
        items.append("%x" % (cps[i] - at) + (".%x" % (j - i) if j > i else ""))
        at = cps[j] + 1
        i = j + 1
    wrap("set " + name, items)


def put_map(name, m):
    items, at = [], 0
    for c in sorted(m):
        items.append("%x=" % (c - at) + ".".join("%x" % v for v in m[c]))
        at = c
    wrap("map " + name, items)


def pieces(p, c):
    return len(p.pre_tokenize_str("a" + chr(c) + "b"))


def becomes(n, hangul=False):
    m = {}
    for c in codes:
        s = n.normalize_str(chr(c))
        if s != chr(c) and (hangul or not 0xAC00 <= c < 0xD7A4):
            m[c] = [ord(x) for x in s]
    return m


# The patterns' engine.
onig = source("onig_sys-*/oniguruma/src/unicode_property_data.c")
arrays = {m[1]: [int(x, 16) for x in re.findall(r"0x[0-9a-f]+", m[2])] for m in re.finditer(r"CR_(\w+)\[\] = \{(.*?)\};", onig, re.S)}
for a, b in re.findall(r"#define CR_(\w+) CR_(\w+)", onig):
    arrays[a] = arrays[b]
categories = "Lu Ll Lt Lm Lo Mn Mc Me Nd Nl No Pc Pd Ps Pe Pi Pf Po Sm Sc Sk So Zs Zl Zp Cc Cf Co".split()
others = """Word Alphabetic White_Space Lowercase Uppercase Ideographic Emoji Emoji_Presentation Emoji_Modifier Extended_Pictographic
 Latin Greek Cyrillic Armenian Hebrew Arabic Syriac Thaana Devanagari Bengali Gurmukhi Gujarati Oriya Tamil Telugu Kannada Malayalam Sinhala Thai Lao
 Tibetan Myanmar Georgian Hangul Ethiopic Cherokee Khmer Mongolian Hiragana Katakana Bopomofo Han Yi Common Inherited""".split()
for name in categories + others:
    a = arrays[name]
    put_set(name, [c for lo, hi in zip(a[::2], a[1::2]) for c in range(lo, hi + 1)])

# Rust's characters and the categories of Unicode 8.
put_set("~word", [c for c in codes if pieces(P.Whitespace(), c) == 1])
put_set("~space", [c for c in codes if pieces(P.WhitespaceSplit(), c) == 2])
put_set("~numeric", [c for c in codes if pieces(P.Digits(), c) == 3])
put_set("~punctuation", [c for c in codes if pieces(P.Punctuation(), c) == 3])
clean = N.BertNormalizer(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
put_set("~other", [c for c in codes if clean.normalize_str(chr(c)) == ""])
bare = N.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
put_set("~nonspacing", [c for c in codes if bare.normalize_str(chr(c)) == ""])
put_set("~combining", [c for c in codes if N.StripAccents().normalize_str(chr(c)) == ""])
put_map("lower", becomes(N.Lowercase(), True))

# Normal forms.
canonical = becomes(N.NFD())
put_map("canonical", canonical)
put_map("compatible", {c: v for c, v in becomes(N.NFKD()).items() if canonical.get(c) != v})
tables = source("unicode-normalization-alignments-*/src/tables.rs")
kv = re.search(r"CANONICAL_COMBINING_CLASS_KV.*?= &\[(.*?)\];", tables, re.S)[1]
put_map("class", {v >> 8: [v & 255] for v in (int(x, 16) for x in re.findall(r"0x[0-9A-F]+", kv))})
pairs = {}
for k, c in re.findall(r"\((0x[0-9A-F]+), '\\u\{([0-9A-F]+)\}'\)", re.search(r"COMPOSITION_TABLE_KV.*?= &\[(.*?)\];", tables, re.S)[1]):
    pairs[int(c, 16)] = [int(k, 16) >> 16, int(k, 16) & 0xFFFF]
astral = re.search(r"fn composition_table_astral(.*?)\n}", tables, re.S)[1]
for a, b, c in re.findall(r"\('\\u\{([0-9A-F]+)\}', '\\u\{([0-9A-F]+)\}'\) => Some\('\\u\{([0-9A-F]+)\}'\)", astral):
    pairs[int(c, 16)] = [int(a, 16), int(b, 16)]
put_map("composed", pairs)

# Grapheme clusters.
seg = source("unicode-segmentation-*/src/tables.rs")
clusters = {}
for lo, hi, cat in re.findall(r"\(\s*'\\u\{([0-9a-f]+)\}',\s*'\\u\{([0-9a-f]+)\}',\s*GC_(\w+)\s*\)", seg):
    clusters.setdefault(cat, []).extend(range(int(lo, 16), int(hi, 16) + 1))
for cat in sorted(clusters):
    put_set("=" + cat, clusters[cat])
extend = re.search(r"InCB_Extend_table.*?= &\[(.*?)\];", seg, re.S)[1]
put_set("=InCB_Extend", [c for lo, hi in re.findall(r"\('\\u\{([0-9a-f]+)\}', '\\u\{([0-9a-f]+)\}'\)", re.sub(r"\s+", " ", extend))
                         for c in range(int(lo, 16), int(hi, 16) + 1)])
linker = re.search(r"fn is_incb_linker.*?\{(.*?)\n}", seg, re.S)[1]
put_set("=InCB_Linker", [c for a, b in re.findall(r"'\\u\{([0-9A-F]+)\}'(?:\s*\.\.=\s*'\\u\{([0-9A-F]+)\}')?", linker)
                         for c in range(int(a, 16), int(b or a, 16) + 1)])

with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "unicode.txt"), "w") as f:
    f.write("\n".join(out) + "\n")
