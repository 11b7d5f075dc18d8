"""Makes tokenizers/*.json: small tokenizers of every kind, trained here, and what the `tokenizers` library gives for hard texts.

usage: trained.py            the files that are kept
       trained.py --many N   also N random texts for each, into the folder $WAYBILL_TOKENIZERS
       trained.py FILE...    what the library gives for these tokenizer.json, into the folder $WAYBILL_TOKENIZERS
"""
import json
import os
import random
import struct
import sys

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers as N, pre_tokenizers as P, processors, trainers

here = os.path.dirname(os.path.abspath(__file__))
texts = [
    "", " ", "  ", "\n", "a", " a", "a ", "  a  b  ", "Hello, world!", "The quick brown fox jumps over the lazy dog.", "I'm can't won't they'll we'd you've he's IT'S DON'T '\u017f \u212a",
    "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m \u1ea4\u0302 \u01d5 u\u0308\u0304 \u1e69 s\u0323\u0307 s\u0307\u0323",
    "\u4f60\u597d\u4e16\u754c mixed\u4e2dtext \u3053\u3093\u306b\u3061\u306f \u30ab\u30bf\u30ab\u30ca \uc548\ub155\ud558\uc138\uc694 \u1112\u1161\u11ab\u1100\u1173\u11af \uac00\u11a8",
    "\U0001f600 smile \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea\U0001f1eb \u2764\ufe0f \U0001f44d\U0001f3fd \u00a9\u200d\u2122 \u00a9\ufe0f",
    "tab\tnew\nline\rcr\r\nboth\n\n\n  indented\x00nul\x07bell\x7f\x85\ufffd\u200bzero\ufeffbom\x0b\x0c",
    "1 12 123 1234 12345 3.14159 -1e-9 \u0661\u0662\u0663 \u00bd \u2167 \u2460 2024-01-31", "don't-stop_now...$5.00+1=2^3`~<|> (a|b) [x] {y} !!! ??", "snake_case camelCase HTTPServer XMLHttpRequest",
    "\u0130stanbul \u0131\u015f\u0131k STRASSE stra\u00dfe \u1e9e \u03a3\u03a3\u03c2 \ufb01n \ufb03 \u2460 \u00b2 \uff21\uff22\uff23 \uff76\uff9e \u3392",
    "\u037e \u1fef \u2126 \u212b \u00a0nbsp\u3000ideo\u2028ls\u2000q\u2029ps\u1680og\u180emv", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0939\u093f\u0928\u094d\u0926\u0940 \u0915\u094d\u0937 \u0627\u0644\u0639\u064e\u0631\u064e\u0628\u0650\u064a\u0651\u064e\u0629 \u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
    "\U00020000\U0002f800\uf900 \U0001d400\U0001d7ce \U00010400\U00010428 \U0002ebf0 \U0001e900", "\u201cquotes\u201d \u2014 \u2026 \u00bf\u00a1 \u00a7 \u20ac \u00a9 \u2581under\u2581score", "\ue000private \U0010ffff \u0378 \U000e0001",
    "##ing # #ing <unk> <s> </s> <pad> <mask> [MASK] [CLS] <|endoftext|> <|end|>x<0x41>", "x\u0301\u0323\u0300\u0327\u0334 e\u0323\u0301 \u0301lead", "<s>start middle<mask> end</s>", "a<mask>b <mask> <mask>c  <mask>  ", "Hello<special>World< special>SPECIAL special",
    "word " * 60, "a" * 100, "b" * 40 + " end", "\u00e9" * 101, " " * 33 + "x" + " " * 17, "\n" * 20, "\u0301" * 40, "\u0315\u0300\u05ae\u0327" * 12, "def f(x):\n    return x + 1  # done\n\n\nclass A:\n\tpass\n",
    "ab\u200dc\u0600d\u0600\u0601 \u0903x\u0903 \r\u0301 k\u0308\u1100\u1161", "lower lowest newer newest wider widest", "https://example.com/a?b=c&d=%20", "\u2018single\u2019 it\u2019s", "\u0e40\u0e01\u0e33 \u0f00 \u1100\u1100\u1161 \uac01\u11a8",
]
corpus = [t for t in texts if len(t) < 400] * 3 + ["the lower newest widest word in the world, he's 123 years"] * 5


