package image

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
)

// maxOver is what an image may have above the program and the artifact, in whatever form it is kept or sent.
const maxOver = 1_000_000

func allVariants() []Variant { return []Variant{Plain, Lambda, SageMaker, Vertex, Modelcar} }

// scales counts what is pushed, as it is and as gzip makes it.
type scales struct {
	t           *testing.T
	raw, zipped int64
}

func (s *scales) PushBlob(_ context.Context, d artifact.Descriptor, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	s.raw += d.Size
	s.zipped += zipped(s.t, string(d.Digest), r)
	return nil
}

func (s *scales) PushManifest(_ context.Context, b []byte, mediaType, _ string) (artifact.Descriptor, error) {
	s.raw += int64(len(b))
	s.zipped += int64(len(b)) // which no registry compresses
	return describe(b, mediaType), nil
}

var gzipped = map[string]int64{} // by what was compressed

func zipped(t *testing.T, name string, r io.Reader) int64 {
	t.Helper()
	if n, ok := gzipped[name]; ok {
		return n
	}
	n := &counter{w: io.Discard}
	z := gzip.NewWriter(n)
	if _, err := io.Copy(z, r); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	gzipped[name] = n.n
	return n.n
}

// bare is what the artifact alone has: its manifest and the layers that a runtime needs, without evidence and trust document.
func bare(t *testing.T, s *Staged) (raw, compressed int64) {
	t.Helper()
	file := func(d artifact.Digest) []byte {
		return must[[]byte](t)(os.ReadFile(filepath.Join(s.Dir, "blobs", "sha256", d.Hex())))
	}
	add := func(b []byte) {
		raw += int64(len(b))
		compressed += zipped(t, string(artifact.DigestOf(b)), bytes.NewReader(b))
	}
	doc := file(s.Digest)
	add(doc)
	seen := map[artifact.Digest]bool{}
	for _, l := range must[*artifact.Model](t)(artifact.ParseModel(doc)).OnDevice() {
		if !seen[l.Digest] {
			seen[l.Digest] = true
			add(file(l.Digest))
		}
	}
	return raw, compressed
}

// Every variant, on every platform and in every form, has at most 1 MB above the program and the artifact: pulled, pushed with bill of
// materials and signatures, compressed by whoever does so, as a layout and as an archive. What an artifact needs to be proven counts as
// above it. The figures stand in docs/images.md.
func TestSize(t *testing.T) {
	docs := string(must[[]byte](t)(os.ReadFile("../../docs/images.md")))
	for _, example := range []string{"v1", "weighted-5000-1"} {
		p := edgetest.NewPublisher(t)
		target := p.Pack(example)
		p.Change(target)
		s := staged(t, p, target)
		model, modelZipped := bare(t, s)
		for _, v := range allVariants() {
			var progs, progsZipped int64
			for _, pl := range both() {
				set := sealed(t, p, s, programs(t, pl), v)
				r := programs(t, pl)[0]
				file := must[*os.File](t)(os.Open(r.Path))
				prog, progZipped := r.Size, zipped(t, string(r.Digest), file)
				_ = file.Close()
				if prog < 5<<20 || progZipped < 1<<20 || model < 5000 || modelZipped < 2000 || model > s.Size {
					t.Fatalf("the program has %d bytes, %d compressed, the artifact %d and %d", prog, progZipped, model, modelZipped)
				}
				progs, progsZipped = progs+prog, progsZipped+progZipped
				over := overhead(t, set, prog+model, progZipped+modelZipped)
				t.Logf("| `%s` | %s | %s | program %d, artifact %d (%s)", v, pl, over, prog, model, example)
				check(t, over, string(v)+" "+pl.String())
				if example == "v1" {
					documented(t, docs, v, pl, over)
				}
			}
			if v == Lambda {
				continue // it has no index
			}
			over := overhead(t, sealed(t, p, s, programs(t, both()...), v), progs+model, progsZipped+modelZipped)
			t.Logf("| `%s` | index of both | %s", v, over)
			check(t, over, string(v)+", both")
		}
	}
}

// over are the bytes above program and artifact.
type over struct{ pulled, pushed, compressed, layout, archive int64 }

func (o over) String() string {
	return fmt.Sprintf("%d | %d | %d | %d | %d |", o.pulled, o.pushed, o.compressed, o.layout, o.archive)
}

