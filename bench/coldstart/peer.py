"""The same model behind Python and ONNX Runtime: what a team would write first. usage: peer.py http|fastapi MODEL.onnx PORT

It answers POST /v2/models/NAME/infer of the Open Inference Protocol. http is Python's own server, the leanest there is;
fastapi is FastAPI on uvicorn, what most services run.
"""
import json
import sys


def main():
    kind, path, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    import numpy
    import onnxruntime

    types = {"FP32": "float32", "FP64": "float64", "INT64": "int64"}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]

    def infer(body):
        feeds = {t["name"]: numpy.array(t["data"], types[t["datatype"]]).reshape(t["shape"]) for t in body["inputs"]}
        outputs = [numpy.asarray(v) for v in session.run(names, feeds)]
        return {"model_name": "m", "outputs": [
            {"name": n, "datatype": str(v.dtype), "shape": list(v.shape), "data": v.ravel().tolist()} for n, v in zip(names, outputs)]}

    if kind == "http":
        import http.server

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                out = json.dumps(infer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(out)))
                self.end_headers()
                self.wfile.write(out)

            def log_message(self, *_):
                pass

        http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
    else:
        import fastapi
        import uvicorn

        app = fastapi.FastAPI()

        @app.post("/v2/models/{name}/infer")
        def answer(name: str, body: dict):
            return infer(body)

        uvicorn.run(app, host="127.0.0.1", port=port, log_level="error")


main()
