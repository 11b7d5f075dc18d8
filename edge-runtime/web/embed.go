// Package web holds the JavaScript loader of artifacts and what makes a server or a Worker of it. Everything but run.mjs and
// job.mjs, which tests and comparisons use, goes into the bundles that deploy/jsbundle writes. That it gives the same bits as the Go
// engine is tested in edge-runtime/engine/bits; the tests here run it in Node.
package web

import "embed"

// Files are the modules and their types, without what deploy/jsbundle generates for each artifact.
//
//go:embed waybill.mjs wasi.mjs sha256.mjs tensors.mjs bundle.mjs number.mjs codec.mjs v2.mjs node.mjs browser.mjs workers.mjs *.d.mts
var Files embed.FS
