package agent

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
)

// endless is a carrier whose answer for one digest never ends.
type endless struct {
	*registry
	victim artifact.Digest
	given  int64 // bytes handed over for it
	most   int64 // after which it ends after all; 0: never
}

func (e *endless) Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := e.registry.Open(ctx, d, offset)
	if err != nil || d.Digest != e.victim {
		return r, err
	}
	rest := io.Reader(zeros{})
	if e.most > 0 {
		rest = io.LimitReader(rest, e.most)
	}
	return io.NopCloser(io.TeeReader(io.MultiReader(r, rest), counter{&e.given})), nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

type counter struct{ n *int64 }

func (c counter) Write(b []byte) (int, error) { *c.n += int64(len(b)); return len(b), nil }

// Whatever a device fetches, an answer that never ends is cut at the size that is signed or fixed, before it is hashed.
func TestEndlessData(t *testing.T) {
	w := newWorld(t)
	target := w.model("1.0 good")
	head := w.publish(w.change(target))
	for name, c := range map[string]struct {
		victim artifact.Digest
		most   int64
	}{
		"the record's manifest": {w.reg.tags[channel.Tag("prod")], artifact.MaxManifest},
		"the record":            {head.Bundle, maxRecordBundle},
		"evidence":              {head.Record.Evidence[1].Digest, head.Record.Evidence[1].Size},
		"the manifest":          {target.Digest, target.Size},
		"a layer":               {artifact.DigestOf([]byte("1.0 good")), 8},
	} {
		t.Run(name, func(t *testing.T) {
			e := &endless{registry: w.reg, victim: c.victim}
			m := newDeviceFS(t)
			d := w.mustBoot(m, func(cfg *Config) { cfg.Channels[0].Carrier = e })
			_ = d.pollOnce() // a size that is signed cuts the answer to what it should be, a limit refuses it
			if e.given == 0 || e.given > c.most+64<<10 {
				t.Errorf("%d bytes were read, at most %d are needed", e.given, c.most)
			}
			if free := biggest(t, m); free > c.most+64<<10 && free > 1<<20 {
				t.Errorf("a file of %d bytes was written", free)
			}
			// Nothing else would stop it.
			r, err := e.Open(t.Context(), artifact.Descriptor{Digest: c.victim}, 0)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.CopyN(io.Discard, r, c.most+1<<20); err != nil || n != c.most+1<<20 {
				t.Errorf("the answer ended after %d bytes: %v", n, err)
			}
		})
	}
}

// biggest is the size of the largest file below the blobs and downloads of a device.
func biggest(t *testing.T, m *fsx.Mem) int64 {
	t.Helper()
	var most int64
	for _, dir := range []string{"blobs/sha256", "tmp"} {
		es, err := m.ReadDir(stateDir + "/" + dir)
		if err != nil {
			continue
		}
		for _, e := range es {
			if info, err := e.Info(); err == nil {
				most = max(most, info.Size())
			}
		}
	}
	return most
}

// A file that was altered on the device after it was verified is not loaded: not at a start, not by a rollback. The bytes that
// a loader without the check would get are the altered ones.
func TestPlantedLayer(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	v1, v2 := w.model("1.0 good"), w.model("2.0 good")
	for _, v := range []channel.Target{v1, v2} {
		w.publish(w.change(v))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
	}
	plant := func(module string) {
		t.Helper()
		path := d.blobs.Path(artifact.DigestOf([]byte(module)))
		if err := m.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := fsx.WriteFileAtomic(m, path, []byte(strings.Replace(module, "good", "evil", 1)), 0o400); err != nil {
			t.Fatal(err)
		}
		if got, err := fsx.ReadFile(m, path, 100); err != nil || !strings.Contains(string(got), "evil") {
			t.Fatalf("without a check %q would be loaded, %v", got, err)
		}
	}
	plant("1.0 good")
	if _, err := d.Rollback(t.Context(), "prod", ""); err == nil || d.server.current() != v2.Digest {
		t.Fatalf("rollback to an altered artifact: %v", err)
	}
	plant("2.0 good")
	again, err := w.boot(m, w.reg)
	if err == nil || again.server.current() != "" {
		t.Fatalf("altered artifacts serve: %v", err)
	}
	for _, text := range []string{"1.0", "2.0"} {
		if strings.Contains(err.Error(), text) && !strings.Contains(err.Error(), "digest") {
			t.Errorf("start: %v", err)
		}
	}
}
