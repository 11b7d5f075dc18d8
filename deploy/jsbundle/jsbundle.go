// Package jsbundle writes an artifact as a folder of JavaScript: the loader of edge-runtime/web, the artifact's own module, weights
// and documents as they are, and one entry for each host: worker.mjs for Cloudflare Workers (workerd), node.mjs for Node, browser.mjs for
// browsers. The same artifact and the same Waybill give the same bytes. What the folder loads, it checks against the artifact's
// digest first (docs/web.md).
package jsbundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/waybill-ml/waybill/edge-runtime/web"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

// Schema is the value of Bundle.Schema.
const Schema = "https://github.com/waybill-ml/waybill/schema/js-bundle/v1"

// Index is the name of the file that lists all others.
const Index = "bundle.json"

// Source gives an artifact's blobs: a store, a layout or a registry.
type Source interface {
	Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error)
}

// Kinds of a file in a bundle: how a Worker imports it; Other is not for Workers.
const (
	ESModule = "esm"
	Wasm     = "wasm"
	Data     = "data"
	Text     = "text"
	Other    = "other"
)

// File is one file of a bundle.
type File struct {
	Path   string          `json:"path"` // one name, without folders
	Kind   string          `json:"kind"`
	Worker bool            `json:"worker"` // part of the Worker
	Digest artifact.Digest `json:"digest"`
	Size   int64           `json:"size"`
}

// Bundle is the document bundle.json.
type Bundle struct {
	Schema  string          `json:"schema"`
	Digest  artifact.Digest `json:"digest"` // of the artifact's manifest
	Name    string          `json:"name"`
	Version string          `json:"version"`
	Hosts   []string        `json:"hosts"`
	Main    string          `json:"main"` // of the Worker; empty when it is not among the hosts
	Files   []File          `json:"files"`

	dir string
}

// Hosts that a bundle can be for.
const (
	Workers = "workers"
	Node    = "node"
	Browser = "browser"
)

// Options of Build.
type Options struct {
	Hosts  []string // none: all
	Limits Limits   // of Workers; zero: CloudflareLimits
}

// maxGolden bounds the golden vectors of a bundle: as many of the first ones as fit, at least one.
const maxGolden = 256 << 10

