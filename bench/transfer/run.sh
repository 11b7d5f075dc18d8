#!/usr/bin/env bash
# Installs the tools to compare with into a temporary folder and runs the bench. Arguments go to the bench:
# bench/transfer/run.sh -mib 1024 -rounds 5. Needs Go, skopeo and docker-registry (Debian: apt-get install skopeo docker-registry).
# COSIGN=1 builds both cosigns too, which takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/../.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
get() { GOBIN=$tools go install "$1"; }
get oras.land/oras/cmd/oras@v1.3.6
get github.com/google/go-containerregistry/cmd/crane@v0.22.1
get github.com/distribution/distribution/v3/cmd/registry@v3.0.0
if [ -n "${COSIGN:-}" ]; then
  get github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3 && mv "$tools/cosign" "$tools/cosign3"
  get github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5
fi
go build -trimpath -o "$tools/waybill" ./cmd/waybill
go build -o "$tools/transfer" ./bench/transfer
PATH="$tools:$PATH" "$tools/transfer" -waybill "$tools/waybill" "$@"
