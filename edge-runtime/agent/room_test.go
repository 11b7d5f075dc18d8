package agent

import (
	"errors"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// compiling is a runtime that says what it would write.
type compiling struct {
	*fakeRuntime
	size uint64
}

func (c *compiling) CompiledSize([]artifact.Layer) (string, uint64) {
	return stateDir + "/cache", c.size
}

// What is told when the disk is too small: how much it takes, how much there is, where, how much is missing, and what to run.
func TestRoomSaysWhatIsMissing(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m, func(c *Config) { c.Reserve = 2 << 20 })
	w.publish(w.change(w.model("1.0 good")))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	w.publish(w.change(w.model("2.0 good " + strings.Repeat("x", 5_000_000))))
	m.SetCapacity(m.Used() + 2<<20 + 1_300_000)
	before := w.reg.opens
	err := d.pollOnce()
	var e *diag.Error
	if !errors.As(err, &e) || !transient(err) {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{"the download needs 5.1 MB", "1.3 MB are free in " + stateDir + "/blobs/sha256 ", "3.8 MB are missing", "reserve of 2.1 MB: ", "df -h " + stateDir + "/blobs/sha256"} {
		if got := diag.Render(e); !strings.Contains(got, want) {
			t.Errorf("%q is not in\n%s", want, got)
		}
	}
	if n := w.reg.opens - before; n > 6 { // record, evidence, manifest: nothing large
		t.Errorf("%d downloads", n)
	}
	if d.channel().Intent != nil || len(d.channel().Quarantine) > 0 {
		t.Errorf("%+v", d.channel())
	}
}

// Compiled code counts: it is looked after again when the files are there, it is no defect of the model, and going back never
// waits for it. Without the check the reserve would be used up.
func TestRoomForCompiledCode(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	rt := &compiling{fakeRuntime: &fakeRuntime{}}
	w.runtime = rt
	d := w.mustBoot(m, func(c *Config) { c.Reserve = 1 << 20 })
	v1, v2 := w.model("1.0 good"), w.model("2.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	w.publish(w.change(v2))
	rt.size = 8_000_000
	m.SetCapacity(m.Used() + 1<<20 + 3_000_000)
	err := d.pollOnce()
	var e *diag.Error
	if !errors.As(err, &e) || !transient(err) || !strings.Contains(e.Error(), "its compiled code needs 8.0 MB") || !strings.Contains(e.Error(), "in "+stateDir+"/cache") {
		t.Fatalf("%v", err)
	}
	if d.server.current() != v1.Digest || len(d.channel().Quarantine) > 0 {
		t.Error("the model is blamed for the disk")
	}
	m.SetCapacity(0)
	if err := d.pollOnce(); err != nil || d.server.current() != v2.Digest {
		t.Fatalf("with room: %v", err)
	}
	m.SetCapacity(m.Used() + 10_000)
	if _, err := d.Rollback(t.Context(), "", ""); err != nil || d.server.current() != v1.Digest {
		t.Fatalf("going back waits for room: %v", err)
	}
}
