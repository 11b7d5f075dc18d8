package store_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

// TestMain lets the tests start this binary again as another process that writes into a store.
func TestMain(m *testing.M) {
	if dir := os.Getenv("STORE_TEST_WRITER"); dir != "" {
		if err := writer(dir, os.Getenv("STORE_TEST_NAME")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv("STORE_TEST_BUSY"); dir != "" {
		fmt.Fprintln(os.Stderr, busy(dir, os.Getenv("STORE_TEST_NAME")))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// writer puts manifests with tags of its own until stdin ends or 20 are done, and prints each tag after it returned.
func writer(dir, name string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, dir, store.Options{Create: true})
	if err != nil {
		return err
	}
	for i := range 20 {
		tag := fmt.Sprintf("%s:%d", name, i)
		d, err := put(ctx, s, tag, bytes.Repeat([]byte(tag), 4000))
		if err != nil {
			return err
		}
		fmt.Println(tag, d.Digest)
	}
	return nil
}

// put stores a manifest of one layer under a tag.
func put(ctx context.Context, s *store.Store, tag string, layer []byte) (artifact.Descriptor, error) {
	l, err := s.PutBytes(ctx, "application/octet-stream", layer)
	if err != nil {
		return l, err
	}
	c, err := s.PutBytes(ctx, artifact.MediaTypeEmpty, []byte("{}"))
	if err != nil {
		return c, err
	}
	b, err := json.Marshal(artifact.Manifest{SchemaVersion: 2, MediaType: artifact.MediaTypeManifest,
		ArtifactType: "application/x-test", Config: c, Layers: []artifact.Descriptor{l}})
	if err != nil {
		return l, err
	}
	return s.PutManifest(ctx, b, artifact.MediaTypeManifest, store.PutOptions{Ref: tag})
}

func open(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dir, store.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustClean(t *testing.T, s *store.Store) store.VerifyReport {
	t.Helper()
	rep, err := s.Verify(context.Background(), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Problems) != 0 {
		t.Fatalf("the store is damaged: %+v", rep.Problems)
	}
	return rep
}

func startWriter(t *testing.T, dir, name string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe)
	c.Env = append(os.Environ(), "STORE_TEST_WRITER="+dir, "STORE_TEST_NAME="+name)
	c.Stderr = os.Stderr
	return c
}

// Several processes and goroutines write into one new store at once; no tag is lost.
func TestManyWriters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "yet", "there")
	var wg sync.WaitGroup
	errs := make([]error, 8)
	for i := range 3 {
		c := startWriter(t, dir, fmt.Sprintf("p%d", i))
		wg.Go(func() { errs[i] = c.Run() })
	}
	for i := range 5 {
		wg.Go(func() { // each with a Store of its own, as if in another process
			s, err := store.Open(context.Background(), dir, store.Options{Create: true})
			if err != nil {
				errs[3+i] = err
				return
			}
			defer s.Close()
			for n := range 10 {
				tag := fmt.Sprintf("g%d:%d", i, n)
				if _, err := put(context.Background(), s, tag, []byte(tag)); err != nil {
					errs[3+i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	es, err := s.Entries(t.Context())
	if err != nil || len(es) != 3*20+5*10 {
		t.Fatalf("%d entries, want 110; %v", len(es), err)
	}
	mustClean(t, s)
}

// A writer that is killed at any moment leaves a store in which everything that it had reported is there and nothing
// is broken; prune removes the rest.
func TestKilledWriter(t *testing.T) {
	dir := t.TempDir()
	reported := map[string]artifact.Digest{}
	for round := range 6 {
		c := startWriter(t, dir, fmt.Sprintf("r%d", round))
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		sc := bufio.NewScanner(out)
		for n := rand.IntN(6); n >= 0 && sc.Scan(); n-- {
			tag, d, _ := strings.Cut(sc.Text(), " ")
			reported[tag] = artifact.Digest(d)
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for sc.Scan() { // reported before the kill arrived
			if tag, d, ok := strings.Cut(sc.Text(), " "); ok && len(d) == 71 {
				reported[tag] = artifact.Digest(d)
			}
		}
		_ = c.Wait()
		s := open(t, dir)
		mustClean(t, s)
		for tag, want := range reported {
			if d, err := s.Resolve(t.Context(), tag); err != nil || d.Digest != want {
				t.Fatalf("round %d: %s was reported and is gone: %v", round, tag, err)
			}
		}
		if _, err := put(t.Context(), s, "after:kill", []byte("still writable")); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	s := open(t, dir)
	if _, err := s.Prune(t.Context(), store.PruneOptions{}); err != nil {
		t.Fatal(err)
	}
	if es, err := os.ReadDir(filepath.Join(dir, ".ingest")); err != nil || len(es) != 0 {
		t.Fatalf("prune left %v, %v", es, err)
	}
	mustClean(t, s)
}

// noLock serves file systems in memory, which one goroutine uses.
func noLock(context.Context, string, bool) (func() error, error) {
	return func() error { return nil }, nil
}

// A power cut at any single operation leaves what was reported and no damage. With syncs that do nothing the same
// test must see losses, or it is blind.
func TestPowerCut(t *testing.T) {
	ctx := t.Context()
	lost := func(lazy bool) (losses, cuts int) {
		for at := 1; ; at++ {
			mem := fsx.NewMem()
			mem.IgnoreSyncs(lazy)
			f := fsx.NewFaulty(mem)
			f.Arm(at, fsx.Kill)
			reported := map[string]artifact.Digest{}
			func() {
				s, err := store.Open(ctx, "home/store", store.Options{FS: f, Lock: noLock, Create: true})
				if err != nil {
					return
				}
				for i := range 3 {
					tag := fmt.Sprintf("a:%d", i%2)
					d, err := put(ctx, s, tag, fmt.Appendf(nil, "layer %d", i))
					if err != nil {
						return
					}
					reported[tag] = d.Digest
				}
			}()
			if !f.Dead() {
				return losses, cuts
			}
			cuts++
			for _, percent := range []int{0, 50, 100} {
				after := mem.CrashClone(percent, rand.New(rand.NewPCG(uint64(at), uint64(percent))))
				s, err := store.Open(ctx, "home/store", store.Options{FS: after, Lock: noLock, Create: true})
				if err != nil {
					t.Logf("cut at %d (%s), %d%%: %v", at, f.Fired(), percent, err)
					losses++
					continue
				}
				bad := ""
				if rep, err := s.Verify(ctx, false, nil); err != nil {
					bad = err.Error()
				} else if len(rep.Problems) > 0 {
					bad = fmt.Sprint(rep.Problems)
				}
				for tag, want := range reported {
					// The put after it may have moved the tag before the cut.
					if d, err := s.Resolve(ctx, tag); err != nil {
						bad = err.Error()
					} else if d.Digest != want && len(reported) < 2 {
						bad = "tag at another digest"
					}
				}
				if bad == "" {
					if _, err := put(ctx, s, "new:1", []byte("goes on")); err != nil {
						bad = err.Error()
					}
				}
				if bad != "" {
					losses++
					if !lazy {
						t.Errorf("cut at %d (%s), %d%% of unsynced kept: %s", at, f.Fired(), percent, bad)
					}
				}
			}
		}
	}
	if n, cuts := lost(false); n != 0 || cuts < 30 {
		t.Fatalf("%d losses in %d cuts", n, cuts)
	}
	if n, _ := lost(true); n == 0 {
		t.Fatal("no loss without syncs: the test is blind")
	}
}

// An operation that fails (no space, I/O error) leaves the store as it was, and usable.
func TestFaults(t *testing.T) {
	ctx := t.Context()
	for _, kind := range []fsx.Fault{fsx.EIO, fsx.ENOSPC, fsx.ShortWrite} {
		for at := 1; ; at++ {
			mem := fsx.NewMem()
			f := fsx.NewFaulty(mem)
			s, err := store.Open(ctx, "store", store.Options{FS: f, Lock: noLock, Create: true})
			if err != nil {
				t.Fatal(err)
			}
			first, err := put(ctx, s, "a:1", []byte("one"))
			if err != nil {
				t.Fatal(err)
			}
			f.Arm(at, kind)
			_, err = put(ctx, s, "a:1", []byte("two"))
			fired := f.Fired()
			f.Arm(0, fsx.NoFault)
			if fired == "" {
				if err != nil {
					t.Fatal(err)
				}
				break
			}
			if err == nil {
				t.Errorf("%v at %d (%s): put reported success", kind, at, fired)
			}
			mustClean(t, s)
			// Only the very last step, the sync of the directory, fails after the change.
			if d, err := s.Resolve(ctx, "a:1"); err != nil || (d.Digest != first.Digest && !strings.HasPrefix(fired, "syncdir")) {
				t.Errorf("%v at %d (%s): tag at %s, %v", kind, at, fired, d.Digest, err)
			}
			if _, err := put(ctx, s, "a:2", []byte("three")); err != nil {
				t.Errorf("%v at %d (%s): not usable afterwards: %v", kind, at, fired, err)
			}
		}
	}
}

// A full disk is named, and nothing of what did not fit stays.
func TestFullDisk(t *testing.T) {
	ctx := t.Context()
	mem := fsx.NewMem()
	s, err := store.Open(ctx, "store", store.Options{FS: mem, Lock: noLock, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := put(ctx, s, "a:1", make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	used := mem.Used()
	mem.SetCapacity(used + 5000)
	_, err = put(ctx, s, "a:2", bytes.Repeat([]byte("x"), 9000))
	if msg := diag.Render(err); diag.CodeOf(err) != diag.Failure || !strings.Contains(msg, "hint: waybill store prune") {
		t.Fatalf("%s", msg)
	}
	s.Close()
	if mem.Used() != used {
		t.Errorf("%d bytes were left behind", mem.Used()-used)
	}
	if es, err := s.Entries(ctx); err != nil || len(es) != 1 {
		t.Errorf("%v %v", es, err)
	}
	if _, err := s.PutBytes(ctx, "x/y", []byte("unused")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	mem.SetCapacity(mem.Used()) // not one byte is left: prune must help all the same
	if rep, err := s.Prune(ctx, store.PruneOptions{}); err != nil || len(rep.Blobs) != 1 {
		t.Errorf("%+v %v", rep, err)
	}
	mustClean(t, s)
}

func TestAlteredBlob(t *testing.T) {
	ctx := t.Context()
	s := open(t, t.TempDir())
	d, err := put(ctx, s, "a:1", []byte("the layer"))
	if err != nil {
		t.Fatal(err)
	}
	layer := artifact.Descriptor{MediaType: "x/y", Digest: artifact.DigestOf([]byte("the layer")), Size: 9}
	if err := os.WriteFile(s.BlobPath(layer.Digest), []byte("thE layer"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := s.Blob(ctx, layer)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	r.Close()
	msg := diag.Render(err)
	if diag.CodeOf(err) != diag.Verification || !strings.Contains(msg, string(layer.Digest)) || !strings.Contains(msg, string(artifact.DigestOf(b))) {
		t.Fatalf("%s", msg)
	}
	// Without the check the altered bytes come through.
	raw, err := s.OpenRaw(ctx, layer.Digest)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(raw); err != nil || string(got) != "thE layer" {
		t.Fatalf("%q %v", got, err)
	}
	raw.Close()
	rep, err := s.Verify(ctx, true, nil)
	if err != nil || len(rep.Problems) != 1 || !rep.Problems[0].Repair || len(rep.Problems[0].Names) != 1 {
		t.Fatalf("%+v %v", rep, err)
	}
	if _, ok, _ := s.Has(layer.Digest); ok {
		t.Fatal("repair kept the altered blob")
	}
	if _, err := put(ctx, s, "a:1", []byte("the layer")); err != nil { // heals
		t.Fatal(err)
	}
	mustClean(t, s)

	if err := os.WriteFile(s.BlobPath(d.Digest), []byte(`{"schemaVersion":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Manifest(ctx, d.Digest); diag.CodeOf(err) != diag.Verification {
		t.Fatalf("altered manifest: %v", err)
	}
	// Listing referrers with a manifest that cannot be read is an error, not a shorter list.
	s2 := open(t, s.Dir())
	if refs, err := s2.Referrers(ctx, layer.Digest); err == nil {
		t.Fatalf("Referrers over an altered manifest: %v", refs)
	}
	if _, err := s2.Verify(ctx, true, nil); err != nil {
		t.Fatal(err)
	}
	if refs, err := s2.Referrers(ctx, layer.Digest); err != nil || len(refs) != 0 {
		t.Fatalf("after repair: %v %v", refs, err)
	}
}

func TestTagsRemovePrune(t *testing.T) {
	ctx := t.Context()
	s := open(t, t.TempDir())
	d1, err := put(ctx, s, "a:1", []byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(ctx, "a:latest", d1.Digest); err != nil {
		t.Fatal(err)
	}
	attach := func(subject artifact.Descriptor, n int) artifact.Descriptor {
		t.Helper()
		bundle := fmt.Appendf(nil, "bundle %d", n)
		if _, err := s.PutBytes(ctx, artifact.MediaTypeBundle, bundle); err != nil {
			t.Fatal(err)
		}
		b, err := artifact.BuildReferrer(subject, bundle, "https://example.com/p")
		if err != nil {
			t.Fatal(err)
		}
		d, err := s.PutManifest(ctx, b, artifact.MediaTypeManifest, store.PutOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	attach(attach(d1, 1), 2)
	d2, err := put(ctx, s, "a:latest", []byte("two")) // moves the tag
	if err != nil {
		t.Fatal(err)
	}
	var none artifact.Digest
	if err := s.Tag(ctx, "x:1", artifact.DigestOf(nil)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("tag of nothing: %v", err)
	}
	b, _, _ := s.Manifest(ctx, d2.Digest)
	if _, err := s.PutManifest(ctx, b, artifact.MediaTypeManifest, store.PutOptions{Ref: "a:1", Expect: &none}); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("%v", err)
	}
	if _, err := s.Prune(ctx, store.PruneOptions{Untagged: true}); err != nil {
		t.Fatal(err)
	}
	u, err := s.Stat(ctx)
	if err != nil || u.Tags != 2 || u.Manifests != 4 || u.Unused != 0 || u.Free == 0 {
		t.Fatalf("%+v %v", u, err)
	}
	if d, dropped, err := s.Untag(ctx, "a:1"); err != nil || !dropped || d != d1.Digest {
		t.Fatalf("%s %v %v", d, dropped, err)
	}
	if _, err := s.Resolve(ctx, string(d1.Digest)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("dropped manifest resolves: %v", err)
	}
	if _, _, err := s.Untag(ctx, "a:1"); diag.CodeOf(err) != diag.NotFound {
		t.Fatalf("%v", err)
	}
	s.Close() // what this process put is its no more
	dry, err := s.Prune(ctx, store.PruneOptions{DryRun: true})
	if err != nil || len(dry.Blobs) != 6 { // manifest, layer, 2 bundles with their manifests; the empty config is in use
		t.Fatalf("%+v %v", dry, err)
	}
	wet, err := s.Prune(ctx, store.PruneOptions{})
	if err != nil || len(wet.Blobs) != len(dry.Blobs) || wet.Bytes != dry.Bytes || wet.Bytes == 0 {
		t.Fatalf("%+v %v", wet, err)
	}
	rep := mustClean(t, s)
	if rep.Manifests != 1 || rep.Blobs != 3 {
		t.Fatalf("%+v", rep)
	}
}

// Prune does not take away what a running writer counts on: what it wrote, what it found there, and manifests without a
// tag yet. When the writer is gone, all of it goes.
func TestPruneBesideWriters(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	p := open(t, dir)
	old, err := p.PutBytes(ctx, "x/y", []byte("a layer from before"))
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	w := open(t, dir)
	if _, err := w.PutBytes(ctx, "x/y", []byte("a layer whose manifest comes later")); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := w.Keep(ctx, old.Digest); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, err := put(ctx, w, "", []byte("not tagged yet")); err != nil {
		t.Fatal(err)
	}
	half, err := w.NewWriter(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := half.Write([]byte("half a blob")); err != nil {
		t.Fatal(err)
	}
	rep, err := p.Prune(ctx, store.PruneOptions{Untagged: true})
	if err != nil || len(rep.Blobs) != 0 || rep.Temp != 0 || len(rep.Manifests) != 0 || len(rep.InUse) != 2 {
		t.Fatalf("%+v %v", rep, err)
	}
	if _, _, err := half.Commit(""); err != nil {
		t.Fatal(err)
	}
	w.Close()
	if rep, err = p.Prune(ctx, store.PruneOptions{Untagged: true}); err != nil || len(rep.Blobs) != 6 || len(rep.Manifests) != 1 || len(rep.InUse) != 0 {
		t.Fatalf("%+v %v", rep, err)
	}
	if es, err := os.ReadDir(filepath.Join(dir, ".leases")); err != nil || len(es) != 0 {
		t.Fatalf("%v %v", es, err)
	}
	if _, ok, err := w.Keep(ctx, old.Digest); ok || err != nil {
		t.Fatal(ok, err)
	}
}

// Downloads that broke off stay for as long as is said.
func TestPrunePartials(t *testing.T) {
	ctx := t.Context()
	s := open(t, t.TempDir())
	for i, hours := range []int{1, 30} {
		p := filepath.Join(s.Dir(), ".ingest", artifact.DigestOf([]byte{byte(i)}).Hex()+".partial")
		if err := os.WriteFile(p, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		when := time.Now().Add(-time.Duration(hours) * time.Hour)
		if err := os.Chtimes(p, when, when); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CleanTemp(ctx); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		age time.Duration
		n   int
	}{{48 * time.Hour, 0}, {24 * time.Hour, 1}, {0, 1}} {
		rep, err := s.Prune(ctx, store.PruneOptions{Partials: want.age})
		if err != nil || rep.Partials != want.n || rep.Bytes != int64(4*want.n) {
			t.Fatalf("%s: %+v %v", want.age, rep, err)
		}
	}
}

func TestOpenWhatIsNoLayout(t *testing.T) {
	dir := t.TempDir()
	if _, err := store.Open(t.Context(), dir, store.Options{}); diag.CodeOf(err) != diag.NotFound {
		t.Fatalf("%v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"9"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(t.Context(), dir, store.Options{Create: true}); err == nil {
		t.Fatal("opened a layout of another version")
	}
}

func TestParseDocRefusesTwofoldDocuments(t *testing.T) {
	b := `{"schemaVersion":2,"mediaType":"` + artifact.MediaTypeManifest + `","config":{"mediaType":"a/b","digest":"` +
		string(artifact.EmptyDigest) + `","size":2},"layers":[]%s}`
	if _, err := store.ParseDoc(fmt.Appendf(nil, b, ""), ""); err != nil {
		t.Fatal(err)
	}
	for _, extra := range []string{`,"manifests":[]`, `,"LAYERS":[]`, `} {`} {
		if _, err := store.ParseDoc(fmt.Appendf(nil, b, extra), ""); err == nil {
			t.Errorf("accepted a manifest with %s", extra)
		}
	}
	if _, err := store.ParseDoc(fmt.Appendf(nil, b, ""), artifact.MediaTypeIndex); err == nil {
		t.Error("accepted a manifest that was sent as an index")
	}
}

func FuzzParseDoc(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"`+artifact.MediaTypeManifest+`","config":{"mediaType":"a/b","digest":"`+string(artifact.EmptyDigest)+`","size":2},"layers":[]}`), "")
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"`+artifact.MediaTypeIndex+`","manifests":[]}`), "")
	f.Add([]byte(`[[[[`), artifact.MediaTypeIndex)
	f.Fuzz(func(t *testing.T, b []byte, mt string) {
		doc, err := store.ParseDoc(b, mt)
		if err != nil {
			return
		}
		if doc.Descriptor.Digest != artifact.DigestOf(b) || doc.Descriptor.Size != int64(len(b)) {
			t.Fatalf("%+v", doc.Descriptor)
		}
		for _, d := range append(doc.Blobs, doc.Children...) {
			if _, err := artifact.ParseDigest(string(d.Digest)); err != nil {
				t.Fatal(err) // it becomes a file name
			}
		}
	})
}
