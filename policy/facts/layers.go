package facts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/input"
)

// Limits of what is kept of a layer while it is hashed.
const (
	maxModule = 256 << 20 // a WebAssembly module that is looked into
	headBytes = 64 << 10  // of any other layer, for its format
)

// annotationEpoch carries the security epoch on the manifest, as pack writes it; absent means 0.
const annotationEpoch = "dev.waybill.epoch"

// artifact reads every layer once: hash, size, format, and the documents among them.
func (c *collector) artifact(ctx context.Context, src Source, m *artifact.Model, rq Request) error {
	a := &c.in.Artifact
	a.Digest, a.MediaType, a.ArtifactType = string(rq.Digest), m.Manifest.MediaType, m.Manifest.ArtifactType
	a.ConfigMediaType = m.Manifest.Config.MediaType
	c.in.Model.Name = "unknown"
	if err := c.config(ctx, src, m); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.problem("config", "%v", err)
	}
	a.ResourceURI = ResourceURI(rq.Environment.Namespace, c.in.Model.Name)
	c.in.Model.Version = orUnknown(c.in.Model.Version)

	docs := map[artifact.Role][]byte{}
	for i, l := range m.Layers {
		d := m.Manifest.Layers[i]
		body, fact := c.readLayer(ctx, src, l, d)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		a.Layers = append(a.Layers, fact.Layer)
		a.Size += l.Size
		if !fact.DigestVerified {
			c.problem("layer", "%s: %s", l.Path, fact.why)
		}
		switch l.Role {
		case artifact.RoleModule, artifact.RoleStep:
			mod := input.Module{Path: l.Path, Digest: string(l.Digest), Role: string(l.Role), Imports: []string{}}
			if fact.DigestVerified {
				imports, err := wasmImports(body)
				if err == nil && input.Fits(imports) == nil {
					mod.Valid, mod.Imports = true, imports
				}
			}
			c.in.Build.Modules = append(c.in.Build.Modules, mod)
		case artifact.RoleInterface, artifact.RoleGolden:
			if fact.DigestVerified {
				docs[l.Role] = body
			}
		case artifact.RoleDoc:
			c.card(l)
		}
	}
	if c.in.Build.Compiled = m.Compiled(); c.in.Build.Compiled {
		c.iface(m, docs[artifact.RoleInterface])
	} else {
		c.bundled(m, docs[artifact.RoleInterface])
	}
	c.golden(m, docs[artifact.RoleGolden])
	return nil
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}

// ResourceURI names a model independently of the registry that holds it.
func ResourceURI(namespace, model string) string { return "waybill:" + namespace + "/" + model }

func (c *collector) config(ctx context.Context, src Source, m *artifact.Model) error {
	r, err := src.Blob(ctx, m.Manifest.Config)
	if err != nil {
		return fmt.Errorf("model config: %w", err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, artifact.MaxConfig+1))
	if err != nil {
		return fmt.Errorf("model config: %w", err)
	}
	if got := artifact.DigestOf(b); c.on("config") && got != m.Manifest.Config.Digest || int64(len(b)) != m.Manifest.Config.Size {
		return fmt.Errorf("model config has digest %s, not %s", got.Short(), m.Manifest.Config.Digest.Short())
	}
	cfg, err := artifact.ParseConfig(b, m)
	if err != nil {
		return err
	}
	d := cfg.Descriptor
	facts := input.Model{Name: d.Name, Version: d.Version, Family: d.Family, Licenses: slices.Clone(d.Licenses), Authors: slices.Clone(d.Authors),
		Vendor: d.Vendor, Description: d.Description, Source: d.SourceURL, Revision: d.Revision,
		Architecture: cfg.Model.Architecture, Precision: cfg.Model.Precision, Quantization: cfg.Model.Quantization}
	if d.CreatedAt != nil {
		facts.Created = d.CreatedAt.UTC().Format(time.RFC3339)
	}
	if err := input.Fits(facts); err != nil {
		return fmt.Errorf("model config: %w", err)
	}
	c.in.Model = facts
	if e, ok := m.Manifest.Annotations[annotationEpoch]; ok {
		n, err := strconv.ParseInt(e, 10, 64)
		if err != nil || n < 0 || n > 1<<53 {
			return fmt.Errorf("manifest: the security epoch %.40q is no number", e)
		}
		c.in.Model.Epoch = n
	}
	return nil
}

