package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// halfway is a carrier that breaks off one content in the middle while broken is set, and notes where it was asked for.
type halfway struct {
	*registry
	of     artifact.Digest
	broken bool
	from   []int64
}

func (h *halfway) Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := h.registry.Open(ctx, d, offset)
	if err != nil || d.Digest != h.of {
		return r, err
	}
	h.from = append(h.from, offset)
	if !h.broken {
		return r, nil
	}
	b, err := io.ReadAll(r)
	return io.NopCloser(io.MultiReader(bytes.NewReader(b[:len(b)/2]), broken{})), err
}

// halves is a device of two channels that both run 1.0; what came of 2.0 of the first one is half of it.
func halves(t *testing.T) (base *world, ls []*line, m *fsx.Mem, boot func() *device, h *halfway) {
	t.Helper()
	base, ls, edit := lines(t, 2)
	m = newDeviceFS(t)
	d := base.mustBoot(m, edit)
	for _, l := range ls {
		l.publish("1.0 good " + l.name)
		if err := d.look(l.channel); err != nil {
			t.Fatal(err)
		}
	}
	text := "2.0 good m1 " + strings.Repeat("w", 100_000)
	h = &halfway{registry: ls[0].reg, of: artifact.DigestOf([]byte(text)), broken: true}
	ls[0].publish(text)
	boot = func() *device {
		return base.mustBoot(m, edit, func(c *Config) { c.Channels[0].Carrier, c.Reserve = h, 1 })
	}
	return base, ls, m, boot, h
}

func halfOf(m *fsx.Mem, h *halfway) int64 {
	info, err := m.Stat(stateDir + "/tmp/" + h.of.Hex())
	if err != nil {
		return 0
	}
	return info.Size()
}

// The second channel updates, and sweeps, while the download of the first one is broken off: also after a restart what came goes on
// where it stopped.
func TestSweepLeavesBrokenDownloads(t *testing.T) {
	for _, restart := range []bool{false, true} {
		base, ls, m, boot, h := halves(t)
		d := boot()
		if err := d.look("c1"); err == nil || IsRefused(err) || !transient(err) {
			t.Fatalf("a download that broke off: %v", err)
		}
		half := halfOf(m, h)
		if half == 0 {
			t.Fatal("nothing came: the test proves nothing")
		}
		if restart {
			d = boot()
		}
		for _, v := range []string{"2.0", "3.0", "4.0", "5.0", "6.0", "7.0", "8.0"} {
			ls[1].publish(v + " good m2")
			if err := d.look("c2"); err != nil {
				t.Fatal(err)
			}
		}
		if got := halfOf(m, h); got != half {
			t.Fatalf("restart %v: %d of %d bytes are left after the sweep of another channel", restart, got, half)
		}
		h.broken, h.from = false, nil
		if err := d.look("c1"); err != nil || len(h.from) != 1 || h.from[0] != half {
			t.Errorf("restart %v: %v, asked for from %v, want %d", restart, err, h.from, half)
		}
		if len(d.idle) != 0 || len(d.claims) != 0 {
			t.Errorf("claims are left: %v %v", d.idle, d.claims)
		}
		verifyJournal(t, base, m, d)
	}
}

// Without the claim the sweep takes it.
func TestSweepWithoutIdleClaims(t *testing.T) {
	_, ls, m, boot, h := halves(t)
	d := boot()
	_ = d.look("c1")
	clear(d.idle)
	ls[1].publish("2.0 good m2")
	if err := d.look("c2"); err != nil || halfOf(m, h) != 0 {
		t.Errorf("%v, %d bytes are left: the test above proves nothing", err, halfOf(m, h))
	}
}

// What nobody goes on with does not stay: when the channel names another target, or room is short for another channel.
func TestBrokenDownloadsGiveWay(t *testing.T) {
	t.Run("another target", func(t *testing.T) {
		_, ls, m, boot, h := halves(t)
		d := boot()
		_ = d.look("c1")
		ls[0].publish("3.0 good m1")
		if err := d.look("c1"); err != nil || halfOf(m, h) != 0 {
			t.Errorf("%v, %d bytes are left", err, halfOf(m, h))
		}
	})
	t.Run("another target, before anything is fetched", func(t *testing.T) {
		_, ls, m, boot, h := halves(t)
		d := boot()
		_ = d.look("c1")
		ls[0].publish("1.0 good m1") // what runs: nothing is fetched
		ls[1].publish("2.0 good m2")
		if err := errors.Join(d.look("c1"), d.look("c2")); err != nil || halfOf(m, h) != 0 {
			t.Errorf("%v, %d bytes are left", err, halfOf(m, h))
		}
	})
	t.Run("a full disk", func(t *testing.T) {
		_, ls, m, boot, h := halves(t)
		d := boot()
		_ = d.look("c1")
		m.SetCapacity(m.Used() + 60_000)
		v2 := ls[1].publish("2.0 good m2 " + strings.Repeat("x", 80_000))
		if err := d.look("c2"); err != nil || d.server.serving("m2") != v2.Digest || halfOf(m, h) != 0 {
			t.Errorf("%v, %d bytes are left", err, halfOf(m, h))
		}
	})
}
