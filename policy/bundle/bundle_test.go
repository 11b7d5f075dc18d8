package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
)

func sample(t testing.TB, more ...string) *Bundle {
	t.Helper()
	m := fstest.MapFS{
		"main.rego":        {Data: []byte("package main\n\ndeny contains \"no\" if input.x\n")},
		"main_test.rego":   {Data: []byte("package main\n")},
		"limits/data.json": {Data: []byte(`{"max": 10}`)},
		"policy.json":      {Data: []byte(`{"name": "gov", "version": "2.3"}`)},
		"fixtures/a.rego":  {Data: []byte("package fixtures\n")},
		"README.md":        {Data: []byte("text")},
	}
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = &fstest.MapFile{Data: []byte(more[i+1])}
	}
	b, err := FromFS(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The digests of a fixed policy never change: environments, verdicts and signatures out there name them.
func TestDigestsAreFixed(t *testing.T) {
	b := sample(t)
	x, err := b.Image()
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(b.Names()); got != "[limits/data.json main.rego policy.json]" {
		t.Errorf("files: %s", got)
	}
	const policy, manifest = "sha256:838dfaf5119c", "sha256:276752663a6a"
	if got := string(b.Digest())[:19]; got != policy {
		t.Errorf("policy digest %s, want %s", got, policy)
	}
	if got := string(x.Descriptor.Digest)[:19]; got != manifest {
		t.Errorf("manifest digest %s, want %s", got, manifest)
	}
	// Tests and fixtures are no part of it; a byte of a rule is.
	if other := sample(t, "more_test.rego", "package x\n", "fixtures/b.rego", "package y\n"); other.Digest() != b.Digest() {
		t.Error("a test changes the digest")
	}
	if other := sample(t, "limits/data.json", `{"max": 11}`); other.Digest() == b.Digest() {
		t.Error("data do not change the digest")
	}
}

func TestImage(t *testing.T) {
	b := sample(t)
	x, err := b.Image()
	if err != nil {
		t.Fatal(err)
	}
	m, err := artifact.ParseManifest(x.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if m.Layers[0].Digest != b.Digest() || m.ArtifactType != ArtifactType || len(m.Layers) != 2+len(b.Names()) || len(x.Blobs) != 1+len(m.Layers) {
		t.Fatalf("%s", x.Manifest)
	}
	for _, l := range x.Blobs {
		if artifact.DigestOf(l.Bytes) != l.Digest || int64(len(l.Bytes)) != l.Size {
			t.Errorf("%s is not what it says", l.Digest)
		}
	}
	z, err := gzip.NewReader(bytes.NewReader(x.Blobs[2].Bytes))
	if err != nil {
		t.Fatal(err)
	}
	z.Multistream(false)
	raw, err := io.ReadAll(z)
	if err != nil || !bytes.Equal(raw, b.Tar()) {
		t.Errorf("layer 1 is not the tar as gzip: %v", err)
	}
	again, err := FromTar(b.Tar())
	if err != nil || again.Digest() != b.Digest() || again.Meta() != b.Meta() {
		t.Errorf("round trip: %v", err)
	}
}

func TestStoredGzip(t *testing.T) {
	for _, n := range []int{0, 1, 1<<16 - 2, 1<<16 - 1, 1 << 16, 1<<17 - 2, 300_000} {
		want := bytes.Repeat([]byte("x"), n)
		z, err := gzip.NewReader(bytes.NewReader(stored(want)))
		if err != nil {
			t.Fatal(n, err)
		}
		if got, err := io.ReadAll(z); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%d bytes come back as %d: %v", n, len(got), err)
		}
	}
}

func archive(t testing.TB, change func(*tar.Header), kv ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for i := 0; i < len(kv); i += 2 {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: kv[i], Mode: 0o644, Size: int64(len(kv[i+1]))}
		if change != nil {
			change(h)
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, kv[i+1]); err != nil && !errors.Is(err, tar.ErrWriteTooLong) {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// sparse is an archive of some kilobytes with a file of n bytes: a hole.
func sparse(t testing.TB, n int64) []byte {
	t.Helper()
	// PAX 1.0 sparse format: the map of the holes stands before the data.
	body := "0\n"
	body += strings.Repeat("\x00", 512-len(body))
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	records := ""
	for _, kv := range []string{"GNU.sparse.major=1", "GNU.sparse.minor=0", "GNU.sparse.name=main.rego", fmt.Sprintf("GNU.sparse.realsize=%d", n)} {
		l := len(kv) + 3
		for len(fmt.Sprint(l))+len(kv)+2 != l {
			l++
		}
		records += fmt.Sprintf("%d %s\n", l, kv)
	}
	// archive/tar refuses to write such records, so that the extended header is written as a file of its own type.
	ext := &tar.Header{Typeflag: tar.TypeReg, Name: "PaxHeaders.0/data.json", Mode: 0o644, Size: int64(len(records)), Format: tar.FormatUSTAR}
	if err := errors.Join(w.WriteHeader(ext), write(w, records)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "GNUSparseFile.0/data.json", Mode: 0o644, Size: int64(len(body)), Format: tar.FormatUSTAR}), write(w, body), w.Close()); err != nil {
		t.Fatal(err)
	}
	b := buf.Bytes()
	b[156] = tar.TypeXHeader
	sum := int64(0)
	copy(b[148:156], "        ")
	for _, c := range b[:512] {
		sum += int64(c)
	}
	copy(b[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

func write(w io.Writer, s string) error {
	_, err := io.WriteString(w, s)
	return err
}

func TestFromTarRefuses(t *testing.T) {
	const rego = "package main\n\ndeny contains \"no\" if input.x\n"
	for name, c := range map[string]struct {
		raw  []byte
		want string
		skip string // the check without which it passes, or fails with free
		free string
	}{
		"other times":    {archive(t, func(h *tar.Header) { h.ModTime = time.Unix(1, 0) }, "main.rego", rego), "not in canonical form", "canonical", ""},
		"other order":    {archive(t, nil, "z.rego", "package z\n", "main.rego", rego), "not in canonical form", "canonical", ""},
		"path up":        {archive(t, nil, "../main.rego", rego), "is no part of a policy", "path", ""},
		"absolute":       {archive(t, nil, "/main.rego", rego), "is no part of a policy", "path", ""},
		"a test":         {archive(t, nil, "main_test.rego", rego), "is no part of a policy", "path", ""},
		"a text":         {archive(t, nil, "main.rego", rego, "README.md", "x"), "is no part of a policy", "path", ""},
		"link":           {archive(t, func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, "/etc/passwd", 0 }, "main.rego", ""), "is no part", "", ""},
		"twice":          {archive(t, nil, "main.rego", rego, "main.rego", rego), "twice", "", ""},
		"no rule":        {archive(t, nil, "data.json", "{}"), "no .rego", "", ""},
		"cut":            {sample(t).Tar()[:515], "unexpected EOF", "", ""},
		"zeros after it": {append(sample(t).Tar(), make([]byte, 1024)...), "not in canonical form", "canonical", ""},
		"nothing":        {nil, "no .rego", "", ""},
		"backslash":      {archive(t, nil, `a\b.rego`, rego), "a character", "", ""},
		"drive":          {archive(t, nil, `C:a.rego`, rego), "a character", "", ""},
		"case":           {archive(t, nil, "A.rego", rego, "a.rego", rego), "differ in case", "", ""},
		"folder in case": {archive(t, nil, "A/a.rego", rego, "a/b.rego", rego), "differ in case", "", ""},
		"file, folder":   {archive(t, nil, "a.rego", rego, "a.rego/b.rego", rego), "too", "", ""},
		"name":           {archive(t, nil, "main.rego", rego, "policy.json", `{"name": "A b"}`), "lower-case", "", ""},
		"version":        {archive(t, nil, "main.rego", rego, "policy.json", `{"version": "a/b"}`), "no version", "", ""},
		"unknown key":    {archive(t, nil, "main.rego", rego, "policy.json", `{"nam": "a"}`), "unknown field", "", ""},
		"two documents":  {archive(t, nil, "main.rego", rego, "policy.json", `{"name": "a"}{}`), "more than one", "", ""},
		"hole":           {sparse(t, 64<<20), "larger than the archive", "sparse", "limit"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := FromTar(c.raw); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if c.skip == "" {
				return
			}
			b, err := fromTar(c.raw, c.skip)
			if c.free == "" && err != nil {
				t.Errorf("refused without the check too: %v", err)
			}
			if c.free != "" && (err == nil || !strings.Contains(err.Error(), c.free)) {
				t.Errorf("without the check: %v %v", b, err)
			}
		})
	}
}

// A file with a hole takes memory only where the check is left out.
func TestHoleTakesNoMemory(t *testing.T) {
	raw := sparse(t, 64<<20)
	used := func(skip string) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = fromTar(raw, skip)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	if n := used(""); n > 4<<20 {
		t.Errorf("%d bytes are allocated", n)
	}
	if n := used("sparse"); n < 64<<20 {
		t.Errorf("without the check only %d bytes are allocated: the test proves nothing", n)
	}
}

func TestWriteDir(t *testing.T) {
	b := sample(t)
	dir := t.TempDir()
	if err := b.WriteDir(dir); err != nil {
		t.Fatal(err)
	}
	back, err := FromFS(os.DirFS(dir))
	if err != nil || back.Digest() != b.Digest() {
		t.Errorf("what is written is another policy: %v", err)
	}
	if err := b.WriteDir(dir); err == nil {
		t.Error("files are written over")
	}
	// Without the checks of names the operating system still refuses to leave the folder.
	evil, err := fromTar(archive(t, nil, "../evil.rego", "package evil\n"), "path")
	if err != nil {
		t.Fatal(err)
	}
	sub := filepath.Join(t.TempDir(), "sub")
	if err := os.Mkdir(sub, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := evil.WriteDir(sub); err == nil {
		t.Error("it left the folder")
	}
	if _, err := os.Lstat(filepath.Join(filepath.Dir(sub), "evil.rego")); err == nil {
		t.Error("a file stands outside of the folder")
	}
}

func FuzzFromTar(f *testing.F) {
	f.Add(sample(f).Tar())
	f.Add(archive(f, nil, "main.rego", "package main\n"))
	f.Add(sparse(f, 1<<20))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := FromTar(raw)
		if err != nil {
			return
		}
		if !bytes.Equal(b.Tar(), raw) || b.Digest() != artifact.DigestOf(raw) {
			t.Fatal("accepted, and not what was given")
		}
		x, err := b.Image()
		if err != nil {
			t.Fatal(err)
		}
		var m map[string]any
		if err := json.Unmarshal(x.Manifest, &m); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		if err := b.WriteDir(dir); err != nil {
			t.Skip(err) // a name that this file system does not take
		}
		if back, err := FromFS(os.DirFS(dir)); err != nil || back.Digest() != b.Digest() {
			t.Fatalf("files give another policy: %v", err)
		}
	})
}