func check(t *testing.T, o over, of string) {
	t.Helper()
	for form, n := range map[string]int64{"pulled": o.pulled, "pushed": o.pushed, "compressed": o.compressed, "layout": o.layout, "archive": o.archive} {
		if n > maxOver || n <= 0 {
			t.Errorf("%s, %s: %d bytes above program and artifact", of, form, n)
		}
	}
}

// sealed is an image with its bill of materials and all that a publisher signs.
func sealed(t *testing.T, p *edgetest.Publisher, s *Staged, rs []Runtime, v Variant) *Set {
	t.Helper()
	set := must[*Set](t)(Build(s, rs, Options{Variant: v}))
	k := p.Keys[trust.RolePublisher]
	for _, d := range set.Subjects() {
		if err := set.Attach(d, k.Sign(t, evidence.TypeRelease, edgetest.Model, d.Digest, struct{}{}), evidence.TypeRelease); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range set.Images {
		bom := must[[]byte](t)(set.SBOM(i.Descriptor.Digest))
		if err := set.Attach(i.Descriptor, k.Sign(t, evidence.TypeCycloneDX, edgetest.Model, i.Descriptor.Digest, json.RawMessage(bom)), evidence.TypeCycloneDX); err != nil {
			t.Fatal(err)
		}
	}
	return set
}

func overhead(t *testing.T, set *Set, content, compressed int64) (o over) {
	t.Helper()
	for i, x := range set.Images {
		o.pulled += x.Size
		if i > 0 {
			o.pulled -= x.layers[1].Size // the artifact's, which they share
		}
	}
	o.pulled -= content
	w := &scales{t: t}
	if err := set.Push(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	o.pushed, o.compressed = w.raw-content, w.zipped-compressed

	dir := filepath.Join(t.TempDir(), "layout")
	lay := must[registry.Place](t)(registry.Open(t.Context(), registry.Ref{Kind: registry.KindLayout, Path: dir}, registry.Options{Create: true}))
	if err := set.Push(t.Context(), lay, "1.0"); err != nil {
		t.Fatal(err)
	}
	if c, ok := lay.(io.Closer); ok {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		st, err := e.Info()
		o.layout += st.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	o.layout -= content
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}

	tar := &counter{w: io.Discard}
	if err := set.WriteTar(t.Context(), tar, "churn:1.0"); err != nil {
		t.Fatal(err)
	}
	o.archive = tar.n - content
	return o
}

// documented compares with the row of the table, in kB; what modules the program has changes the bill of materials by little.
func documented(t *testing.T, docs string, v Variant, p Platform, o over) {
	t.Helper()
	m := regexp.MustCompile(fmt.Sprintf("(?m)^\\| `%s` \\| %s \\|(.*)\\|$", v, regexp.QuoteMeta(p.String()))).FindStringSubmatch(docs)
	if m == nil {
		t.Errorf("docs/images.md has no figures of %s on %s", v, p)
		return
	}
	cells := strings.Split(m[1], "|")
	for i, n := range []int64{o.pulled, o.pushed, o.compressed, o.layout, o.archive} {
		kb, err := strconv.ParseInt(strings.TrimSpace(cells[i]), 10, 64)
		if err != nil || n > (kb+5)*1000 || n < (kb-5)*1000 {
			t.Errorf("docs/images.md, %s on %s, column %d: %s kB, and it is %d bytes", v, p, i+1, strings.TrimSpace(cells[i]), n)
		}
	}
}

// As many layers as an artifact may have, each of the size that wastes most: what an archive adds for files stays below half of it.
func TestSizeOfManyLayers(t *testing.T) {
	s := &Staged{Content: Content{Digest: artifact.EmptyDigest}, Dir: t.TempDir()}
	if err := os.MkdirAll(filepath.Join(s.Dir, "blobs", "sha256"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range artifact.MaxLayers {
		b := bytes.Repeat([]byte{'x'}, 513)
		copy(b, strconv.Itoa(i))
		if err := s.write(artifact.DigestOf(b), b); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []string{"index.json", "oci-layout", trustName} {
		if err := s.file(n, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	b := must[blob](t)(s.layer())
	t.Logf("%d bytes above %d", b.desc.Size-s.Size, s.Size)
	if over := b.desc.Size - s.Size; over > maxOver*55/100 || over < int64(artifact.MaxLayers)*1000 {
		t.Errorf("%d bytes above %d", over, s.Size)
	}
}
