#!/usr/bin/env bash
# Cold starts beside Python and ONNX Runtime: makes the Python that the peers need, builds both programs, measures. usage:
# run.sh [FLAGS of coldstart.py]. Needs Linux, Go, Python with venv, and root, since what is measured gets its image's root.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/python"
"$work/python/bin/pip" install -q --disable-pip-version-check onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6 fastapi==0.165.0 uvicorn==0.54.0
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$work/" ./cmd/waybill ./cmd/waybill-serve
"$work/python/bin/python" bench/coldstart/coldstart.py --waybill "$work/waybill" --serve "$work/waybill-serve" "$@"
