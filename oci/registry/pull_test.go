package registry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/faultproxy"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

// noise is content that no compression or sparse file makes smaller.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// bigModel has one blob of several segments and one smaller than a block.
func bigModel(t testing.TB, size int) (m model, big artifact.Layer) {
	t.Helper()
	m = model{layers: map[artifact.Digest][]byte{}}
	var ls []artifact.Layer
	for _, f := range []struct {
		role artifact.Role
		path string
		data []byte
	}{
		{artifact.RoleModule, "model.wasm", []byte("\x00asm\x01\x00\x00\x00")},
		{artifact.RoleInterface, "interface.json", []byte(`{"schema":"s"}`)},
		{artifact.RoleSource, "source/weights.bin", noise(7, size)},
	} {
		l := artifact.Layer{Role: f.role, Path: f.path, Digest: artifact.DigestOf(f.data), Size: int64(len(f.data))}
		if f.role == artifact.RoleModule {
			l.Target = artifact.TargetAny
		}
		ls = append(ls, l)
		m.layers[l.Digest] = f.data
	}
	var err error
	m.manifest, m.config, err = artifact.BuildModel(artifact.Config{
		Descriptor: artifact.ModelDescriptor{Name: "big", Version: "1", Licenses: []string{"Apache-2.0"}}, Model: artifact.ModelConfig{Format: "wasm"},
	}, ls, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.digest = artifact.DigestOf(m.manifest)
	return m, ls[len(ls)-1]
}

// blocksDone counts the blocks that a state file says are there.
func blocksDone(t testing.TB, path string) (bytes_ int64) {
	t.Helper()
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) < 1024 { // a process is just making it
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	var h struct{ Size, Block int64 }
	if err := json.Unmarshal(bytes.TrimSpace(b[:1024]), &h); err != nil {
		t.Fatal(err)
	}
	for i, m := range b[1024:] {
		if m == '#' {
			bytes_ += min(h.Size, int64(i+1)*h.Block) - int64(i)*h.Block
		}
	}
	return bytes_
}

func openLayout(t testing.TB, dir string) *registry.Local {
	t.Helper()
	s, err := store.Open(t.Context(), dir, store.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return registry.NewLocal(s, "big")
}

func partialOf(dst *registry.Local, d artifact.Digest) string {
	return filepath.Join(dst.Store().Dir(), ".ingest", d.Hex()+".partial")
}

// Whatever a registry or the network does, a pull ends with exactly the right bytes under the final name, or with an error and
// no file there; and the next pull, when all is well again, fetches what is missing and no more.
func TestPullUnderRandomFaults(t *testing.T) {
	const size = 9<<20 + 12345
	m, big := bigModel(t, size)
	p := faulty(t, nil)
	m.push(t, through(t, p, "ml/big", nil), "1")
	faults := []faultproxy.Fault{
		{Kind: faultproxy.Cut}, {Kind: faultproxy.Cut, N: -1}, {Kind: faultproxy.Corrupt}, {Kind: faultproxy.Truncate}, {Kind: faultproxy.Length},
		{Kind: faultproxy.Length, N: -1000}, {Kind: faultproxy.Range}, {Kind: faultproxy.Total}, {Kind: faultproxy.Whole}, {Kind: faultproxy.Shift, N: 16 << 10},
		{Kind: faultproxy.ShiftLie, N: -16 << 10}, {Kind: faultproxy.Duplicate}, {Kind: faultproxy.Endless}, {Kind: faultproxy.Stall}, {Kind: faultproxy.Drip, N: 3},
		faultproxy.Unavailable(0), {Kind: faultproxy.Answer, Status: 500}, {Kind: faultproxy.Answer, Status: 429},
		{Kind: faultproxy.Answer, Status: 404}, {Kind: faultproxy.Answer, Status: 416}, {Kind: faultproxy.Answer, Status: 206},
	}
	rounds := 24
	if testing.Short() {
		rounds = 8
	}
	good, bad := 0, 0
	for seed := range rounds {
		seed := uint64(seed)
		toDir := seed%2 == 1
		dir := t.TempDir()
		var dst *registry.Local
		var final, partial string
		if toDir {
			final, partial = filepath.Join(dir, "source", "weights.bin"), filepath.Join(dir, "source", ".weights.bin."+big.Digest.Short()+".partial")
		} else {
			dst = openLayout(t, dir)
			final, partial = dst.Store().BlobPath(big.Digest), partialOf(dst, big.Digest)
		}
		pull := func(r *registry.Remote) (registry.Received, error) {
			if toDir {
				res, err := registry.Extract(t.Context(), r, []artifact.Layer{big}, dir, registry.ExtractOptions{})
				return res.Received, err
			}
			res, err := registry.Copy(t.Context(), dst, r, "1", registry.CopyOptions{Tag: "1"})
			return res.Received, err
		}
		p.SetPlan(faultproxy.Random(seed, faultproxy.Blobs, 0.2+0.6*float64(seed%5)/5, size/3, faults...))
		var seen notices
		// A healthy answer that a busy machine delays may count as a stall: then it is one more fault.
		_, err := pull(through(t, p, "ml/big", func(o *registry.RemoteOptions) { o.Notify = seen.add; o.Stall = 200 * time.Millisecond }))
		b, rerr := os.ReadFile(final)
		switch {
		case err == nil && bytes.Equal(b, m.layers[big.Digest]):
			good++
		case err != nil && (errors.Is(rerr, fs.ErrNotExist) || bytes.Equal(b, m.layers[big.Digest])): // another blob may have failed
			bad++
		default:
			t.Fatalf("seed %d: %v, and under the final name %d bytes, %v\n%s", seed, err, len(b), rerr, &seen)
		}
		if err != nil && diag.CodeOf(err) == diag.Failure {
			t.Fatalf("seed %d: the code tells nothing: %v", seed, err)
		}
		have := blocksDone(t, partial+".state")
		p.SetPlan(nil)
		res, err := pull(through(t, p, "ml/big", func(o *registry.RemoteOptions) { o.Notify = seen.add }))
		if err != nil {
			t.Fatalf("seed %d: without faults: %s\n%s", seed, diag.Render(err), &seen)
		}
		if b, err := os.ReadFile(final); err != nil || !bytes.Equal(b, m.layers[big.Digest]) {
			t.Fatalf("seed %d: %d bytes, %v", seed, len(b), err)
		}
		if res.Resumed != have {
			t.Errorf("seed %d: %d bytes were here, %d were taken up", seed, have, res.Resumed)
		}
		most := size - have + 1000 // the small blobs
		if res.Restarts > 0 {      // what was here was poisoned
			most += size
		}
		if rerr == nil {
			most = 1000
		}
		if res.Fetched > most {
			t.Errorf("seed %d: fetched %d bytes; %d of %d were here, %d restarts", seed, res.Fetched, have, size, res.Restarts)
		}
		left, err := filepath.Glob(partial + "*")
		if err != nil || len(left) > 0 {
			t.Errorf("seed %d: left behind %v, %v", seed, left, err)
		}
	}
	t.Logf("%d pulls succeeded among faults, %d failed", good, bad)
	if rounds > 20 && bad == 0 {
		t.Error("the faults are too weak to test anything")
	}
}

// A partial file with wrong bytes is thrown away, and all is fetched again, once, and said.
func TestPoisonedPartialHeals(t *testing.T) {
	const size = 9 << 20
	m, big := bigModel(t, size)
	p := faulty(t, nil)
	m.push(t, through(t, p, "ml/big", nil), "1")
	dst := openLayout(t, t.TempDir())
	partial := partialOf(dst, big.Digest)
	n := 0
	p.SetPlan(func(r *http.Request, _ int) faultproxy.Fault {
		if !strings.Contains(r.URL.Path, string(big.Digest)) {
			return faultproxy.Fault{}
		}
		if n++; n <= 2 {
			return faultproxy.Fault{Kind: faultproxy.Cut, N: 1 << 20}
		}
		return faultproxy.Unavailable(0)
	})
	_, err := registry.Copy(t.Context(), dst, through(t, p, "ml/big", nil), "1", registry.CopyOptions{Tag: "1"})
	if diag.CodeOf(err) != diag.Registry || !strings.Contains(diag.Render(err), "the next run goes on from there") {
		t.Fatal(diag.Render(err))
	}
	b, err := os.ReadFile(partial)
	if err != nil || len(b) != size || blocksDone(t, partial+".state") == 0 {
		t.Fatalf("%d bytes in the partial file, %v", len(b), err)
	}
	b[5] ^= 1
	if err := os.WriteFile(partial, b, 0o644); err != nil {
		t.Fatal(err)
	}
	p.SetPlan(nil)
	var seen notices
	res, err := registry.Copy(t.Context(), dst, through(t, p, "ml/big", func(o *registry.RemoteOptions) { o.Notify = seen.add }), "1", registry.CopyOptions{Tag: "1"})
	if err != nil || res.Restarts != 1 || res.Resumed == 0 || !strings.Contains(seen.String(), "all of it is fetched again") {
		t.Fatalf("%+v %v\n%s", res, err, &seen)
	}
	m.check(t, dst, "1")
}

// A registry whose bytes are wrong is asked twice at most, and the error names both digests.
func TestTamperedRegistryEnds(t *testing.T) {
	const size = 9 << 20
	m, big := bigModel(t, size)
	p := faulty(t, nil)
	m.push(t, through(t, p, "ml/big", nil), "1")
	for name, f := range map[string]faultproxy.Fault{
		"one byte altered": {Kind: faultproxy.Corrupt, N: 12345},
		"ranges that lie":  {Kind: faultproxy.ShiftLie, N: 16 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			p.SetPlan(faultproxy.Always(func(r *http.Request) bool {
				return faultproxy.Blobs(r) && strings.Contains(r.URL.Path, string(big.Digest)) && (f.Kind != faultproxy.ShiftLie || !strings.HasPrefix(r.Header.Get("Range"), "bytes=8"))
			}, f))
			p.Reset()
			dst := openLayout(t, t.TempDir())
			_, err := registry.Copy(t.Context(), dst, through(t, p, "ml/big", nil), "1", registry.CopyOptions{Tag: "1"})
			_, _, out := p.Count(func(r faultproxy.Record) bool { return strings.Contains(r.Path, string(big.Digest)) })
			if out > 2*size {
				t.Errorf("%d bytes of a blob of %d", out, size)
			}
			if f.Kind == faultproxy.ShiftLie { // in one answer, without ranges, it sends the right bytes
				if err != nil {
					t.Fatal(diag.Render(err))
				}
				m.check(t, dst, "1")
				return
			}
			msg := diag.Render(err)
			if diag.CodeOf(err) != diag.Verification || !strings.Contains(msg, "want "+string(big.Digest)) || !strings.Contains(msg, "got  sha256:") {
				t.Fatal(msg)
			}
			if left, _ := filepath.Glob(partialOf(dst, big.Digest) + "*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
			if _, err := os.Stat(dst.Store().BlobPath(big.Digest)); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a file stands under the final name: %v", err)
			}
		})
	}
}

// Parts that give the bytes of one range for another are found by Content-Range, before anything is written.
func TestWrongRangesAreSeen(t *testing.T) {
	const size = 9 << 20
	m, big := bigModel(t, size)
	p := faulty(t, nil)
	m.push(t, through(t, p, "ml/big", nil), "1")
	for name, f := range map[string]faultproxy.Fault{
		"another range": {Kind: faultproxy.Shift, N: 16 << 10}, "start": {Kind: faultproxy.Range, N: 1}, "total": {Kind: faultproxy.Total, N: 1}, "none": {Kind: faultproxy.Whole},
	} {
		t.Run(name, func(t *testing.T) {
			p.SetPlan(faultproxy.Always(func(r *http.Request) bool { return faultproxy.Blobs(r) && r.Header.Get("Range") != "" }, f))
			p.Reset()
			var seen notices
			dst := openLayout(t, t.TempDir())
			res, err := registry.Copy(t.Context(), dst, through(t, p, "ml/big", func(o *registry.RemoteOptions) { o.Notify = seen.add }), "1", registry.CopyOptions{Tag: "1"})
			if err != nil || res.Restarts != 0 {
				t.Fatalf("%+v %v", res, err)
			}
			m.check(t, dst, "1")
			if f.Kind != faultproxy.Whole && !strings.Contains(seen.String(), "going on without ranges") {
				t.Errorf("not said: %s", &seen)
			}
			if n, _, _ := p.Count(func(r faultproxy.Record) bool { return strings.Contains(r.Path, string(big.Digest)) }); f.Kind == faultproxy.Whole && n != 1 {
				t.Errorf("%d requests where one answer has everything", n)
			}
		})
	}
}

// Two pulls of one blob at once fetch it once.
func TestTwoPullsFetchOnce(t *testing.T) {
	const size, pulls = 9 << 20, 4
	m, _ := bigModel(t, size)
	p := faulty(t, nil)
	m.push(t, through(t, p, "ml/big", nil), "1")
	for _, toDir := range []bool{false, true} {
		p.Reset()
		dir := t.TempDir()
		errs := make(chan error, pulls)
		model, err := artifact.ParseModel(m.manifest)
		if err != nil {
			t.Fatal(err)
		}
		for range pulls {
			r, dst := through(t, p, "ml/big", nil), openLayout(t, filepath.Join(dir, "store"))
			go func() {
				var err error
				if toDir {
					_, err = registry.Extract(t.Context(), r, model.Layers, filepath.Join(dir, "out"), registry.ExtractOptions{})
				} else {
					_, err = registry.Copy(t.Context(), dst, r, "1", registry.CopyOptions{Tag: "1"})
				}
				errs <- err
			}()
		}
		for range pulls {
			if err := <-errs; err != nil {
				t.Error(diag.Render(err))
			}
		}
		var want int64
		for _, l := range model.Layers {
			want += l.Size
		}
		if !toDir {
			want += int64(len(m.config))
			m.check(t, openLayout(t, filepath.Join(dir, "store")), "1")
		}
		if _, _, out := p.Count(func(r faultproxy.Record) bool {
			return r.Method == http.MethodGet && strings.Contains(r.Path, "/blobs/")
		}); out != want {
			t.Errorf("to a folder %v: %d bytes of blobs were sent, they have %d", toDir, out, want)
		}
	}
}

// Files that are right in the folder are not fetched; the hash decides, not the time or the size.
func TestExtractFetchesWhatIsMissing(t *testing.T) {
	m, big := bigModel(t, 1<<20)
	p := faulty(t, nil)
	m.push(t, through(t, p, "ml/big", nil), "1")
	model, err := artifact.ParseModel(m.manifest)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	r := through(t, p, "ml/big", nil)
	// Two files of one content: it comes over the network once.
	twin := big
	twin.Path = "source/twin.bin"
	layers := append(model.Layers, twin)
	res, err := registry.Extract(t.Context(), r, layers, dir, registry.ExtractOptions{})
	if err != nil || res.Written != 4 || res.Fetched != big.Size+8+14 {
		t.Fatalf("%+v %v", res, err)
	}
	for _, name := range []string{"weights.bin", "twin.bin"} {
		if b, err := os.ReadFile(filepath.Join(dir, "source", name)); err != nil || !bytes.Equal(b, m.layers[big.Digest]) {
			t.Fatalf("%s: %d bytes, %v", name, len(b), err)
		}
	}
	p.Reset()
	res, err = registry.Extract(t.Context(), r, layers, dir, registry.ExtractOptions{})
	if n, _, _ := p.Count(func(faultproxy.Record) bool { return true }); err != nil || n != 0 || res.Present != 4 {
		t.Fatalf("%+v %v, %d requests", res, err, n)
	}
	name := filepath.Join(dir, "source", "weights.bin")
	fi, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(m.layers[big.Digest])
	bad[big.Size/2] ^= 1
	if err := os.WriteFile(name, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name, fi.ModTime(), fi.ModTime()); err != nil {
		t.Fatal(err)
	}
	if _, err = registry.Extract(t.Context(), r, layers, dir, registry.ExtractOptions{}); diag.CodeOf(err) != diag.Usage {
		t.Fatalf("an edited file: %v", err)
	}
	if res, err = registry.Extract(t.Context(), r, layers, dir, registry.ExtractOptions{Force: true}); err != nil || res.Written != 1 || res.Fetched != big.Size {
		t.Fatalf("%+v %v", res, err)
	}
	if b, err := os.ReadFile(name); err != nil || !bytes.Equal(b, m.layers[big.Digest]) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
}

// A stream goes on after a stall, a cut, and an answer that ignores the range.
func TestBlobStreamUnderFaults(t *testing.T) {
	const size = 1 << 20
	m, big := bigModel(t, size)
	p := faulty(t, nil)
	m.push(t, through(t, p, "ml/big", nil), "1")
	for name, fs := range map[string][]faultproxy.Fault{
		"cut, and ranges ignored": {{Kind: faultproxy.Cut, N: 300_000}, {Kind: faultproxy.Whole}},
		"wrong range":             {{Kind: faultproxy.Cut, N: 300_000}, {Kind: faultproxy.Shift, N: 1}},
		"truncated twice":         {{Kind: faultproxy.Length, N: -1000}, {Kind: faultproxy.Cut, N: 999}},
		"endless":                 {{Kind: faultproxy.Endless}},
	} {
		t.Run(name, func(t *testing.T) {
			p.SetPlan(faultproxy.Times(faultproxy.Blobs, fs...))
			rc, err := through(t, p, "ml/big", nil).Blob(t.Context(), big.Descriptor())
			var b []byte
			if err == nil {
				b, err = io.ReadAll(rc)
				rc.Close()
			}
			if name == "endless" || name == "truncated twice" { // the length alone shows that this is another blob
				if diag.CodeOf(err) != diag.Verification {
					t.Fatalf("%d bytes, %v", len(b), err)
				}
				return
			}
			if err != nil || !bytes.Equal(b, m.layers[big.Digest]) {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
		})
	}
	// A byte at a time is not getting on.
	p.SetPlan(faultproxy.Always(faultproxy.Blobs, faultproxy.Fault{Kind: faultproxy.Drip, N: 1}))
	p.Reset()
	_, err := registry.ReadBlob(t.Context(), through(t, p, "ml/big", nil), big.Descriptor(), size)
	if n, _, _ := p.Count(func(r faultproxy.Record) bool { return strings.Contains(r.Path, "/blobs/") }); diag.CodeOf(err) != diag.Registry || n > 4 {
		t.Fatalf("%d requests, %v", n, err)
	}
	p.Reset()
	_, err = registry.Copy(t.Context(), openLayout(t, t.TempDir()), through(t, p, "ml/big", nil), "1", registry.CopyOptions{})
	if n, _, _ := p.Count(func(r faultproxy.Record) bool { return strings.Contains(r.Path, string(big.Digest)) }); diag.CodeOf(err) != diag.Registry || n > 4 {
		t.Fatalf("%d requests, %v", n, err)
	}
}
