# METADATA
# scope: package
# title: "No file can run code when it is read"
# description: "No layer is a pickle, a native executable or an archive that may hide one; each role has only formats that are data, and code is WebAssembly."
# custom:
#   id: FMT-001
#   category: security
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: critical
#   mandatory: true
#   remediation: "convert the model to ONNX, or leave the file out: waybill pack --without-source"
#   standards:
#     - "OWASP ML06 AI supply chain attacks"
#     - "NIST AI RMF MEASURE 2.7"
package waybill.rules.fmt_001

data_formats := {"json", "text", "onnx", "safetensors", "ubjson", "gguf", "tflite", "csv", "empty"}

allowed := {
	"module": {"wasm"},
	"step": {"wasm"},
	"interface": {"json"},
	"golden": {"json"},
	"baseline": {"json"},
	"weights": {"binary", "empty"} | data_formats,
	"source": data_formats | {"tensorrt"},
	"config": {"json", "text", "binary", "empty"},
	"code": {"text", "json", "empty"},
	"doc": {"text", "json", "empty"},
}

unsafe := {"pickle", "pickle-archive", "zip", "gzip", "zlib", "tar", "hdf5", "elf", "pe", "macho", "script"}

default pass := false

pass if {
	count(input.artifact.layers) > 0
	every l in input.artifact.layers {
		safe(l)
	}
}

# The extension counts as well: a loader may trust it more than the bytes.
safe(l) if {
	l.format in allowed[l.role]
	not l.format in unsafe
	not risky_name(l)
}

risky_name(l) if regex.match(`(?i)\.(pkl|pickle|joblib|pt|pth|ckpt|npz|h5|keras|mar|so|dll|dylib|exe|sh|bat|ps1|py)$`, l.path)

fail contains {"msg": sprintf("layer %s (%s) is of format %s", [l.path, l.role, l.format]), "evidence": []} if {
	some l in input.artifact.layers
	not safe(l)
}