type layerFact struct {
	input.Layer
	why string
}

// readLayer reads one layer to its end, or to one byte past its declared size. The body is kept as far as somebody needs it.
func (s seam) readLayer(ctx context.Context, src Source, l artifact.Layer, d artifact.Descriptor) ([]byte, layerFact) {
	f := layerFact{Layer: input.Layer{Digest: string(l.Digest), MediaType: d.MediaType, Role: string(l.Role), Path: l.Path, Size: l.Size,
		Format: "unknown", PersonalData: l.Personal}}
	keep := int64(headBytes)
	switch l.Role {
	case artifact.RoleModule, artifact.RoleStep:
		keep = maxModule
	case artifact.RoleInterface:
		keep = artifact.MaxInterface
	case artifact.RoleGolden:
		keep = artifact.MaxGolden
	}
	if keep > headBytes && l.Size > keep {
		f.why = fmt.Sprintf("%d bytes are more than a %s layer may have (%d)", l.Size, l.Role, keep)
		return nil, f
	}
	r, err := src.Blob(ctx, d)
	if err != nil {
		f.why = err.Error()
		return nil, f
	}
	defer r.Close()
	h := sha256.New()
	in := io.TeeReader(io.LimitReader(&ctxReader{ctx, r}, l.Size+1), h)
	body, err := io.ReadAll(io.LimitReader(in, keep))
	n := int64(len(body))
	tail := newTail(body)
	if err == nil {
		var more int64
		more, err = io.Copy(tail, in)
		n += more
	}
	switch got := artifact.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))); {
	case err != nil:
		f.why = err.Error()
	case n != l.Size:
		f.why = fmt.Sprintf("it has %d bytes or more, the manifest says %d", n, l.Size)
	case s.on("layer") && got != l.Digest:
		f.why = fmt.Sprintf("its content has digest %s, the manifest says %s", got.Short(), l.Digest.Short())
	default:
		f.DigestVerified = true
		f.Format = format(body, tail.last, n)
	}
	return body, f
}

// ctxReader ends a long read when the context ends.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// tail remembers the last byte written.
type tail struct{ last byte }

func newTail(b []byte) *tail {
	t := &tail{}
	_, _ = t.Write(b) // cannot fail
	return t
}

func (t *tail) Write(p []byte) (int, error) {
	if len(p) > 0 {
		t.last = p[len(p)-1]
	}
	return len(p), nil
}

// card takes the first doc layer, by path, that is named like a model card.
func (c *collector) card(l artifact.Layer) {
	base := strings.ToLower(path.Base(l.Path))
	stem := strings.TrimSuffix(base, path.Ext(base))
	switch stem {
	case "readme", "model_card", "model-card", "modelcard", "card":
		if !c.in.ModelCard.Present {
			c.in.ModelCard = input.ModelCard{Present: true, Path: l.Path, Digest: string(l.Digest)}
		}
	}
}

