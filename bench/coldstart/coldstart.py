"""Measures cold starts: from the start of the process to the first answer over HTTP, beside Python and ONNX Runtime.

    python coldstart.py --waybill waybill --serve waybill-serve [--rounds 20] [--json FILE] [--markdown FILE]

It packs a small model (examples/breast-cancer/v1) and a perceptron with 100 MB of weights, builds their images, and starts what is
inside, with the image's root as its root, turn by turn with the peers. Needs root (chroot), and a Python with onnx, onnxruntime,
fastapi and uvicorn. The answers of all are compared: what answers something else is no peer.
"""
import argparse
import http.client
import importlib.metadata
import json
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DEADLINE = 60  # seconds for a first answer


def perceptron(path, width):
    """64 inputs, two hidden layers of width, 8 outputs: with 5000, 101 MB of float32 weights, the same on every run."""
    import numpy
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = numpy.random.default_rng(7)
    nodes, weights, at, size = [], [], "x", 64
    for i, n in enumerate([width, width, 8]):
        w = (rng.standard_normal((size, n)) / size**0.5).astype("float32")
        weights += [numpy_helper.from_array(w, f"w{i}"), numpy_helper.from_array(numpy.zeros(n, "float32"), f"b{i}")]
        last = n == 8
        nodes.append(helper.make_node("Gemm", [at, f"w{i}", f"b{i}"], ["y" if last else f"h{i}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"h{i}"], [f"r{i}"]))
        at, size = f"r{i}", n
    tensor = lambda name, n: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", n])
    graph = helper.make_graph(nodes, "perceptron", [tensor("x", 64)], [tensor("y", 8)], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def golden(project):
    """What ONNX Runtime says of two rows, which the image proves at each start as for any model."""
    import numpy
    import onnxruntime

    x = numpy.random.default_rng(8).standard_normal((2, 64)).astype("float32")
    y = onnxruntime.InferenceSession(str(project / "model.onnx"), providers=["CPUExecutionProvider"]).run(["y"], {"x": x})[0]
    tensor = lambda name, v: {"name": name, "datatype": "FP32", "shape": list(v.shape), "data": v.ravel().tolist()}
    (project / "golden.json").write_text(json.dumps({
        "schema": "https://github.com/waybill-ml/waybill/schema/vectors/v1", "tolerance": [{"output": "y", "rtol": 1e-4, "atol": 1e-4}],
        "vectors": [{"name": "two rows", "inputs": [tensor("x", x)], "reference": [tensor("y", y)]}]}))


class Bench:
    def __init__(self, args, work):
        self.args, self.work = args, work
        self.env = dict(os.environ, WAYBILL_HOME=str(work / "home"), WAYBILL_PASSWORD="measured here only")

    def waybill(self, *words):
        r = subprocess.run([self.args.waybill, *map(str, words)], cwd=self.work, env=self.env, capture_output=True, text=True)
        if r.returncode:
            sys.exit(f"waybill {' '.join(map(str, words))}: exit code {r.returncode}\n{r.stderr}")
        return r.stdout.strip()

    def govern(self):
        for role in "root", "publisher":
            self.waybill("keys", "generate", "--role", role)
        self.waybill("trust", "init", "--root", "root.pub")
        self.waybill("trust", "add", "trust.yaml", "publisher.pub", "--role", "publisher")
        self.waybill("trust", "sign", "trust.yaml", "--key", "root.key")

    def release(self, project):
        ref = self.waybill("pack", project)
        self.waybill("sign", ref, "--key", "publisher.key")
        return ref

    def image(self, name, ref, *flags):
        """Builds and unpacks; gives the root and the image's configuration and size."""
        layout = self.work / f"{name}.image"
        self.waybill("image", ref, "--runtime", self.args.serve, "--platform", "linux/" + {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()], "--out", layout, *flags)
        blob = lambda d: layout / "blobs" / d.replace(":", "/")
        todo, manifest = json.loads((layout / "index.json").read_text())["manifests"], None
        while manifest is None or manifest["config"]["mediaType"] != "application/vnd.oci.image.config.v1+json":
            doc = todo.pop(0)  # beside the image there is its bill of materials
            manifest = json.loads(blob(doc["digest"]).read_text())
            if "manifests" in manifest:
                todo += manifest["manifests"]
                manifest = None
        root = self.work / f"{name}.root"
        for layer in manifest["layers"]:
            with tarfile.open(blob(layer["digest"])) as t:
                t.extractall(root, filter="tar")
        size = doc["size"] + manifest["config"]["size"] + sum(l["size"] for l in manifest["layers"])
        return root, json.loads(blob(manifest["config"]["digest"]).read_text())["config"], size

    def ours(self, root, config, cache):
        """A command that starts what the image starts. A cache is a folder below root that an earlier start has filled."""
        env = dict(e.split("=", 1) for e in config.get("Env", []))
        if cache:
            (root / "cache").mkdir(exist_ok=True)
            os.chown(root / "cache", 65532, 65532)
            (root / "cache").chmod(0o700)
            env["WAYBILL_CACHE"] = "/cache"

        def start(port):
            def enter():
                os.chroot(root)
                os.chdir("/")
                os.setgroups([])
                os.setgid(65532)
                os.setuid(65532)

            argv = config.get("Entrypoint", []) + config.get("Cmd", [])
            return subprocess.Popen(argv, env=dict(env, PORT=str(port)), preexec_fn=enter, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        return start

    def peer(self, kind, model):
        def start(port):
            return subprocess.Popen([sys.executable, HERE / "peer.py", kind, model, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        return start


def free():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(port, path, body=None):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        c.request("POST" if body else "GET", path, body, {"Content-Type": "application/json"} if body else {})
        r = c.getresponse()
        return r.status, r.read()
    finally:
        c.close()


def first(start, path, body):
    """Seconds from the start of the process to its first answer, its resident kilobytes after that, and the answer."""
    port = free()
    began = time.perf_counter()
    p = start(port)
    try:
        while True:
            try:
                status, answer = ask(port, path, body)
                if status == 200:
                    break
            except OSError:
                pass
            if p.poll() is not None or time.perf_counter() - began > DEADLINE:
                sys.exit(f"no answer: exit code {p.poll()}")
            time.sleep(0.0005)
        took = time.perf_counter() - began
        status = pathlib.Path(f"/proc/{p.pid}/status").read_text()
        return took, int(re.search(r"VmRSS:\s+(\d+)", status)[1]), json.loads(answer)
    finally:
        p.send_signal(signal.SIGKILL)
        p.wait()


def numbers(answer):
    out = []
    for o in sorted(answer["outputs"], key=lambda o: o["name"]):
        out += [(o["name"], float(x)) for x in o["data"] if isinstance(x, (int, float))]
    return out


def agree(a, b):
    a, b = numbers(a), numbers(b)
    return len(a) == len(b) > 0 and all(n == m and abs(x - y) <= 1e-4 * max(1, abs(x)) for (n, x), (m, y) in zip(a, b))


def python_size(packages):
    """Bytes of CPython without its tests and tools, and of the packages with what they need: an image without its system libraries."""
    base = pathlib.Path(sys.base_prefix)
    skip = {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "site-packages", "__pycache__"}
    size = os.stat(os.path.realpath(sys.executable)).st_size
    for lib in base.glob("lib/libpython*.so*"):
        if not lib.is_symlink():
            size += lib.stat().st_size
    std = pathlib.Path(sysconfig.get_path("stdlib"))
    for d, dirs, files in os.walk(std):
        dirs[:] = [x for x in dirs if x not in skip and not x.startswith("config-")]
        size += sum(os.lstat(os.path.join(d, f)).st_size for f in files)
    seen, todo = set(), list(packages)
    while todo:
        name = re.split(r"[ ;<>=!~\[(]", todo.pop())[0].lower().replace("_", "-")
        if not name or name in seen:
            continue
        try:
            dist = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        seen.add(name)
        size += sum(f.locate().stat().st_size for f in dist.files or [] if f.suffix != ".pyc" and f.locate().is_file())
        todo += [r for r in dist.requires or [] if "extra ==" not in r]
    return size


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--waybill", required=True, help="waybill program")
    parser.add_argument("--serve", required=True, help="waybill-serve program for this machine")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--width", type=int, default=5000, help="of the hidden layers: 5000 are 101 MB of weights")
    parser.add_argument("--json", help="write figures to FILE")
    parser.add_argument("--markdown", help="write the table to FILE")
    args = parser.parse_args()
    args.waybill, args.serve = str(pathlib.Path(args.waybill).resolve()), str(pathlib.Path(args.serve).resolve())
    if os.geteuid() != 0:
        sys.exit("coldstart.py gives a process the image's root as its own, which needs root: run it with sudo")
    work = pathlib.Path(tempfile.mkdtemp(prefix="coldstart-"))
    try:
        run(Bench(args, work), args, work)
    finally:
        shutil.rmtree(work)


def run(bench, args, work):
    work.chmod(0o755)
    bench.govern()
    big = work / "big"
    big.mkdir()
    perceptron(big / "model.onnx", args.width)
    (big / "waybill.yaml").write_text("name: perceptron\nversion: 1.0.0\nlicense: Apache-2.0\nmodel: model.onnx\ngolden: golden.json\npersonal_data: none\n")
    golden(big)
    small = work / "small"
    shutil.copytree(ROOT / "examples/breast-cancer/v1", small)
    import onnxruntime

    table, figures = [], {"rounds": args.rounds, "machine": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version(), "onnxruntime": onnxruntime.__version__, "models": {}}
    for name, model in ("breast-cancer", small), ("perceptron", big):
        ref = bench.release(model)
        root, config, image = bench.image(name, ref)
        ready_root, ready_config, ready_image = bench.image(f"{name}-compiled", ref, "--compile-cache")
        session = onnxruntime.InferenceSession(str(model / "model.onnx"), providers=["CPUExecutionProvider"])
        inputs = []
        for i in session.get_inputs():
            dims = [d if isinstance(d, int) else 1 for d in i.shape]
            n = 1
            for d in dims:
                n *= d
            inputs.append({"name": i.name, "datatype": {"tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(int64)": "INT64"}[i.type], "shape": dims, "data": [0.5] * n})
        del session
        body = json.dumps({"inputs": inputs}).encode()
        path = f"/v2/models/{name}/infer"
        ways = {
            "Waybill": (bench.ours(root, config, False), image),
            "Waybill, compiled code in the image": (bench.ours(ready_root, ready_config, False), ready_image),
            "Waybill, compile cache warm": (bench.ours(root, config, True), image),
            "ONNX Runtime, http.server": (bench.peer("http", model / "model.onnx"), None),
            "ONNX Runtime, FastAPI": (bench.peer("fastapi", model / "model.onnx"), None),
        }
        weights = (model / "model.onnx").stat().st_size
        sizes = {"ONNX Runtime, http.server": python_size(["onnxruntime"]) + weights, "ONNX Runtime, FastAPI": python_size(["onnxruntime", "fastapi", "uvicorn"]) + weights}
        answers, took, rss = {}, {w: [] for w in ways}, {w: [] for w in ways}
        for way, (start, _) in ways.items():  # files come into memory, caches fill
            _, _, answers[way] = first(start, path, body)
        for way in ways:
            if not agree(answers["Waybill"], answers[way]):
                sys.exit(f"{name}: {way} answers {answers[way]}, Waybill {answers['Waybill']}")
        for _ in range(args.rounds):
            for way in random.sample(list(ways), len(ways)):
                t, m, _ = first(ways[way][0], path, body)
                took[way].append(t * 1000)
                rss[way].append(m / 1024)
        figures["models"][name] = {"model bytes": weights, "ways": {}}
        for way, (_, size) in ways.items():
            size = size or sizes[way]
            figures["models"][name]["ways"][way] = {"best ms": min(took[way]), "median ms": statistics.median(took[way]), "worst ms": max(took[way]), "resident MiB": statistics.median(rss[way]), "image bytes": size}
        f = figures["models"][name]["ways"]
        for way in ways:
            x, base = f[way], f["Waybill"]
            against = lambda other: statistics.median(a / b for a, b in zip(took[way], took[other]))  # of the same round: others use the machine too
            x["times Waybill"], x["times compiled"] = against("Waybill"), against("Waybill, compiled code in the image")
            speed = f" ({x['times Waybill']:.1f}x, {x['times compiled']:.1f}x)"
            ratio = lambda k: "" if way.startswith("Waybill") else f" ({x[k] / base[k]:.1f}x)"
            table.append(f"| {name} | {way} | {x['best ms']:.0f} / {x['median ms']:.0f} / {x['worst ms']:.0f}{speed} | {x['resident MiB']:.0f}{ratio('resident MiB')} | {x['image bytes'] / 1e6:.1f}{ratio('image bytes')} |")
    text = "| model | served by | first answer, ms: best / median / worst | resident, MiB | image, MB |\n|---|---|---|---|---|\n" + "\n".join(table) + "\n"
    print(text, end="")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(figures, indent=1) + "\n")
    if args.markdown:
        pathlib.Path(args.markdown).write_text(text)


if __name__ == "__main__":
    main()
