package registry_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/faultproxy"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
)

// pullOnce pulls ml/big:1 from host below dir, into a store or into a folder.
func pullOnce(t *testing.T, r *registry.Remote, kind, dir string, big artifact.Layer) (registry.Received, error) {
	if kind == "folder" {
		res, err := registry.Extract(t.Context(), r, []artifact.Layer{big}, dir, registry.ExtractOptions{})
		return res.Received, err
	}
	res, err := registry.Copy(t.Context(), openLayout(t, dir), r, "1", registry.CopyOptions{Tag: "1"})
	return res.Received, err
}

// TestPullChild is the process that the tests below kill.
func TestPullChild(t *testing.T) {
	order := strings.SplitN(os.Getenv("WAYBILL_TEST_PULL"), "|", 3)
	if len(order) != 3 {
		t.Skip("only run by other tests")
	}
	host, kind, dir := order[0], order[1], order[2]
	r := remote(t, host, "ml/big")
	m, _, err := registry.ReadModel(t.Context(), r, "1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pullOnce(t, r, kind, dir, m.ByRole(artifact.RoleSource)[0]); err != nil {
		t.Fatal(err)
	}
}

func child(t *testing.T, host, kind, dir string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, "-test.run=^TestPullChild$")
	c.Env = append(os.Environ(), "WAYBILL_TEST_PULL="+host+"|"+kind+"|"+dir)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() }) // when the test ended early
	return c
}

// until waits for a condition of another process.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("%s does not come", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func places(dir, kind string, big artifact.Layer) (final, partial string) {
	if kind == "folder" {
		return filepath.Join(dir, "source", "weights.bin"), filepath.Join(dir, "source", ".weights.bin."+big.Digest.Short()+".partial")
	}
	return filepath.Join(dir, "blobs", "sha256", big.Digest.Hex()), filepath.Join(dir, ".ingest", big.Digest.Hex()+".partial")
}

// A process that is killed at any point leaves nothing or everything under the final name, and the next one goes on from what the
// state file says: it fetches exactly what is missing.
func TestKilledPullGoesOn(t *testing.T) {
	const size, kills = 9<<20 + 4321, 5
	m, big := bigModel(t, size)
	p := faulty(t, nil)
	m.push(t, through(t, p, "ml/big", nil), "1")
	p.SetRate(16 << 20)
	rng := rand.New(rand.NewPCG(1, 2))
	for _, kind := range []string{"store", "folder"} {
		t.Run(kind, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "d")
			final, partial := places(dir, kind, big)
			for i := range kills {
				_, before := p.Bytes()
				at := before + rng.Int64N(size/8)
				c := child(t, p.Host(), kind, dir)
				gone := make(chan error, 1)
				go func() { gone <- c.Wait() }()
				until(t, "the transfer", func() bool {
					_, now := p.Bytes()
					return now >= at || len(gone) > 0
				})
				_ = c.Process.Kill() // it may have ended
				<-gone
				b, err := os.ReadFile(final)
				if err == nil && !bytes.Equal(b, m.layers[big.Digest]) || err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("kill %d: under the final name are %d bytes, %v", i, len(b), err)
				}
			}
			have := blocksDone(t, partial+".state")
			_, serr := os.Stat(final)
			res, err := pullOnce(t, remote(t, p.Host(), "ml/big"), kind, dir, big)
			if err != nil || res.Restarts != 0 {
				t.Fatalf("%+v %v", res, err)
			}
			t.Logf("%d of %d bytes were here after %d kills", have, size, kills)
			if serr != nil && (res.Resumed != have || res.Fetched < size-have || res.Fetched > size-have+1000) {
				t.Errorf("%d bytes were here, %d were taken up, %d fetched", have, res.Resumed, res.Fetched)
			}
			if b, err := os.ReadFile(final); err != nil || !bytes.Equal(b, m.layers[big.Digest]) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			if left, _ := filepath.Glob(partial + "*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// A process that waits for another one to fetch a blob takes over when that one is killed.
func TestWaitingPullTakesOver(t *testing.T) {
	const size = 9 << 20
	m, big := bigModel(t, size)
	p := faulty(t, nil)
	m.push(t, through(t, p, "ml/big", nil), "1")
	dir := filepath.Join(t.TempDir(), "d")
	final, partial := places(dir, "store", big)
	// The child gets a megabyte and then nothing.
	n := 0
	p.SetPlan(func(r *http.Request, _ int) faultproxy.Fault {
		if !faultproxy.Blobs(r) || !strings.Contains(r.URL.Path, string(big.Digest)) {
			return faultproxy.Fault{}
		}
		if n++; n > 4 {
			return faultproxy.Fault{}
		}
		return faultproxy.Fault{Kind: faultproxy.Stall, N: 1 << 20}
	})
	c := child(t, p.Host(), "store", dir)
	gone := make(chan error, 1)
	go func() { gone <- c.Wait() }()
	until(t, "the first megabyte", func() bool { return len(gone) > 0 || blocksDone(t, partial+".state") >= 1<<20 })
	var seen notices
	type outcome struct {
		res registry.Received
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		res, err := pullOnce(t, through(t, p, "ml/big", func(o *registry.RemoteOptions) { o.Notify = seen.add }), "store", dir, big)
		done <- outcome{res, err}
	}()
	until(t, "the second process", func() bool { return strings.Contains(seen.String(), "another process fetches it; waiting") })
	if _, err := os.Stat(final); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file under the final name: %v", err)
	}
	p.SetPlan(nil)
	_ = c.Process.Kill() // that is the point
	<-gone
	o := <-done
	if o.err != nil || o.res.Resumed < 1<<20 || o.res.Resumed+o.res.Fetched < size || o.res.Fetched > size-1<<20+1000 {
		t.Fatalf("%+v %v", o.res, o.err)
	}
	if b, err := os.ReadFile(final); err != nil || !bytes.Equal(b, m.layers[big.Digest]) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
}

// Ctrl-C keeps what came.
func TestInterruptedPull(t *testing.T) {
	const size = 9 << 20
	m, big := bigModel(t, size)
	p := faulty(t, nil)
	m.push(t, through(t, p, "ml/big", nil), "1")
	p.SetPlan(faultproxy.Always(func(r *http.Request) bool {
		return faultproxy.Blobs(r) && strings.Contains(r.URL.Path, string(big.Digest))
	},
		faultproxy.Fault{Kind: faultproxy.Stall, N: 1 << 20}))
	dst := openLayout(t, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan error, 1)
	go func() {
		_, err := registry.Copy(ctx, dst, through(t, p, "ml/big", nil), "1", registry.CopyOptions{Tag: "1"})
		failed <- err
	}()
	until(t, "the first megabyte", func() bool { return len(failed) > 0 || blocksDone(t, partialOf(dst, big.Digest)+".state") >= 1<<20 })
	cancel()
	err := <-failed
	if !errors.Is(err, context.Canceled) { // of this blob, or of a small one that waited for a connection
		t.Fatal(err)
	}
	if _, err := os.Stat(dst.Store().BlobPath(big.Digest)); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a file under the final name: %v", err)
	}
	p.SetPlan(nil)
	res, err := registry.Copy(t.Context(), dst, through(t, p, "ml/big", nil), "1", registry.CopyOptions{Tag: "1"})
	if err != nil || res.Resumed < 1<<20 {
		t.Fatalf("%+v %v", res, err)
	}
	m.check(t, dst, "1")
}
