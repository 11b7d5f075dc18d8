#!/usr/bin/env python3
"""Writes the small projects that are bundled as they are in the tests. Standard library only; equal bytes on every run.

usage: python3 gen.py   (in this folder)
"""
import json, os, pathlib, struct, zipfile

here = pathlib.Path(__file__).parent


def write(name, data):
    p = here / name
    p.parent.mkdir(parents=True, exist_ok=True)
    p.write_bytes(data if isinstance(data, bytes) else data.encode())


def safetensors(tensors):
    """tensors: {name: (dtype, shape, bytes)}"""
    head, data = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, shape, raw) in tensors.items():
        head[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    h = json.dumps(head, separators=(",", ":")).encode()
    h += b" " * (-len(h) % 8)
    return struct.pack("<Q", len(h)) + h + data


def gguf(meta, tensors):
    """meta: {key: str or int}; tensors: [(name, shape, type, bytes)]"""
    s = lambda t: struct.pack("<Q", len(t.encode())) + t.encode()
    b = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(meta))
    for k, v in meta.items():
        b += s(k) + (struct.pack("<I", 8) + s(v) if isinstance(v, str) else struct.pack("<II", 4, v))
    data = b""
    for name, shape, typ, raw in tensors:
        data += b"\0" * (-len(data) % 32)
        b += s(name) + struct.pack("<I", len(shape)) + b"".join(struct.pack("<Q", d) for d in shape) + struct.pack("<IQ", typ, len(data))
        data += raw
    return b + b"\0" * (-len(b) % 32) + data


f16 = lambda n: struct.pack("<%de" % n, *[i / 8 for i in range(n)])
f32 = lambda n: struct.pack("<%df" % n, *[i / 4 for i in range(n)])

# One file of each kind.
project = "name: %s\nversion: 1.0.0\nlicense: Apache-2.0\npersonal_data: none\ncompile: false\n"
write("gguf/waybill.yaml", project % "tiny" + "model: tiny-q4.gguf\ndocs: [README.md]\nowner: model team\nepoch: 2\n")
write("gguf/tiny-q4.gguf", gguf({"general.architecture": "llama", "general.name": "tiny", "general.file_type": 2},
                                [("token_embd.weight", [32, 4], 2, bytes(range(72))), ("output_norm.weight", [32], 0, f32(32))]))
write("gguf/README.md", "# Tiny\n\nFour blocks of q4_0.\n")
write("engine/waybill.yaml", project % "engine" + "model: model.engine\nconfig: [config.pbtxt]\n")
write("engine/model.engine", b"ftrt" + bytes(range(200)))
write("engine/config.pbtxt", 'name: "engine"\nplatform: "tensorrt_plan"\n')

# A folder in the way of Hugging Face, with shards.
one = {"embed.weight": ("BF16", [4, 8], bytes(64))}
two = {"norm.weight": ("F32", [8], f32(8)), "lm_head.weight": ("BF16", [4, 8], bytes(range(64)))}
write("folder/waybill.yaml", project % "folder" + "model: weights\nmetrics: evaluation.json\ndatasets: dataset.json\n"
      "considerations:\n  users: [support staff]\n  use_cases: [drafts of answers]\n  limitations: [English only]\n"
      "  risks:\n    - name: invented facts\n      mitigation: a person reads each answer\n")
write("folder/weights/model-00001-of-00002.safetensors", safetensors(one))
write("folder/weights/model-00002-of-00002.safetensors", safetensors(two))
write("folder/weights/model.safetensors.index.json", json.dumps({
    "metadata": {"total_size": 160},
    "weight_map": {**{n: "model-00001-of-00002.safetensors" for n in one}, **{n: "model-00002-of-00002.safetensors" for n in two}},
}, indent=2) + "\n")
write("folder/weights/config.json", '{\n  "architectures": ["LlamaForCausalLM"],\n  "model_type": "llama"\n}\n')
write("folder/weights/tokenizer.json", '{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}}}\n')
write("folder/weights/README.md", "# Folder\r\n\r\nThese lines end as on Windows, and stay so.\r\n")
write("folder/weights/.cache/note", "left out\n")
write("folder/weights/empty.txt", "")
write("folder/weights/sub/extra.bin", b"\1\2\3\4")
write("folder/evaluation.json", json.dumps({"metrics": [
    {"name": "rouge_l", "value": 0.412, "direction": "higher", "slice": "all", "n": 500, "ci": [0.40, 0.43], "datasetDigest": "sha256:" + "a" * 64},
    {"name": "rouge_l", "value": 0.398, "direction": "higher", "slice": "region=north", "n": 100, "datasetDigest": "sha256:" + "a" * 64},
], "at": "2026-01-02T03:04:05Z", "tool": "lm-eval 0.4"}, indent=2) + "\n")
write("folder/dataset.json", json.dumps({"datasets": [
    {"name": "tickets", "role": "train", "digest": "sha256:" + "b" * 64, "license": "CC-BY-4.0", "rows": 10000, "personalData": "none"},
    {"name": "tickets-held-out", "role": "test", "digest": "sha256:" + "a" * 64, "uri": "https://data.example/held-out", "license": "CC-BY-4.0", "personalData": "none"},
]}, indent=2) + "\n")

# What is refused: a pickle that would run a command, a torch archive around it, a pointer.
pickle = b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x02id\x94\x85\x94R\x94."
write("bad/model.pkl", pickle)
write("bad/renamed.bin", pickle)
with zipfile.ZipFile(here / "bad/model.pt", "w") as z:
    for n, d in (("archive/version", b"3\n"), ("archive/data.pkl", pickle), ("archive/data/0", f16(4))):
        i = zipfile.ZipInfo(n, (1980, 1, 1, 0, 0, 0))
        i.create_system, i.external_attr = 3, 0o644 << 16
        z.writestr(i, d)
write("bad/pointer.gguf", "version https://git-lfs.github.com/spec/v1\noid sha256:" + "c" * 64 + "\nsize 4096\n")