// iface parses the interface document and holds it against the artifact.
func (c *collector) iface(m *artifact.Model, b []byte) {
	bd := &c.in.Build
	note := func(format string, args ...any) { bd.InterfaceNote = clip(fmt.Sprintf(format, args...), maxNote) }
	if b == nil {
		note("it could not be read")
		return
	}
	var x artifact.Interface
	if err := strictjson.Decode(b, &x); err != nil {
		note("%v", err)
		return
	}
	if x.Schema != artifact.InterfaceSchema {
		note("schema %q, want %q", x.Schema, artifact.InterfaceSchema)
		return
	}
	if err := input.Fits(x.Compiler, x.MinRuntime); err != nil {
		note("%v", err)
		return
	}
	bd.Compiler, bd.ABI, bd.MinRuntime = x.Compiler, x.ABI, x.MinRuntime
	bd.MemoryBytes = int64(x.Memory.Heap)
	if x.Memory.Arena <= 1<<32 {
		bd.MemoryBytes += int64(x.Memory.Arena)
	} else {
		note("an arena of %d bytes is more than a module can address", x.Memory.Arena)
		return
	}
	bd.MemoryMax = int64(min(x.Memory.Max, 1<<32))
	if err := matches(m, x, c.in.Model); err != nil {
		note("%v", err)
		return
	}
	bd.InterfaceOK = true
}

// bundled reads the interface document of an artifact whose files were bundled as they are.
func (c *collector) bundled(m *artifact.Model, b []byte) {
	bd := &c.in.Build
	if b == nil {
		bd.InterfaceNote = "it could not be read"
		return
	}
	x, err := artifact.ParseBundled(b, m)
	if err == nil && (x.Name != c.in.Model.Name || orUnknown(x.Version) != c.in.Model.Version) {
		err = fmt.Errorf("it describes %s %s, the model config %s %s", x.Name, x.Version, c.in.Model.Name, c.in.Model.Version)
	}
	if err != nil {
		bd.InterfaceNote = clip(err.Error(), maxNote)
		return
	}
	bd.InterfaceOK = true
}

// matches checks that the interface document speaks of this artifact's files and of this model.
func matches(m *artifact.Model, x artifact.Interface, model input.Model) error {
	has := func(role artifact.Role, f artifact.FileRef) bool {
		return slices.ContainsFunc(m.ByRole(role), func(l artifact.Layer) bool {
			return l.Digest == f.Digest && l.Path == f.Path && l.Size == f.Size
		})
	}
	if x.Name != model.Name || orUnknown(x.Version) != model.Version {
		return fmt.Errorf("it describes %s %s, the model config %s %s", x.Name, x.Version, model.Name, model.Version)
	}
	if !has(artifact.RoleModule, x.Module) {
		return fmt.Errorf("it names a module %s that is no layer of the artifact", x.Module.Path)
	}
	switch n := len(m.ByRole(artifact.RoleWeights)); {
	case x.Weights == nil && n != 0:
		return errors.New("the artifact has a weights layer that it does not name")
	case x.Weights != nil && !has(artifact.RoleWeights, x.Weights.FileRef):
		return fmt.Errorf("it names weights %s that are no layer of the artifact", x.Weights.Path)
	}
	for _, s := range x.Steps {
		if s.Kind != "model" && !has(artifact.RoleStep, s.File) {
			return fmt.Errorf("it names a step %s that is no layer of the artifact", s.File.Path)
		}
	}
	return nil
}

// golden parses the test vectors and holds the expected outputs against the training framework's.
func (c *collector) golden(m *artifact.Model, b []byte) {
	g := &c.in.Build.Golden
	if len(m.ByRole(artifact.RoleGolden)) == 0 {
		return
	}
	g.Present = true
	if b == nil {
		g.Note = "the golden layer could not be read"
		return
	}
	var doc artifact.Golden
	if err := strictjson.Decode(bytes.Clone(b), &doc); err != nil {
		g.Note = clip(err.Error(), maxNote)
		return
	}
	if doc.Schema != artifact.GoldenSchema {
		g.Note = fmt.Sprintf("schema %q, want %q", doc.Schema, artifact.GoldenSchema)
		return
	}
	g.Vectors = len(doc.Vectors)
	for _, v := range doc.Vectors {
		if len(v.Reference) == 0 {
			continue
		}
		g.References++
		if err := agree(v); err != nil {
			g.Note = clip(fmt.Sprintf("vector %s: %v", v.Name, err), maxNote)
			return
		}
	}
	if g.References == 0 {
		g.Note = "no vector carries the training framework's outputs"
		return
	}
	g.Agree = true
}
