"""Makes text.json, what the `tokenizers` library gives for hard strings, and text-tiny.json, a small WordPiece tokenizer trained here.

usage: text.py FOLDER   (FOLDER/bert-wordpiece/tokenizer.json is bert-base-uncased's)
"""
import json
import os
import sys
import zlib

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

here = os.path.dirname(os.path.abspath(__file__))
strings = [
    "", " ", "Hello, world!", "The quick brown fox jumps over the lazy dog.", "caf\u00e9 cafe\u0301 na\u00efve \u00c5ngstr\u00f6m \u1ea4\u0302",
    "\u4f60\u597d\u4e16\u754c mixed\u4e2dtext \u3053\u3093\u306b\u3061\u306f \uc548\ub155\ud558\uc138\uc694", "\U0001f600 smile \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \u2764\ufe0f",
    "a" * 100, "a" * 101, "b" * 5000 + " end", "\u00e9" * 100, "\u00e9" * 101, "tab\tnew\nline\rcr\x00nul\x07bell\x7f\x85\ufffd\u200bzero\ufeffbom",
    "[MASK] is [CLS][SEP] [mask] [UNK]x[PAD]", "[[MASK]]", "[MAS K]", "don't-stop_now...$5.00+1=2^3`~<|>", "\u0130stanbul \u0131\u015f\u0131k STRASSE stra\u00dfe \u1e9e \u03a3\u03a3\u03c2",
    "\u037e \u1fef \u2126 \u212b \u00a0nbsp\u3000ideo\u2028ls\u2000q", "unaffable unwantedness antidisestablishmentarianism", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0939\u093f\u0928\u094d\u0926\u0940 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e9\u05b8\u05c1\u05dc\u05d5\u05b9\u05dd",
    "word " * 300, "\U00020000\U0002f800\uf900", "\u201cquotes\u201d \u2014 \u2026 \u00bf\u00a1 \u00a7 \u20ac \u00a9", "\ue000private \U0010ffff \u0378", "##ing # #ing", "x\u0301\u0323\u0300",
]


def rows(t, texts):
    return [{"texts": b, "ids": [e.ids for e in r], "mask": [e.attention_mask for e in r], "types": [e.type_ids for e in r]}
            for b in texts for r in [t.encode_batch(b)]]


def pages(t):
    """For each 256 code points, CRC-32 of the words that "a" + code point + "b" is cut into."""
    out = []
    for p in range(0x1100):
        text = []
        for cp in range(p << 8, (p << 8) + 256):
            if 0xD800 <= cp < 0xE000:
                continue
            s = t.normalizer.normalize_str("a" + chr(cp) + "b")
            text.append("\x1f".join(w for w, _ in t.pre_tokenizer.pre_tokenize_str(s)))
        out.append(zlib.crc32("\x1e".join(text).encode()))
    return out


def tiny():
    t = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    t.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.train_from_iterator([s for s in strings if len(s) < 200] * 3, trainers.WordPieceTrainer(
        vocab_size=300, show_progress=False, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    t.post_processor = processors.TemplateProcessing(single="[CLS]:2 $A:1 [SEP]:0", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    t.enable_truncation(12, direction="left")
    t.enable_padding(direction="left", pad_id=0, pad_type_id=3, pad_to_multiple_of=8)
    return t


t = tiny()
t.save(os.path.join(here, "text-tiny.json"))
bert = Tokenizer.from_file(os.path.join(sys.argv[1], "bert-wordpiece", "tokenizer.json"))
out = {"tiny": rows(t, [strings, [""], ["Hello"], ["the quick", "fox " * 40]]), "bert": rows(bert, [[s] for s in strings] + [strings[:5]]), "pages": pages(bert)}
with open(os.path.join(here, "text.json"), "w") as f:
    json.dump(out, f, separators=(",", ":"))
    f.write("\n")