// Build writes the bundle of the artifact with this manifest to the folder dir, which must not exist or be empty. It appears whole or
// not at all. What Workers would not run is refused with one of the errors of limits.go, unless Workers is not among the hosts.
func Build(ctx context.Context, dir string, manifest []byte, src Source, o Options) (*Bundle, error) {
	hosts, err := hostsOf(o.Hosts)
	if err != nil {
		return nil, err
	}
	m, err := artifact.ParseModel(manifest)
	if err != nil {
		return nil, err
	}
	if !m.Compiled() {
		return nil, diag.Errorf("the artifact was bundled as it is: there is no module that JavaScript could run")
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return nil, diag.Errorf("the folder %s of the bundle: %w", dir, err)
	}
	if err := os.MkdirAll(filepath.Dir(filepath.Clean(dir)), 0o755); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(filepath.Clean(dir)), ".jsbundle-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(tmp) }() // after the rename it is not there
	w := &writer{ctx: ctx, dir: tmp, src: src, model: m, b: Bundle{
		Schema: Schema, Digest: artifact.DigestOf(manifest), Hosts: hosts, Files: []File{}, dir: dir,
	}}
	if err := w.write(manifest, o.Limits); err != nil {
		return nil, err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return nil, err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := (fsx.OS{}).Rename(tmp, dir); err != nil {
		return nil, err
	}
	return &w.b, (fsx.OS{}).SyncDir(filepath.Dir(filepath.Clean(dir)))
}

func hostsOf(want []string) ([]string, error) {
	all := []string{Browser, Node, Workers}
	if len(want) == 0 {
		return all, nil
	}
	out := slices.Clone(want)
	slices.Sort(out)
	out = slices.Compact(out)
	for _, h := range out {
		if !slices.Contains(all, h) {
			return nil, diag.Errorf("there is no host %q of JavaScript; there are %s", h, strings.Join(all, ", "))
		}
	}
	return out, nil
}

// Open reads a bundle and checks every file against its list: a folder that was altered is refused.
func Open(dir string) (*Bundle, error) {
	raw, err := fsx.ReadFile(fsx.OS{}, filepath.Join(dir, Index), 1<<20)
	if err != nil {
		return nil, diag.Errorf("%s is no bundle: %w", dir, err)
	}
	var b Bundle
	if err := strictjson.Decode(raw, &b); err != nil {
		return nil, diag.Errorf("%s: %w", Index, err)
	}
	if b.Schema != Schema {
		return nil, diag.Errorf("%s has the schema %q, not %q", Index, b.Schema, Schema)
	}
	if _, err := artifact.ParseDigest(string(b.Digest)); err != nil {
		return nil, diag.Errorf("%s: %w", Index, err)
	}
	b.dir = dir
	seen := map[string]bool{}
	for _, f := range b.Files {
		if f.Path == "" || f.Path != path.Base(f.Path) || strings.ContainsAny(f.Path, `/\`) || f.Path == ".." || f.Path == "." || seen[f.Path] {
			return nil, diag.Errorf("%s: the path %q is none, or stands twice", Index, f.Path)
		}
		seen[f.Path] = true
		if _, err := b.Read(f); err != nil {
			return nil, err
		}
	}
	if b.Main != "" && !seen[b.Main] {
		return nil, diag.Errorf("%s: there is no file %q", Index, b.Main)
	}
	return &b, nil
}

// Read gives the bytes of a file, checked.
func (b *Bundle) Read(f File) ([]byte, error) {
	raw, err := fsx.ReadFile(fsx.OS{}, filepath.Join(b.dir, f.Path), f.Size)
	if err != nil {
		return nil, err
	}
	if got := artifact.DigestOf(raw); got != f.Digest {
		return nil, diag.New(diag.Verification, "%s of the bundle has digest %s, its list says %s", f.Path, got, f.Digest)
	}
	return raw, nil
}

// WorkerFiles lists the files that make the Worker, its main module first.
func (b *Bundle) WorkerFiles() []File {
	var out []File
	for _, f := range b.Files {
		switch {
		case f.Worker && f.Path == b.Main:
			out = append([]File{f}, out...)
		case f.Worker:
			out = append(out, f)
		}
	}
	return out
}

// writer writes one bundle.
type writer struct {
	ctx   context.Context
	dir   string
	src   Source
	model *artifact.Model
	b     Bundle
	iface artifact.Interface
	facts facts
}

// facts is what artifact.mjs exports.
type facts struct {
	Waybill string          `json:"waybill"`
	Name    string          `json:"name"`
	Version string          `json:"version"`
	Digest  artifact.Digest `json:"digest"`
	Files   struct {
		Module  string            `json:"module"`
		Weights string            `json:"weights,omitempty"`
		Steps   map[string]string `json:"steps"` // by path in the interface document
	} `json:"files"`
	Golden artifact.Digest `json:"golden,omitempty"`
}

func (w *writer) write(manifest []byte, limits Limits) error {
	il, err := w.model.One(artifact.RoleInterface)
	if err != nil {
		return err
	}
	doc, err := w.read(il, 8<<20)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(doc, &w.iface); err != nil {
		return diag.Errorf("interface document: %w", err)
	}
	if w.iface.Schema != artifact.InterfaceSchema {
		return diag.Errorf("the interface document has the schema %q, not %q", w.iface.Schema, artifact.InterfaceSchema)
	}
	w.b.Name, w.b.Version = w.iface.Name, w.iface.Version
	w.facts = facts{Waybill: version.Number, Name: w.iface.Name, Version: w.iface.Version, Digest: w.b.Digest}
	if err := w.put("manifest.json", Text, true, manifest); err != nil {
		return err
	}
	if err := w.put("interface.json", Text, true, doc); err != nil {
		return err
	}
	if err := w.code(); err != nil {
		return err
	}
	if err := w.golden(); err != nil {
		return err
	}
	if err := w.scripts(); err != nil {
		return err
	}
	if slices.Contains(w.b.Hosts, Workers) {
		if err := w.worker(limits); err != nil {
			return err
		}
	}
	sort.Slice(w.b.Files, func(i, j int) bool { return w.b.Files[i].Path < w.b.Files[j].Path })
	index, err := artifact.Canonical(w.b)
	if err != nil {
		return err
	}
	return fsx.WriteFileAtomic(fsx.OS{}, filepath.Join(w.dir, Index), index, 0o644)
}

// layer finds the layer that the interface document names; the two must agree.
func (w *writer) layer(role artifact.Role, ref artifact.FileRef) (artifact.Layer, error) {
	for _, l := range w.model.ByRole(role) {
		if l.Path == ref.Path {
			if l.Digest != ref.Digest {
				return l, diag.Errorf("the interface document and the manifest disagree about %s", ref.Path)
			}
			return l, nil
		}
	}
	return artifact.Layer{}, diag.Errorf("the artifact has no %s at %s, which its interface document names", role, ref.Path)
}

// code writes the modules and the weights.
func (w *writer) code() error {
	l, err := w.layer(artifact.RoleModule, w.iface.Module)
	if err != nil {
		return err
	}
	w.facts.Files.Module = "model.wasm"
	if err := w.copy(w.facts.Files.Module, Wasm, l); err != nil {
		return err
	}
	if w.iface.Weights != nil {
		if l, err = w.layer(artifact.RoleWeights, w.iface.Weights.FileRef); err != nil {
			return err
		}
		w.facts.Files.Weights = "weights.bin"
		if err := w.copy(w.facts.Files.Weights, Data, l); err != nil {
			return err
		}
	}
	w.facts.Files.Steps = map[string]string{}
	for _, st := range w.iface.Steps {
		if st.Kind == "model" || w.facts.Files.Steps[st.File.Path] != "" {
			continue
		}
		if l, err = w.layer(artifact.RoleStep, st.File); err != nil {
			return err
		}
		name := fmt.Sprintf("step-%d.wasm", len(w.facts.Files.Steps)+1)
		w.facts.Files.Steps[st.File.Path] = name
		if err := w.copy(name, Wasm, l); err != nil {
			return err
		}
	}
	return nil
}

// golden writes the golden vectors, or the first of them when they are many.
func (w *writer) golden() error {
	ls := w.model.ByRole(artifact.RoleGolden)
	if len(ls) == 0 {
		return nil
	}
	doc, err := w.read(ls[0], 64<<20)
	if err != nil {
		return err
	}
	var g artifact.Golden
	if err := json.Unmarshal(doc, &g); err != nil {
		return diag.Errorf("golden vectors: %w", err)
	}
	if len(g.Vectors) == 0 {
		return nil
	}
	if len(doc) > maxGolden {
		kept := artifact.Golden{Schema: g.Schema}
		size := 0
		for _, v := range g.Vectors {
			v.Reference, v.Tolerance = nil, nil // the bits are compared
			raw, err := json.Marshal(v)
			if err != nil {
				return err
			}
			if size += len(raw); size > maxGolden && len(kept.Vectors) > 0 {
				break
			}
			kept.Vectors = append(kept.Vectors, v)
		}
		if doc, err = artifact.Canonical(kept); err != nil {
			return err
		}
	}
	w.facts.Golden = artifact.DigestOf(doc)
	return w.put("golden.json", Text, true, doc)
}

// scripts writes the loader, what it knows of the artifact, its types and package.json.
func (w *writer) scripts() error {
	names, err := fs.Glob(web.Files, "*.m*")
	if err != nil {
		return err
	}
	only := map[string]string{"node.mjs": Node, "node.d.mts": Node, "browser.mjs": Browser, "browser.d.mts": Browser, "workers.mjs": Workers}
	for _, name := range names {
		host, one := only[name]
		if one && !slices.Contains(w.b.Hosts, host) {
			continue
		}
		raw, err := web.Files.ReadFile(name)
		if err != nil {
			return err
		}
		kind := ESModule
		if strings.HasSuffix(name, ".d.mts") {
			kind = Other
		}
		if err := w.put(name, kind, kind == ESModule && (!one || host == Workers), raw); err != nil {
			return err
		}
	}
	doc, err := artifact.Canonical(w.facts)
	if err != nil {
		return err
	}
	script := append([]byte("// What this bundle is of. Written by waybill; the digest is that of the artifact's manifest.\nexport default "), bytes.TrimSpace(doc)...)
	if err := w.put("artifact.mjs", ESModule, true, append(script, ";\n"...)); err != nil {
		return err
	}
	if err := w.put("model.d.mts", Other, false, types(&w.iface)); err != nil {
		return err
	}
	pkg, err := packageJSON(&w.iface, w.b.Hosts)
	if err != nil {
		return err
	}
	return w.put("package.json", Other, false, pkg)
}

// read reads a small layer.
func (w *writer) read(l artifact.Layer, limit int64) ([]byte, error) {
	r, err := w.src.Blob(w.ctx, l.Descriptor())
	if err != nil {
		return nil, err
	}
	return store.ReadAll(r, l.Descriptor(), limit)
}

// copy writes a layer as it is, checked on the way.
func (w *writer) copy(name, kind string, l artifact.Layer) error {
	src, err := w.src.Blob(w.ctx, l.Descriptor())
	if err != nil {
		return err
	}
	r := store.Verified(w.ctx, src, l.Descriptor(), l.Path)
	defer func() { _ = r.Close() }()
	f, err := (fsx.OS{}).Create(filepath.Join(w.dir, name), 0o644)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, r)
	if err == nil && n != l.Size {
		err = diag.Errorf("%s has %d bytes, the manifest says %d", l.Path, n, l.Size)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	w.b.Files = append(w.b.Files, File{Path: name, Kind: kind, Worker: slices.Contains(w.b.Hosts, Workers), Digest: l.Digest, Size: l.Size})
	return nil
}

// put writes a file that is made here; worker tells whether a Worker needs it.
func (w *writer) put(name, kind string, worker bool, raw []byte) error {
	if err := fsx.WriteFileAtomic(fsx.OS{}, filepath.Join(w.dir, name), raw, 0o644); err != nil {
		return err
	}
	worker = worker && slices.Contains(w.b.Hosts, Workers)
	w.b.Files = append(w.b.Files, File{Path: name, Kind: kind, Worker: worker, Digest: artifact.DigestOf(raw), Size: int64(len(raw))})
	return nil
}

// ListDigest is the digest of bundle.json, and so names all files together.
func (b *Bundle) ListDigest() artifact.Digest {
	raw, err := artifact.Canonical(b)
	if err != nil { // strings and numbers only
		return ""
	}
	return artifact.DigestOf(raw)
}