def random_texts(n, seed):
    r = random.Random(seed)
    blocks = [(0x20, 0x7E)] * 6 + [(0, 0x2FF), (0x300, 0x36F), (0x370, 0x5FF), (0x600, 0x6FF), (0x900, 0xDFF), (0xE00, 0x11FF), (0x1AB0, 0x1AFF), (0x1E00, 0x206F),
              (0x2000, 0x33FF), (0x4E00, 0x4FFF), (0xAC00, 0xD7A3), (0xF900, 0xFFFF), (0x10000, 0x11FFF), (0x1D000, 0x1FAFF), (0x20000, 0x323AF), (0xE0000, 0xE01EF), (0, 0x10FFFF)]
    pieces = [w for t in texts for w in t.split(" ") if w] + [" ", "  ", "\n", "\t", "'s", "'LL", "<mask>", "<s>", "\u200d", "\u0301", "\u2581"]
    out = []
    for _ in range(n):
        s = ""
        for _ in range(r.randint(0, 12)):
            k = r.random()
            if k < 0.45:
                s += r.choice(pieces)
            elif k < 0.6:
                s += r.choice(texts)[r.randint(0, 20):][:r.randint(1, 12)]
            else:
                lo, hi = r.choice(blocks)
                s += "".join(chr(c) for c in (r.randint(lo, hi) for _ in range(r.randint(1, 4))) if not 0xD800 <= c < 0xE000)
            if r.random() < 0.3:
                s += " "
        out.append(s)
    return out


def special(*names, **more):
    return [AddedToken(n, special=True, normalized=False, **more) for n in names]


def train(model, trainer, normalizer=None, pre=None, alphabet=()):
    t = Tokenizer(model)
    if normalizer is not None:
        t.normalizer = normalizer
    if pre is not None:
        t.pre_tokenizer = pre
    t.train_from_iterator(corpus, trainer)
    return t


def bpe(size=500, model=None, normalizer=None, pre=None, byte=True, tokens=("<unk>", "<s>", "</s>", "<pad>"), **more):
    if byte:
        more["initial_alphabet"] = P.ByteLevel.alphabet()
    return train(model or models.BPE(), trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=special(*tokens), **more), normalizer, pre)


def unigram(size=400, normalizer=None, pre=None):
    return train(models.Unigram(), trainers.UnigramTrainer(vocab_size=size, show_progress=False, special_tokens=["<unk>", "<s>", "</s>", "<pad>"], unk_token="<unk>"), normalizer, pre)


def edited(t, change):
    d = json.loads(t.to_str())
    change(d)
    return Tokenizer.from_str(json.dumps(d)), d


LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
GPT4O = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
         r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s"


def charsmap(rules):
    """A SentencePiece character map: a double array of Darts."""
    text, at = b"", {}
    for v in sorted(set(rules.values())):
        at[v] = len(text)
        text += v.encode() + b"\0"
    root = {}
    for k, v in rules.items():
        n = root
        for b in k.encode():
            n = n.setdefault(b, {})
        n[None] = at[v]
    units, used, bases = [0] * (1 << 16), {0}, set()

    def place(node, pos):
        labels = [0 if b is None else b for b in node]
        base = next(b for b in range(1, 1 << 16) if b not in bases and all((b ^ c) not in used and (b ^ c) < len(units) for c in labels) and (pos ^ b) < 1 << 21)
        used.update(base ^ c for c in labels)
        bases.add(base)
        units[pos] |= (pos ^ base) << 10
        for b, child in node.items():
            if b is None:
                units[pos] |= 1 << 8
                units[base] = child | 1 << 31
            else:
                units[base ^ b] |= b
        for b, child in node.items():
            if b is not None:
                place(child, base ^ b)

    place(root, 0)
    top = max(used) + 256
    trie = struct.pack("<%dI" % top, *units[:top])
    return struct.pack("<I", len(trie)) + trie + text


