package registry_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

// files are all files of a store but its locks, with their content.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(d.Name(), ".waybill.") {
			return err
		}
		b, err := os.ReadFile(p)
		out[p] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func sameFiles(t *testing.T, before, after map[string]string) {
	t.Helper()
	for p := range after {
		if was, ok := before[p]; !ok || was != after[p] {
			t.Errorf("%s was written", p)
		}
	}
	for p := range before {
		if _, ok := after[p]; !ok {
			t.Errorf("%s is gone", p)
		}
	}
}

type entry struct {
	tar.Header
	data []byte
}

func entriesOf(t *testing.T, archive []byte) []entry {
	t.Helper()
	var out []entry
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, entry{*h, b})
	}
}

func tarOf(t *testing.T, es []entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range es {
		h := e.Header
		h.Size = int64(len(e.data))
		if h.Typeflag != tar.TypeReg {
			h.Size = 0
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := w.Write(e.data); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Whatever is wrong with an archive, nothing of it enters the store: no blob, no line of the index, no temporary file. The
// same archive opened without a store is refused too.
func TestArchiveAllOrNothing(t *testing.T) {
	src := local(t, "churn")
	m := newModel(t, "1.0")
	d := m.push(t, src, "1.0")
	if _, err := src.Attach(t.Context(), d, bundle(1), "https://example.com/p"); err != nil {
		t.Fatal(err)
	}
	good := savedArchive(t, src, m)
	es := entriesOf(t, good)
	big := 0 // the largest blob
	for i := range es {
		if len(es[i].data) > len(es[big].data) {
			big = i
		}
	}
	with := func(f func(es []entry) []entry) []byte { return tarOf(t, f(append([]entry{}, es...))) }
	file := func(name, data string) entry {
		return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, []byte(data)}
	}
	index := func(change func(x *artifact.Index)) []byte {
		return with(func(es []entry) []entry {
			var x artifact.Index
			if err := json.Unmarshal(es[1].data, &x); err != nil {
				t.Fatal(err)
			}
			change(&x)
			es[1].data, _ = json.Marshal(x)
			return es
		})
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(good)
	_ = z.Close()
	noEnd := good[:len(good)-1024]
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"cut in the middle":           {good[:len(good)/2], "ends in the middle"},
		"cut before the end marker":   {noEnd, "it was cut off"},
		"cut inside the end marker":   {good[:len(good)-512], "it was cut off"},
		"something after the end":     {append(bytes.Clone(good), "and more"...), "follows after its end"},
		"another tar after the end":   {append(bytes.Clone(good), good...), "follows after its end"},
		"endless zeros after the end": {append(bytes.Clone(good), make([]byte, 3<<20)...), "zeros follow"},
		"gzip":                        {zipped.Bytes(), "compressed with gzip"},
		"largest blob altered": {with(func(es []entry) []entry {
			es[big].data = bytes.Clone(es[big].data)
			es[big].data[len(es[big].data)/2] ^= 1
			return es
		}), "want sha256:"},
		"last blob altered": {with(func(es []entry) []entry {
			l := &es[len(es)-1]
			l.data = bytes.Clone(l.data)
			l.data[0] ^= 1
			return es
		}), "want sha256:"},
		"a blob twice":      {with(func(es []entry) []entry { return append(es, es[big]) }), "twice"},
		"index.json twice":  {with(func(es []entry) []entry { return append(es, es[1]) }), "twice"},
		"a file of its own": {with(func(es []entry) []entry { return append(es, file("README", "hello")) }), "unexpected entry"},
		"out of the layout": {with(func(es []entry) []entry { return append(es, file("../evil", "x")) }), "leaves the layout"},
		"absolute":          {with(func(es []entry) []entry { return append(es, file("/etc/evil", "x")) }), "leaves the layout"},
		"dots inside":       {with(func(es []entry) []entry { return append(es, file("blobs/sha256/../../evil", "x")) }), "leaves the layout"},
		"another algorithm": {with(func(es []entry) []entry { return append(es, file("blobs/md5/aa", "x")) }), "only sha256"},
		"not a digest":      {with(func(es []entry) []entry { return append(es, file("blobs/sha256/xyz", "x")) }), "not a sha256 digest"},
		"below a blob":      {with(func(es []entry) []entry { return append(es, file(es[big].Name+"/x", "x")) }), "not a sha256 digest"},
		"another directory": {with(func(es []entry) []entry {
			return append(es, entry{tar.Header{Typeflag: tar.TypeDir, Name: "etc/"}, nil})
		}), "unexpected directory"},
		"symbolic link": {with(func(es []entry) []entry {
			es[big] = entry{tar.Header{Typeflag: tar.TypeSymlink, Name: es[big].Name, Linkname: "/etc/passwd"}, nil}
			return es
		}), "is a link"},
		"hard link": {with(func(es []entry) []entry {
			es[big] = entry{tar.Header{Typeflag: tar.TypeLink, Name: es[big].Name, Linkname: "index.json"}, nil}
			return es
		}), "is a link"},
		"device": {with(func(es []entry) []entry {
			return append(es, entry{tar.Header{Typeflag: tar.TypeChar, Name: "blobs/sha256/x"}, nil})
		}), "neither a file"},
		"no oci-layout":  {with(func(es []entry) []entry { return es[1:] }), "no oci-layout"},
		"another layout": {with(func(es []entry) []entry { es[0].data = []byte(`{"imageLayoutVersion":"2.0.0"}`); return es }), "not 1.0.0"},
		"index.json too long": {with(func(es []entry) []entry {
			es[1].data = append(bytes.Clone(es[1].data), bytes.Repeat([]byte(" "), artifact.MaxManifest)...)
			return es
		}), "more than"},
		"index.json no JSON":      {with(func(es []entry) []entry { es[1].data = []byte("{"); return es }), "index.json"},
		"wrong size in the index": {index(func(x *artifact.Index) { x.Manifests[0].Size++ }), "the index says"},
		"a manifest that is missing": {index(func(x *artifact.Index) {
			x.Manifests = append(x.Manifests, artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: artifact.DigestOf([]byte("x")), Size: 1})
		}), "is missing"},
		"a blob as a manifest": {index(func(x *artifact.Index) {
			x.Manifests = append(x.Manifests, artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: artifact.DigestOf(es[big].data), Size: int64(len(es[big].data))})
		}), "manifest sha256:"},
		"a name that is none": {index(func(x *artifact.Index) {
			for i := range x.Manifests {
				if x.Manifests[i].Annotations != nil {
					x.Manifests[i].Annotations = map[string]string{store.AnnotationRef: "../../x:1"}
				}
			}
		}), "is no name in the local store"},
	} {
		t.Run(name, func(t *testing.T) {
			dst := local(t, "churn")
			other := newModel(t, "0.9")
			other.push(t, dst, "1.0")
			before := files(t, dst.Store().Dir())
			_, err := registry.Load(t.Context(), bytes.NewReader(c.b), dst.Store(), "")
			if err == nil || !strings.Contains(diag.Render(err), c.want) {
				t.Fatalf("want %q, got %v", c.want, err)
			}
			sameFiles(t, before, files(t, dst.Store().Dir()))
			other.check(t, dst, "1.0")
			o, err := registry.OpenArchive(t.Context(), bytes.NewReader(c.b), nil, nil)
			if err == nil {
				_, err = o.Listings("")
			}
			if err == nil || !strings.Contains(diag.Render(err), c.want) {
				t.Errorf("without a store: want %q, got %v", c.want, err)
			}
		})
	}
}

