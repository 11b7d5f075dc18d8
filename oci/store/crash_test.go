package store_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

// scene is something that happens to a store which has the tags a:1 and a:2.
type scene struct {
	name string
	act  func(ctx context.Context, s *store.Store, fsys fsx.FS) error
	// after tells what is wrong with the store when act was done, or broke off somewhere.
	after func(ctx context.Context, s *store.Store, done bool) error
}

const sourcePath = "/src/model.bin"

func scenes() []scene {
	ctx := context.Background()
	content := noise(3000)
	is := func(s *store.Store, tag string, layers ...string) error {
		d, err := s.Resolve(ctx, tag)
		if err != nil {
			return err
		}
		b, _, err := s.Manifest(ctx, d.Digest)
		if err != nil {
			return err
		}
		m, err := artifact.ParseManifest(b)
		if err != nil {
			return err
		}
		for _, l := range layers {
			if m.Layers[0].Digest == artifact.DigestOf([]byte(l)) {
				return s.Check(ctx, m.Layers[0])
			}
		}
		return fmt.Errorf("%s has the layer %s", tag, m.Layers[0].Digest)
	}
	imported := func(how store.How) scene {
		return scene{"import by " + string(how), func(ctx context.Context, s *store.Store, fsys fsx.FS) error {
			f, err := fsys.Open(sourcePath)
			if err != nil {
				return err
			}
			defer f.Close()
			in, err := s.Import(ctx, f, sourcePath, store.ImportOptions{How: how})
			if err != nil {
				return err
			}
			_, err = putLayer(ctx, s, "a:3", artifact.Descriptor{MediaType: "x/y", Digest: in.Digest, Size: in.Size})
			return err
		}, func(_ context.Context, s *store.Store, done bool) error {
			err := is(s, "a:3", string(content))
			if errors.Is(err, fs.ErrNotExist) && !done {
				err = nil
			}
			return errors.Join(err, is(s, "a:1", "one"), is(s, "a:2", "two"))
		}}
	}
	return []scene{
		{"put under a new tag", func(ctx context.Context, s *store.Store, _ fsx.FS) error {
			_, err := put(ctx, s, "a:3", []byte("three"))
			return err
		}, func(_ context.Context, s *store.Store, done bool) error {
			err := is(s, "a:3", "three")
			if errors.Is(err, fs.ErrNotExist) && !done {
				err = nil
			}
			return errors.Join(err, is(s, "a:1", "one"), is(s, "a:2", "two"))
		}},
		{"put under a tag that moves", func(ctx context.Context, s *store.Store, _ fsx.FS) error {
			_, err := put(ctx, s, "a:1", []byte("three"))
			return err
		}, func(_ context.Context, s *store.Store, done bool) error {
			now := []string{"three"}
			if !done {
				now = append(now, "one")
			}
			return errors.Join(is(s, "a:1", now...), is(s, "a:2", "two"))
		}},
		{"tag", func(ctx context.Context, s *store.Store, _ fsx.FS) error {
			d, err := s.Resolve(ctx, "a:2")
			if err != nil {
				return err
			}
			return s.Tag(ctx, "a:1", d.Digest)
		}, func(_ context.Context, s *store.Store, done bool) error {
			now := []string{"two"}
			if !done {
				now = append(now, "one")
			}
			return errors.Join(is(s, "a:1", now...), is(s, "a:2", "two"))
		}},
		{"remove and prune", func(ctx context.Context, s *store.Store, _ fsx.FS) error {
			if _, _, err := s.Untag(ctx, "a:1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			_, err := s.Prune(ctx, store.PruneOptions{Untagged: true})
			return err
		}, func(_ context.Context, s *store.Store, done bool) error {
			err := is(s, "a:1", "one")
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			} else if err == nil && done {
				err = errors.New("a:1 is still there")
			}
			return errors.Join(err, is(s, "a:2", "two"))
		}},
		imported(store.HowCopy), imported(store.HowReflink), imported(store.HowReference),
		{"refer and own", func(ctx context.Context, s *store.Store, fsys fsx.FS) error {
			if err := imported(store.HowReference).act(ctx, s, fsys); err != nil {
				return err
			}
			_, err := s.Own(ctx)
			return err
		}, imported(store.HowReference).after},
	}
}

// putLayer is put for a layer that is there.
func putLayer(ctx context.Context, s *store.Store, tag string, l artifact.Descriptor) (artifact.Descriptor, error) {
	c, err := s.PutBytes(ctx, artifact.MediaTypeEmpty, []byte("{}"))
	if err != nil {
		return c, err
	}
	b, err := artifact.Canonical(artifact.Manifest{SchemaVersion: 2, MediaType: artifact.MediaTypeManifest,
		ArtifactType: "application/x-test", Config: c, Layers: []artifact.Descriptor{l}})
	if err != nil {
		return l, err
	}
	return s.PutManifest(ctx, b, artifact.MediaTypeManifest, store.PutOptions{Ref: tag})
}

