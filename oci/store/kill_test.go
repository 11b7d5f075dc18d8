package store_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

// busy works on a store until it is killed: it puts, imports, retags, removes and prunes, and says on stdout what it is about
// to undo and what is done.
func busy(dir, name string) error {
	ctx := context.Background()
	r := rand.New(rand.NewPCG(uint64(os.Getpid()), 1))
	src := filepath.Join(filepath.Dir(dir), "source-"+name)
	for n := 0; ; n++ {
		s, err := store.Open(ctx, dir, store.Options{Create: true, References: true})
		if err != nil {
			return err
		}
		tag := fmt.Sprintf("%s:%d", name, n)
		content := bytes.Repeat(fmt.Appendf(nil, "%s %d ", tag, r.Uint64()), 2000+r.IntN(20000))
		var d artifact.Descriptor
		if how := r.IntN(3); how == 0 {
			d, err = put(ctx, s, tag, content)
		} else {
			d, err = putFile(ctx, s, tag, fmt.Sprintf("%s-%d", src, n), content, []store.How{"", store.HowAuto, store.HowReference}[how])
		}
		if err != nil {
			return fmt.Errorf("put %s: %w", tag, err)
		}
		fmt.Println("has", tag, d.Digest)
		switch r.IntN(6) {
		case 0:
			if err := s.Tag(ctx, tag+"-too", d.Digest); err != nil {
				return fmt.Errorf("tag %s: %w", tag, err)
			}
			fmt.Println("has", tag+"-too", d.Digest)
		case 1:
			fmt.Println("undo", tag, d.Digest)
			if _, _, err := s.Untag(ctx, tag); err != nil {
				return fmt.Errorf("untag %s: %w", tag, err)
			}
		case 2:
			if _, err := s.Prune(ctx, store.PruneOptions{Untagged: r.IntN(2) == 0}); err != nil {
				return fmt.Errorf("prune: %w", err)
			}
		case 3:
			if _, err := s.Own(ctx); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("own: %w", err)
			}
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
}

// putFile imports a file, which is written first, and puts a manifest for it.
func putFile(ctx context.Context, s *store.Store, tag, path string, content []byte, how store.How) (artifact.Descriptor, error) {
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return artifact.Descriptor{}, err
	}
	f, err := os.Open(path)
	if err != nil {
		return artifact.Descriptor{}, err
	}
	defer f.Close()
	in, err := s.Import(ctx, f, path, store.ImportOptions{How: how})
	if err != nil {
		return artifact.Descriptor{}, err
	}
	return putLayer(ctx, s, tag, artifact.Descriptor{MediaType: "application/octet-stream", Digest: in.Digest, Size: in.Size})
}

// 200 kills at random moments of processes that write into one store: nothing that was reported is lost, nothing is
// damaged, and prune removes what they left. A plain run kills fewer.
func TestKilledAtRandom(t *testing.T) {
	kills := 40
	if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
		kills = 200
	}
	dir := filepath.Join(t.TempDir(), "store")
	const writers = 4
	var mu sync.Mutex
	has := map[string]artifact.Digest{}
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 2))
			for k := range kills / writers {
				if errs[w] = killOne(t, dir, fmt.Sprintf("w%d-%d", w, k), r, &mu, has); errs[w] != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if len(has) < kills/4 {
		t.Errorf("only %d tags were reported before %d kills: they came too early to mean much", len(has), kills)
	}
	s := openReferring(t, dir)
	look := func() {
		t.Helper()
		mustClean(t, s)
		for tag, want := range has {
			if d, err := s.Resolve(t.Context(), tag); err != nil || d.Digest != want {
				t.Errorf("%s was reported at %s: %s, %v", tag, want.Short(), d.Digest, err)
			}
		}
	}
	look()
	rep, err := s.Prune(t.Context(), store.PruneOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.InUse) > 0 {
		t.Errorf("the dead still hold %v", rep.InUse)
	}
	t.Logf("%d kills: %d tags stand; %d temporary files and %d blobs were left and went", kills, len(has), rep.Temp, len(rep.Blobs))
	look()
	for _, sub := range []string{".ingest", ".leases"} {
		if es, err := os.ReadDir(filepath.Join(dir, sub)); err != nil || len(es) != 0 {
			t.Errorf("prune left %v, %v", es, err)
		}
	}
}

// killOne starts one process and kills it some time after it had begun to work.
func killOne(t *testing.T, dir, name string, r *rand.Rand, mu *sync.Mutex, has map[string]artifact.Digest) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	c := exec.CommandContext(t.Context(), exe)
	c.Env = append(os.Environ(), "STORE_TEST_BUSY="+dir, "STORE_TEST_NAME="+name)
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(out)
	first := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		n := 0
		for lines.Scan() {
			verb, rest, _ := strings.Cut(lines.Text(), " ")
			tag, digest, _ := strings.Cut(rest, " ")
			if len(digest) != 71 { // cut off by the kill: it was not reported
				continue
			}
			mu.Lock()
			if verb == "has" {
				has[tag] = artifact.Digest(digest)
			} else {
				delete(has, tag)
			}
			mu.Unlock()
			if n++; n == 1 {
				close(first)
			}
		}
		if n == 0 {
			close(first)
		}
	}()
	if r.IntN(4) > 0 { // else while it is at its first work, or starting
		<-first
	}
	// The moment of the kill is what is random here; nothing waits for this time to have been enough.
	time.Sleep(time.Duration(r.IntN(30)) * time.Millisecond)
	_ = c.Process.Kill()
	<-done
	if err := c.Wait(); said.Len() > 0 {
		return fmt.Errorf("%s: %w: %s", name, err, said.String())
	}
	return nil
}
