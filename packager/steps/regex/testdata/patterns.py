"""Makes patterns.json: what the `tokenizers` library finds with patterns that are written here or drawn at random."""
import json
import os
import random

from tokenizers import Regex, pre_tokenizers as P

texts = ["", "aab abc  aabb\n\nAB", "x1y22z333 4444", "  \t lead and trail \n ", "it's IT'S we\u2019ll \u017f \u212a", "\u00e9e\u0301\u4f60\u597d \u0661\u0662 _-_.", "a\nb\r\nc\n", "foo(bar)[baz]{qux}|!?", "\U0001f600\u200d\u0915\u094d \u01c5 \u16ee \u00b2\u00bd"]
patterns = [
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", r"(?i:'s|'ll)|\w+", r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+|\s++$|\s*[\r\n]|\s+(?!\S)|\s",
    r"a|ab|abc", r"abc|ab|a", r"a{2}?b?|b", r"a{1,2}?b?", r"(?:aa|a)+?b", r"a*b|a", r"(?=\w)\w\w?", r"(?<=a)b", r"(?<!a)b+", r"\bb\w*", r"\Bb", r"^\w+", r"\w+$", r"\A\w", r"\w\z", r"[a-c&&[^b]]+", r"[^(\s|[.,!?])]+",
    r"[[:alpha:]]+", r"[[:^alpha:]]+", r"[[:punct:]]", r"\h+", r"\H+", r"(?i)AB+", r"(?i)[k-s]+", r"x(?i)Y|1", r"(?m:.+)", r".+", r"\p{Han}+|\p{Latin}+", r"\p{^L}+", r"\P{L}{2,3}", r"\p{Lt}|\p{Nl}|\p{No}", r"[\p{L}\p{M}]+", r"\x{4f60}|\u597d", r"\d+|\D",
    r"(?>a+)b", r"a?+b", r"(\w)(\d)", r"(?<name>\w+) ", r"\s+(?!\S)|\s+", r"\s(?=\S)", r"[\]\[(){}|]+", r"a|", r"(?#note)a", r"\S+\s*", r"(?:\r\n|\n)+", r"[^\n]*\n", r"(?!a)[a-c]", r"(?=[ab]|\s)\S?.", r"\W", r"[\w&&\D]+", r"(?!\S|$)\s", r"\s+?(?=\S|\z)", r"_|-",
]
atoms = ["a", "b", "ab", r"\w", r"\s", r"\d", "[ab]", "[^a]", ".", r"\p{L}", "(?!a)", r"(?=\w)", r"(?<=a)", r"(?<!\s)", r"\b", "1", " "]
r = random.Random(1)


def draw(depth):
    k = r.random()
    if depth == 0 or k < 0.4:
        return r.choice(atoms)
    if k < 0.7:
        return "".join(draw(depth - 1) for _ in range(r.randint(2, 3)))
    if k < 0.85:
        return "(?:" + "|".join(draw(depth - 1) for _ in range(r.randint(2, 3))) + ")"
    a = r.choice([x for x in atoms if not x.startswith("(?") and x != r"\b"])
    a = "(?:" + a + ")" if len(a) == 2 and a[0] != "\\" else a
    return a + r.choice(["*", "+", "?", "*?", "+?", "??", "{2}", "{1,2}", "{2,}", "{1,2}?"])


out = []
for p in patterns + [draw(3) for _ in range(400)]:
    try:
        split = P.Split(Regex(p), "removed", invert=True)
        found = [[s for s, _ in split.pre_tokenize_str(t)] for t in texts]
    except Exception:
        continue
    out.append({"pattern": p, "found": found})
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "patterns.json"), "w") as f:
    json.dump({"texts": texts, "patterns": out}, f, separators=(",", ":"))
    f.write("\n")
