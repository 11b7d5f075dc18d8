"""Asks a server through Triton's own clients and compares every answer with what the test says that the model gives.

usage: triton_client.py HOST:PORT CASES.json

CASES: {"models": [{"name", "datatype", "shape", "input": hex, "output": hex, "output_shape"}], "stream": {"name", "inputs": [hex], "outputs": [hex]}}
where hex is the tensor's binary form of the protocol."""

import asyncio
import json
import queue
import sys

import ml_dtypes
import numpy as np
import tritonclient.grpc as tg
import tritonclient.grpc.aio as tga
import tritonclient.http as th
import tritonclient.http.aio as tha
from tritonclient.utils import InferenceServerException, deserialize_bytes_tensor, serialize_byte_tensor

checks = 0


def check(ok, what):
    global checks
    checks += 1
    if not ok:
        print("FAILED:", what)
        sys.exit(1)


NUMPY = {"BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "INT8": np.int8, "INT16": np.int16,
         "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64, "BF16": ml_dtypes.bfloat16}


def array(case):
    raw = bytes.fromhex(case["input"])
    dt = case["datatype"]
    if dt == "BYTES":
        return deserialize_bytes_tensor(raw).reshape(case["shape"])
    return np.frombuffer(raw, NUMPY[dt]).reshape(case["shape"])


def same(case, got, what):
    raw = bytes.fromhex(case["output"])
    check(got is not None, what + ": there is no output")
    check(list(got.shape) == case["output_shape"], f"{what}: shape {got.shape}")
    dt = case["datatype"]
    if dt == "BYTES":
        b = serialize_byte_tensor(got).item() if got.size else b""
    else:
        check(got.dtype == NUMPY[dt], f"{what}: {got.dtype}")
        b = np.ascontiguousarray(got).tobytes()
    check(b == raw, f"{what}: {b.hex()} instead of {raw.hex()}")


def request(mod, case, **kw):
    i = mod.InferInput("x", case["shape"], case["datatype"])
    i.set_data_from_numpy(array(case), **kw)
    return [i]


def refused(call, what, text):
    try:
        call()
    except InferenceServerException as e:
        check(text in str(e), f"{what}: {e}")
        return e
    check(False, what + " was not refused")


def metadata(client, mod, cases):
    check(client.is_server_live() and client.is_server_ready(), "live and ready")
    check(client.is_model_ready(cases[0]["name"]), "model ready")
    check(not client.is_model_ready("nobody"), "a model that is not there is ready")
    m = client.get_server_metadata()
    m = m if isinstance(m, dict) else {"name": m.name, "extensions": list(m.extensions)}
    check(m["name"] == "waybill" and "binary_tensor_data" in m["extensions"], f"server metadata {m}")
    for c in cases:
        m = client.get_model_metadata(c["name"])
        dt = m["inputs"][0]["datatype"] if isinstance(m, dict) else m.inputs[0].datatype
        check(dt == c["datatype"], f"metadata of {c['name']}: {m}")


def http(addr, cases):
    client = th.InferenceServerClient(addr, concurrency=4)
    metadata(client, th, cases)
    for c in cases:
        name = c["name"]
        for outputs in (None, [th.InferRequestedOutput("y", binary_data=True)], [th.InferRequestedOutput("y", binary_data=False)]):
            if outputs and c["datatype"] in ("FP16", "BF16") and not outputs[0]._get_tensor()["parameters"].get("binary_data"):
                continue  # the client does not read them from JSON
            r = client.infer(name, request(th, c), outputs=outputs, request_id="q7")
            same(c, r.as_numpy("y"), f"http {name}")
            check(r.get_response()["id"] == "q7", "the request's id")
        if c["datatype"] not in ("FP16", "BF16"):
            r = client.infer(name, request(th, c, binary_data=False), outputs=[th.InferRequestedOutput("y", binary_data=False)])
            same(c, r.as_numpy("y"), f"http json {name}")
        for algo in ("gzip", "deflate"):
            r = client.infer(name, request(th, c), request_compression_algorithm=algo, response_compression_algorithm=algo)
            same(c, r.as_numpy("y"), f"http {algo} {name}")
    waiting = [(c, client.async_infer(c["name"], request(th, c))) for c in cases for _ in range(4)]
    for c, w in waiting:
        same(c, w.get_result().as_numpy("y"), f"http async {c['name']}")
    c = cases[0]
    e = refused(lambda: client.infer("nobody", request(th, c)), "a model that is not there", "there is no model")
    check(e.status() == "404", f"status {e.status()}")
    refused(lambda: client.infer(c["name"], request(th, c), model_version="77"), "a version that is not there", "has version")
    refused(lambda: client.infer(c["name"], request(th, cases[2])), "another datatype", "datatype")
    refused(lambda: client.infer(c["name"], request(th, c), outputs=[th.InferRequestedOutput("z")]), "another output", "no output")
    client.close()


def grpc(addr, cases):
    client = tg.InferenceServerClient(addr)
    metadata(client, tg, cases)
    for c in cases:
        for outputs in (None, [tg.InferRequestedOutput("y")]):
            for algo in (None, "gzip"):
                r = client.infer(c["name"], request(tg, c), outputs=outputs, request_id="q7", compression_algorithm=algo)
                same(c, r.as_numpy("y"), f"grpc {c['name']}")
                check(r.get_response().id == "q7" and r.get_response().parameters["digest"].string_param.startswith("sha256:"), "id and digest")
    done = queue.Queue()
    for c in cases:
        for _ in range(4):
            client.async_infer(c["name"], request(tg, c), lambda result, error, c=c: done.put((c, result, error)))
    for _ in range(4 * len(cases)):
        c, r, err = done.get(timeout=60)
        check(err is None, f"grpc async: {err}")
        same(c, r.as_numpy("y"), f"grpc async {c['name']}")
    c = cases[0]
    e = refused(lambda: client.infer("nobody", request(tg, c)), "a model that is not there", "there is no model")
    check(e.status() == "StatusCode.NOT_FOUND", f"status {e.status()}")
    e = refused(lambda: client.infer(c["name"], request(tg, cases[2])), "another datatype", "datatype")
    check(e.status() == "StatusCode.INVALID_ARGUMENT", f"status {e.status()}")
    client.close()


def sequences(addr, spec):
    """A stream by session through http, grpc, grpc streaming; with ids that are numbers and texts."""
    case = lambda k: {"name": spec["name"], "datatype": "FP32", "shape": spec["shape"], "input": spec["inputs"][k], "output": spec["outputs"][k], "output_shape": spec["shape"]}
    n = len(spec["inputs"])
    client = th.InferenceServerClient(addr)
    other = tg.InferenceServerClient(addr)
    for mod, cl in ((th, client), (tg, other)):
        for seq in (7, 2**63 - 1, "a stream"):
            for k in range(n):
                r = cl.infer(spec["name"], request(mod, case(k)), sequence_id=seq, sequence_start=k == 0, sequence_end=k == n - 1)
                same(case(k), r.as_numpy("y"), f"session {seq} request {k}")
            refused(lambda: cl.infer(spec["name"], request(mod, case(0)), sequence_id=seq), "a session that has ended", "start")
    done = queue.Queue()
    other.start_stream(lambda result, error: done.put((result, error)))
    for k in range(n):  # all at once: the stream keeps their order
        other.async_stream_infer(spec["name"], request(tg, case(k)), request_id=str(k), sequence_id=11, sequence_start=k == 0, sequence_end=k == n - 1)
    for k in range(n):
        r, err = done.get(timeout=60)
        check(err is None and r.get_response().id == str(k), f"stream: {err}")
        same(case(k), r.as_numpy("y"), f"stream request {k}")
    other.async_stream_infer("nobody", request(tg, case(0)))
    r, err = done.get(timeout=60)
    check(err is not None and "there is no model" in str(err), f"stream: {err}")
    other.async_stream_infer(spec["name"], request(tg, case(0)), sequence_id=11, sequence_start=True, sequence_end=True)
    r, err = done.get(timeout=60)
    check(err is None, f"the stream after an error: {err}")
    other.stop_stream()
    other.close()
    client.close()


async def aio(addr, cases):
    async with tha.InferenceServerClient(addr) as client:
        check(await client.is_server_ready(), "aio http ready")
        rs = await asyncio.gather(*[client.infer(c["name"], request(th, c)) for c in cases])
        for c, r in zip(cases, rs):
            same(c, r.as_numpy("y"), f"aio http {c['name']}")
    async with tga.InferenceServerClient(addr) as client:
        check(await client.is_server_ready(), "aio grpc ready")
        rs = await asyncio.gather(*[client.infer(c["name"], request(tg, c)) for c in cases])
        for c, r in zip(cases, rs):
            same(c, r.as_numpy("y"), f"aio grpc {c['name']}")


def main():
    addr = sys.argv[1]
    with open(sys.argv[2]) as f:
        spec = json.load(f)
    cases = spec["models"]
    http(addr, cases)
    grpc(addr, cases)
    sequences(addr, spec["stream"])
    asyncio.run(aio(addr, cases))
    print("checks:", checks)


main()