// stage makes a file system with a store of two tags, an orphan and a source file, all durable.
func stage(t *testing.T) *fsx.Mem {
	t.Helper()
	ctx := t.Context()
	mem := fsx.NewMem()
	s, err := store.Open(ctx, "/home/store", store.Options{FS: mem, Lock: noLock, Create: true, References: true})
	if err != nil {
		t.Fatal(err)
	}
	for tag, l := range map[string]string{"a:1": "one", "a:2": "two"} {
		if _, err := put(ctx, s, tag, []byte(l)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.PutBytes(ctx, "x/y", []byte("needed by nobody")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := mem.MkdirAll("/src", 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := mem.Create(sourcePath, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(noise(3000))
	if err := errors.Join(err, f.Sync(), f.Close(), mem.SyncDir("/src"), mem.SyncDir("/"), mem.SyncDir("/home")); err != nil {
		t.Fatal(err)
	}
	return mem
}

func reopen(fsys fsx.FS) (*store.Store, error) {
	return store.Open(context.Background(), "/home/store", store.Options{FS: fsys, Lock: noLock, Create: true, References: true})
}

// sound says what is wrong with a store after a scene, then prunes it and plays the scene again, to its end.
func sound(ctx context.Context, sc scene, mem *fsx.Mem, done bool) error {
	s, err := reopen(mem)
	if err != nil {
		return err
	}
	look := func(when string, done bool) error {
		rep, err := s.Verify(ctx, false, nil)
		if err == nil && len(rep.Problems) > 0 {
			err = fmt.Errorf("damage: %+v", rep.Problems)
		}
		if err == nil {
			err = sc.after(ctx, s, done)
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", when, err)
		}
		return err
	}
	if err := look("afterwards", done); err != nil {
		return err
	}
	if _, err := s.Prune(ctx, store.PruneOptions{}); err != nil {
		return fmt.Errorf("prune: %w", err)
	}
	rep, err := s.Prune(ctx, store.PruneOptions{})
	if err != nil || rep.Bytes != 0 || rep.Temp != 0 || rep.References != 0 {
		return fmt.Errorf("prune left something: %+v, %w", rep, err)
	}
	for _, dir := range []string{".ingest", ".leases"} {
		if es, err := mem.ReadDir("/home/store/" + dir); err == nil && len(es) > 0 {
			return fmt.Errorf("prune left %s in %s", es[0].Name(), dir)
		}
	}
	if err := look("after prune", done); err != nil {
		return err
	}
	if err := sc.act(ctx, s, mem); err != nil {
		return fmt.Errorf("again: %w", err)
	}
	return look("the second time", true)
}

// A crash before or after any single operation, with none, half or all of what was not synced, leaves the old state or
// the new one, no damage, and nothing that the next prune does not remove.
func TestCrashAnywhere(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the paths of the file system in memory are not absolute on Windows")
	}
	ctx := t.Context()
	base := stage(t)
	for _, sc := range scenes() {
		play := func(lazy bool) (bad, cuts int) {
			for at := 1; ; at++ {
				for _, kind := range []fsx.Fault{fsx.Kill, fsx.KillAfter} {
					mem := base.CrashClone(100, nil)
					mem.IgnoreSyncs(lazy)
					f := fsx.NewFaulty(mem)
					s, err := reopen(f)
					if err != nil {
						t.Fatal(err)
					}
					f.Arm(at, kind)
					err = sc.act(ctx, s, f)
					if !f.Dead() {
						if err != nil {
							t.Fatalf("%s: %v", sc.name, err)
						}
						// Done and reported: now the power goes.
						for _, percent := range []int{0, 50, 100} {
							if err := sound(ctx, sc, mem.CrashClone(percent, rand.New(rand.NewPCG(1, uint64(percent)))), true); err != nil {
								bad++
								if !lazy {
									t.Errorf("%s, reported, %d%% of unsynced kept: %v", sc.name, percent, err)
								}
							}
						}
						return bad, cuts
					}
					cuts++
					for _, percent := range []int{0, 50, 100} {
						after := mem.CrashClone(percent, rand.New(rand.NewPCG(uint64(at), uint64(percent))))
						if err := sound(ctx, sc, after, false); err != nil {
							bad++
							if lazy { // as it must be
								return bad, cuts
							}
							t.Errorf("%s, %v %s, %d%% of unsynced kept: %v", sc.name, kind, f.Fired(), percent, err)
						}
					}
				}
			}
		}
		bad, cuts := play(false)
		if bad > 0 || cuts < 8 {
			t.Errorf("%s: %d of %d cuts are bad", sc.name, bad, cuts)
		}
		if bad, _ := play(true); bad == 0 {
			t.Errorf("%s: no loss without syncs: the test is blind", sc.name)
		}
	}
}

// An operation that fails, for want of room or otherwise, fails the whole with an error; the store is as it was, or, when
// only the last steps failed, as it was to be.
func TestFaultAnywhere(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the paths of the file system in memory are not absolute on Windows")
	}
	ctx := t.Context()
	base := stage(t)
	for _, sc := range scenes() {
		for _, kind := range []fsx.Fault{fsx.ENOSPC, fsx.EIO, fsx.ShortWrite} {
			for at := 1; ; at++ {
				mem := base.CrashClone(100, nil)
				f := fsx.NewFaulty(mem)
				s, err := reopen(f)
				if err != nil {
					t.Fatal(err)
				}
				f.Arm(at, kind)
				err = sc.act(ctx, s, f)
				fired := f.Fired()
				f.Arm(0, fsx.NoFault)
				_ = s.Close()
				if fired == "" {
					break
				}
				if serr := sound(ctx, sc, mem, err == nil); serr != nil {
					t.Errorf("%s, %v at %s (act: %v): %v", sc.name, kind, fired, err, serr)
				}
			}
		}
	}
}