def smallmap():
    rules = {"\uff21": "A", "\uff22": "B", "\ufb01": "fi", "\ufb03": "ffi", "\u00a0": " ", "\u3000": " ", "\u2028": " ", "\t": " ", "\n": " ", "\r": " ", "\x00": "", "\x07": "", "\u200b": "", "\ufeff": "",
             "e\u0301": "\u00e9", "s\u0323": "\u1e63", "\u212b": "\u00c5", "\u00bd": "1\u20442", "\u3392": "MHz", "\uff76\uff9e": "\u30ac", "\u2460": "1", "\u00a9": "(c)", "k\u0308": "K", "\u0600": "", "\u1100\u1161": "\uac00"}
    del rules["\x00"]
    return charsmap(rules)


def made():
    """Name, tokenizer, and the JSON when it differs from what the library would save."""
    gpt2 = bpe(pre=P.ByteLevel(add_prefix_space=False))
    gpt2.post_processor = processors.ByteLevel(trim_offsets=False)
    yield "gpt2", gpt2, None
    roberta = bpe(pre=P.ByteLevel(add_prefix_space=True))
    roberta.add_special_tokens([AddedToken("<mask>", special=True, lstrip=True, normalized=False)])
    roberta.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    yield "roberta", roberta, None
    llama3 = bpe(model=models.BPE(ignore_merges=True), pre=P.Sequence([P.Split(Regex(LLAMA3), "isolated"), P.ByteLevel(add_prefix_space=False, use_regex=False)]))
    llama3.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])])
    llama3.add_tokens([AddedToken("special", single_word=True, normalized=True), AddedToken("<|end|>", rstrip=True, special=True)])
    yield "llama3", llama3, None
    yield "qwen2", bpe(normalizer=N.NFC(), pre=P.Sequence([P.Split(Regex(QWEN), "isolated"), P.ByteLevel(add_prefix_space=False, use_regex=False)])), None
    yield "gpt4o", bpe(pre=P.Sequence([P.Split(Regex(GPT4O), "removed", invert=True), P.ByteLevel(add_prefix_space=False, use_regex=False)])), None
    yield "cl100k", bpe(pre=P.Sequence([P.Split(Regex(CL100K), "isolated"), P.ByteLevel(add_prefix_space=False, use_regex=False)])), None
    yield "deepseek", bpe(pre=P.Sequence([P.Split(Regex(r"\p{N}{1,3}"), "isolated"), P.Split(Regex("[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"), "isolated"), P.Split(Regex(
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"), P.ByteLevel(add_prefix_space=False, use_regex=False)])), None
    yield "bloom", bpe(pre=P.Sequence([P.Split(Regex(" ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+"), "isolated"), P.ByteLevel(add_prefix_space=False, use_regex=False)])), None
    yield "starcoder", bpe(pre=P.Sequence([P.Digits(individual_digits=True), P.ByteLevel(add_prefix_space=False)])), None
    yield "falcon", bpe(pre=P.Sequence([P.Punctuation("contiguous"), P.ByteLevel(add_prefix_space=False), P.Digits(False), P.Split(Regex("[0-9][0-9][0-9]"), "isolated")])), None
    clip = bpe(model=models.BPE(unk_token="<unk>", end_of_word_suffix="</w>", continuing_subword_prefix=""), normalizer=N.Sequence([N.NFC(), N.Replace(Regex(r"\s+"), " "), N.Lowercase()]),
               pre=P.Sequence([P.Split(Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), "removed", invert=True), P.ByteLevel(add_prefix_space=False)]), end_of_word_suffix="</w>")
    clip.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1))
    clip.enable_truncation(20)
    clip.enable_padding(length=20, pad_id=3, pad_token="<pad>")
    yield "clip", clip, None
    bytes_ = ["<0x%02X>" % i for i in range(256)]
    llama2 = bpe(byte=False, size=700, model=models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True), normalizer=N.Sequence([N.Prepend("\u2581"), N.Replace(" ", "\u2581")]),
                 tokens=["<unk>", "<s>", "</s>"] + bytes_, limit_alphabet=80)
    d = json.loads(llama2.to_str())
    d["added_tokens"] = d["added_tokens"][:3]
    d["model"]["merges"] = [" ".join(m) for m in d["model"]["merges"]]
    d["post_processor"] = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}], "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    yield "llama2", Tokenizer.from_str(json.dumps(d)), d
    del d["model"]["vocab"]["<0xE4>"], d["model"]["vocab"]["<0xF0>"]
    yield "llama2-holes", Tokenizer.from_str(json.dumps(d)), d
    d = json.loads(json.dumps(d))
    d["model"]["fuse_unk"] = False
    yield "llama2-unfused", Tokenizer.from_str(json.dumps(d)), d
    gemma = bpe(byte=False, size=700, model=models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True), normalizer=N.Replace(" ", "\u2581"), pre=P.Split(" ", "merged_with_previous"),
                tokens=["<pad>", "<eos>", "<bos>", "<unk>"] + bytes_, limit_alphabet=90)
    d = json.loads(gemma.to_str())
    d["added_tokens"] = d["added_tokens"][:4]
    yield "gemma", Tokenizer.from_str(json.dumps(d)), d
    yield "mistral", bpe(byte=False, size=500, model=models.BPE(unk_token="<unk>", byte_fallback=False), pre=P.Metaspace(prepend_scheme="first", split=False), limit_alphabet=70), None
    yield "prefix", bpe(byte=False, model=models.BPE(unk_token="<unk>", continuing_subword_prefix="##"), pre=P.Whitespace(), continuing_subword_prefix="##", limit_alphabet=60), None
    nounk = bpe(byte=False, model=models.BPE(), pre=P.WhitespaceSplit(), limit_alphabet=60)
    nounk.enable_truncation(9, direction="left", stride=2)
    yield "dropped", nounk, None
    xlmr = unigram(normalizer=N.Sequence([N.Precompiled(smallmap()), N.Replace(Regex(" {2,}"), " ")]), pre=P.Metaspace())
    xlmr.add_special_tokens([AddedToken("<mask>", special=True, lstrip=True, normalized=False)])
    xlmr.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    xlmr.enable_padding(pad_id=3, pad_token="<pad>", direction="left")
    yield "xlmr", xlmr, None
    t5 = unigram(normalizer=N.Precompiled(smallmap()), pre=P.Sequence([P.WhitespaceSplit(), P.Metaspace()]))
    t5.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    yield "t5", t5, None
    albert = unigram(normalizer=N.Sequence([N.Replace("``", '"'), N.Replace("''", '"'), N.NFKD(), N.StripAccents(), N.Lowercase(), N.Precompiled(smallmap())]), pre=P.Sequence([P.WhitespaceSplit(), P.Metaspace()]))
    albert.post_processor = processors.TemplateProcessing(single="<s> $A </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)])
    yield "albert", albert, None
    plain = unigram(size=300, normalizer=N.Sequence([N.Nmt(), N.NFKC(), N.Strip()]))
    yield "unigram-plain", plain, None

    def fallback(d):
        v = d["model"]["vocab"]
        v += [["<0x%02X>" % i, -20.0 - i / 16] for i in range(256)]
        v += [["\u4f60\u597d", -1000.0], ["zq", -30.25], ["qz", -30.25]]
        d["model"]["byte_fallback"] = True
    t, d = edited(plain, fallback)
    yield "unigram-bytes", t, d
    for name, n in (("nfd", N.NFD()), ("nfkd", N.NFKD()), ("nfc", N.NFC()), ("strip", N.Sequence([N.Strip(right=False), N.ByteLevel()])), ("bert", N.BertNormalizer(strip_accents=True, lowercase=False))):
        # a vocabulary of single bytes shows the normalised text itself
        d = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": json.loads(n.__getstate__()), "pre_tokenizer": None, "post_processor": None, "decoder": None,
             "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": True, "vocab": {b: i for i, b in enumerate(bytes_)}, "merges": []}}
        yield "bytes-" + name, Tokenizer.from_str(json.dumps(d)), d
    wordlevel = train(models.WordLevel(unk_token="<unk>"), trainers.WordLevelTrainer(vocab_size=200, show_progress=False, special_tokens=["<unk>"]), N.Lowercase(), P.Sequence([P.Whitespace(), P.Punctuation("merged_with_next")]))
    yield "wordlevel", wordlevel, None
    wordpiece = train(models.WordPiece(unk_token="<unk>"), trainers.WordPieceTrainer(vocab_size=300, show_progress=False, special_tokens=["<unk>"]), N.Sequence([N.NFKC(), N.Lowercase()]), P.Sequence([P.CharDelimiterSplit(" "), P.Split(Regex(r"\b"+"[a-z]+"), "merged_with_previous"), P.FixedLength(9)]))
    wordpiece.post_processor = processors.BertProcessing(("<unk>", 0), ("<unk>", 0))
    yield "wordpiece", wordpiece, None
    added = bpe(pre=P.ByteLevel(add_prefix_space=False), normalizer=N.Sequence([N.Lowercase(), N.Replace("-", " ")]))
    added.add_tokens([AddedToken("SPECIAL", single_word=True, normalized=True), AddedToken("lower", lstrip=True, rstrip=True), AddedToken("low", single_word=True), AddedToken("new", rstrip=True, normalized=False),
                      AddedToken("newest", normalized=False), AddedToken("<mask>", lstrip=True, rstrip=True, single_word=True, special=True)])
    yield "added", added, None


