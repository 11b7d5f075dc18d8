package jsbundle

import (
	"fmt"
	"math"
	"strings"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/internal/diag"
)

// Limits of a Workers platform, in bytes.
type Limits struct {
	Size   int64 // of the uploaded files, as they are
	Memory int64 // of an isolate: code, heap and linear memory
	Code   int64 // of WebAssembly that is compiled within the time a Worker has to start, 1 s
}

// startCode is how much WebAssembly is taken to compile within the start of a Worker: a quarter of what was measured (docs/web.md).
const startCode = 16 << 20

// CloudflareLimits are those of Cloudflare Workers, on every plan: since 2026-09-04 the size after compression, in which plans differed, no longer counts
// (developers.cloudflare.com/changelog/post/2026-09-04-increased-worker-size-limit).
func CloudflareLimits() Limits { return Limits{64 << 20, 128 << 20, startCode} }

// A Worker needs this much besides weights and linear memory: the engine, the loader, requests and answers.
const (
	workerHeap = 32 << 20
	workerBody = 4 << 20 // largest request of a Worker
	wasmPage   = 64 << 10
)

// LimitError is a bundle that Workers would not take or not run. It is a deploy.ErrTooLarge.
type LimitError struct {
	Limit string // size, memory, startup
	Have  int64
	Max   int64
}

// Error implements error.
func (e *LimitError) Error() string {
	what := map[string]string{
		"size":    "the files of the Worker have %s, the platform takes %s",
		"memory":  "the Worker needs %s of memory at least, an isolate has %s",
		"startup": "the Worker has %s of WebAssembly, of which about %s are compiled in the second that a start may take",
	}[e.Limit]
	return fmt.Sprintf(what, megabytes(e.Have), megabytes(e.Max))
}

// Unwrap makes it a deploy.ErrTooLarge.
func (e *LimitError) Unwrap() error { return deploy.ErrTooLarge }

func megabytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// ErrNoVectors says that nothing could prove the module in a Worker, which does not see its bytes.
var ErrNoVectors = diag.New(diag.Unsupported, "the artifact has no golden vectors, by which a Worker proves its module: it never sees the module's bytes")

// worker checks the limits and writes worker.mjs and workerd.capnp.
func (w *writer) worker(l Limits) error {
	if l == (Limits{}) {
		l = CloudflareLimits()
	}
	if w.facts.Golden == "" {
		return ErrNoVectors
	}
	var weights int64
	if w.iface.Weights != nil {
		weights = w.iface.Weights.Size
	}
	need := int64(w.iface.Memory.Heap) + int64(min(w.iface.Memory.Arena, math.MaxInt32))
	linear := (l.Memory - workerHeap - weights) / wasmPage * wasmPage
	if need > linear {
		return &LimitError{"memory", need + weights + workerHeap, l.Memory}
	}
	w.b.Main = "worker.mjs"
	if err := w.put(w.b.Main, ESModule, true, w.entry(linear)); err != nil {
		return err
	}
	if err := w.put("workerd.capnp", Other, false, w.capnp()); err != nil {
		return err
	}
	var size, code int64
	for _, f := range w.b.Files {
		if !f.Worker {
			continue
		}
		size += f.Size
		if f.Kind == Wasm {
			code += f.Size
		}
	}
	switch {
	case size > l.Size:
		return &LimitError{"size", size, l.Size}
	case code > l.Code:
		return &LimitError{"startup", code, l.Code}
	}
	return nil
}

// entry is worker.mjs: Workers load by static imports only.
func (w *writer) entry(linear int64) []byte {
	var imports, text, data, compiled strings.Builder
	n := 0
	for _, f := range w.b.Files {
		if !f.Worker || f.Kind == ESModule {
			continue
		}
		n++
		fmt.Fprintf(&imports, "import f%d from './%s';\n", n, f.Path)
		to := map[string]*strings.Builder{Text: &text, Data: &data, Wasm: &compiled}[f.Kind]
		fmt.Fprintf(to, " '%s': f%d,", f.Path, n)
	}
	group := func(b strings.Builder) string { return "{" + strings.TrimSuffix(b.String(), ",") + " }" }
	return fmt.Appendf(nil, `// The Worker of this artifact. Written by waybill.
import facts from './artifact.mjs';
import { worker } from './workers.mjs';
%s
export default worker({
  facts,
  text: %s,
  data: %s,
  compiled: %s,
  maxMemory: %d,
  maxBody: %d,
});
`, imports.String(), group(text), group(data), group(compiled), linear, workerBody)
}

// capnp is the configuration with which workerd serves the folder by itself.
func (w *writer) capnp() []byte {
	var mods strings.Builder
	kinds := map[string]string{ESModule: "esModule", Wasm: "wasm", Data: "data", Text: "text"}
	line := func(f File) { fmt.Fprintf(&mods, "    (name = %q, %s = embed %q),\n", f.Path, kinds[f.Kind], f.Path) }
	for _, f := range w.b.WorkerFiles() {
		line(f)
	}
	return fmt.Appendf(nil, `# workerd serve workerd.capnp
using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [(name = "main", worker = .main)],
  sockets = [(name = "http", address = "127.0.0.1:8080", http = (), service = "main")],
);

const main :Workerd.Worker = (
  compatibilityDate = "%s",
  modules = [
%s  ],
);
`, CompatibilityDate, mods.String())
}

// CompatibilityDate is that of the Workers runtime for which bundles are written.
const CompatibilityDate = "2025-06-01"