// sparseBomb is an archive whose one blob says that it has size bytes and brings a few.
func sparseBomb(t *testing.T, blob artifact.Digest, size int64) []byte {
	t.Helper()
	var b bytes.Buffer
	// Go's tar writer does not write sparse files; this is the extended header that GNU tar writes for one.
	rec := ""
	for _, kv := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=blobs/sha256/" + blob.Hex(), fmt.Sprintf("GNU.sparse.realsize=%d", size)} {
		n := len(kv) + 3
		for len(itoa(n))+len(kv)+2 != n {
			n = len(itoa(n)) + len(kv) + 2
		}
		rec += itoa(n) + " " + kv + "\n"
	}
	w := tar.NewWriter(&b)
	raw := func(typ byte, name string, data []byte) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		head := b.Bytes()[b.Len()-512-(len(data)+511)/512*512:]
		head[156] = typ
		sum := 0
		copy(head[148:156], "        ")
		for _, c := range head[:512] {
			sum += int(c)
		}
		copy(head[148:156], []byte(oct(sum)))
	}
	raw(tar.TypeReg, "oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`))
	raw(tar.TypeReg, "index.json", []byte(`{"schemaVersion":2,"manifests":[]}`))
	raw(tar.TypeXHeader, "PaxHeaders/x", []byte(rec))
	raw(tar.TypeReg, "GNUSparseFile/x", append([]byte("1\n0\n4\n"), make([]byte, 512-6+4)...))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A sparse file says that it has terabytes and brings a few bytes: it is refused before one of them is made up.
func TestArchiveBomb(t *testing.T) {
	b := sparseBomb(t, artifact.Digest("sha256:"+strings.Repeat("ab", 32)), 1<<40)
	entries := tar.NewReader(bytes.NewReader(b))
	var h *tar.Header
	var err error
	for range 3 { // it is the last one
		h, err = entries.Next()
	}
	if err != nil || h.Size != 1<<40 {
		t.Fatalf("the bomb is none: %+v %v", h, err)
	}
	dst := local(t, "churn")
	before := files(t, dst.Store().Dir())
	if _, err := registry.Load(t.Context(), bytes.NewReader(b), dst.Store(), ""); err == nil || !strings.Contains(err.Error(), "sparse") {
		t.Fatal(err)
	}
	sameFiles(t, before, files(t, dst.Store().Dir()))
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

func oct(n int) string {
	s := ""
	for range 6 {
		s = string(rune('0'+n%8)) + s
		n /= 8
	}
	return s + "\x00 "
}

// At whatever step the file system fails, a name is either set with everything behind it or not at all, and a second try
// succeeds.
func TestLoadFaults(t *testing.T) {
	src := local(t, "churn")
	m := newModel(t, "1.0")
	d := m.push(t, src, "1.0")
	if _, err := src.Attach(t.Context(), d, bundle(1), "https://example.com/p"); err != nil {
		t.Fatal(err)
	}
	good := savedArchive(t, src, m)
	nolock := func(context.Context, string, bool) (func() error, error) { return func() error { return nil }, nil }
	for _, kind := range []fsx.Fault{fsx.EIO, fsx.ENOSPC, fsx.Kill, fsx.KillAfter} {
		for at := 1; ; at++ {
			mem := fsx.NewMem()
			faulty := fsx.NewFaulty(mem)
			s, err := store.Open(t.Context(), "store", store.Options{FS: faulty, Create: true, Lock: nolock})
			if err != nil {
				t.Fatal(err)
			}
			faulty.Arm(at, kind)
			_, err = registry.Load(t.Context(), bytes.NewReader(good), s, "")
			if faulty.Fired() == "" {
				if err != nil {
					t.Fatalf("%v: nothing failed, but: %v", kind, err)
				}
				break
			}
			// A new process finds the store.
			clean, oerr := store.Open(t.Context(), "store", store.Options{FS: mem, Lock: nolock})
			if oerr != nil {
				t.Fatal(oerr)
			}
			if _, rerr := clean.Resolve(t.Context(), "churn:1.0"); rerr == nil {
				m.check(t, registry.NewLocal(clean, "churn"), "1.0")
			} else if err == nil {
				t.Fatalf("%v at %d (%s): loaded, but there is no name: %v", kind, at, faulty.Fired(), rerr)
			}
			if _, err := registry.Load(t.Context(), bytes.NewReader(good), clean, ""); err != nil {
				t.Fatalf("%v at %d (%s), second try: %v", kind, at, faulty.Fired(), err)
			}
			m.check(t, registry.NewLocal(clean, "churn"), "1.0")
		}
	}
}