def cases(t, list_):
    out = []
    batched = t.padding is not None
    for s in ([list_[i:i + 7] for i in range(0, len(list_), 7)] if batched else [[x] for x in list_]):
        try:
            r = t.encode_batch(s)
        except Exception as e:
            print("  no answer for %r: %s" % (s, e))
            continue
        c = {"texts": s, "ids": [e.ids for e in r]}
        if batched or any(any(e.type_ids) for e in r):
            c["mask"], c["types"] = [e.attention_mask for e in r], [e.type_ids for e in r]
        out.append(c)
    return out


def save(path, head, list_):
    with open(path, "w") as f:
        json.dump({**head, "cases": list_}, f, separators=(",", ":"))
        f.write("\n")


if __name__ == "__main__":
    args = sys.argv[1:]
    big = os.environ.get("WAYBILL_TOKENIZERS")
    if args and args[0] != "--many":
        for i, file in enumerate(args):
            t = Tokenizer.from_file(file)
            save(os.path.join(big, "real-%d-%s.json" % (i, os.path.basename(os.path.dirname(file)))), {"file": os.path.abspath(file)}, cases(t, texts + random_texts(2000, i)))
        sys.exit()
    os.makedirs(os.path.join(here, "tokenizers"), exist_ok=True)
    for i, (name, t, d) in enumerate(made()):
        d = d or json.loads(t.to_str())
        t = Tokenizer.from_str(json.dumps(d))  # reading the scores changes their last bits
        save(os.path.join(here, "tokenizers", name + ".json"), {"tokenizer": d}, cases(t, texts))
        if args:
            save(os.path.join(big, name + ".json"), {"tokenizer": d}, cases(t, random_texts(int(args[1]), i)))
