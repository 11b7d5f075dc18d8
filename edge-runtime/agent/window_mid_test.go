package agent

import (
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/schedule"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
)

// trickle is a carrier on a thin line: each read of a large content brings at most so many bytes and takes a while on the
// device's clock.
type trickle struct {
	*registry
	clock *fakeClock
	each  time.Duration
	bytes int64   // of large content that came
	from  []int64 // where large content was asked for
}

const trickleRead = 10_000

func (s *trickle) Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := s.registry.Open(ctx, d, offset)
	if err != nil || d.Size < 10*trickleRead {
		return r, err
	}
	s.from = append(s.from, offset)
	return trickling{r, s}, nil
}

type trickling struct {
	io.ReadCloser
	s *trickle
}

func (r trickling) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p[:min(len(p), trickleRead)])
	r.s.clock.advance(r.s.each)
	r.s.bytes += int64(n)
	return n, err
}

// thin is a device that runs 1.0 and follows a channel with a large 2.0 over a thin line, on a Monday at 02:00.
func thin(t *testing.T, windows []string, zone *time.Location, each time.Duration, edit ...func(*Channel)) (d *device, s *trickle, v1, v2 channel.Target, size int64) {
	t.Helper()
	ws, err := schedule.ParseWindows(windows, zone)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	s = &trickle{registry: w.reg, each: each}
	d = w.mustBoot(newDeviceFS(t), func(c *Config) { c.Channels[0].Carrier = s })
	s.clock = d.clock
	text := "2.0 good " + strings.Repeat("w", 100*trickleRead)
	v1, v2 = w.model("1.0 good"), w.model(text)
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	c := &d.followers[0].cfg
	c.Windows = ws
	for _, e := range edit {
		e(c)
	}
	w.publish(w.change(v2))
	d.clock.mu.Lock()
	d.clock.now = time.Date(2026, 11, 2, 2, 0, 0, 0, time.UTC)
	d.clock.mu.Unlock()
	return d, s, v1, v2, int64(len(text))
}

// A window that closes in the middle of a download ends it where it is, and the next one goes on there: what came stays, none of
// it comes twice, what runs goes on.
func TestWindowClosesDuringADownload(t *testing.T) {
	d, s, v1, v2, size := thin(t, []string{"Mon-Fri 02:00-05:00"}, time.UTC, 6*time.Minute)
	for night := 1; ; night++ {
		if err := d.pollOnce(); err != nil {
			t.Fatalf("night %d: %v", night, err)
		}
		now, c := d.Clock.Now(), d.channel()
		if d.server.current() == v2.Digest {
			if night != 4 { // 30 reads a night, 100 in all
				t.Errorf("the update is there in night %d", night)
			}
			break
		}
		if night == 8 {
			t.Fatal("it does not come to an end")
		}
		if d.server.current() != v1.Digest || c.Intent != nil || c.Waiting == nil || c.Waiting.Action != "download" || !strings.Contains(*d.followers[0].waitWhy.Load(), "until a maintenance window opens at") {
			t.Fatalf("night %d: %+v", night, c.Waiting)
		}
		if h, m, _ := now.Clock(); h != 5 || m > 6 {
			t.Errorf("night %d: it went on until %s", night, now)
		}
		if got := s.bytes; got != int64(night)*30*trickleRead {
			t.Errorf("night %d: %d bytes", night, got)
		}
		// In the day there is a poll now and then; it fetches nothing.
		before, serial := s.bytes, d.Store.Doc().Serial
		for range 5 {
			d.clock.advance(time.Hour)
			if err := d.pollOnce(); err != nil {
				t.Fatal(err)
			}
		}
		if s.bytes != before || d.Store.Doc().Serial != serial {
			t.Errorf("day %d: %d bytes came, %d writes", night, s.bytes-before, d.Store.Doc().Serial-serial)
		}
		d.clock.mu.Lock()
		y, m, day := now.Date()
		d.clock.now = time.Date(y, m, day+1, 2, 0, 0, 0, time.UTC)
		d.clock.mu.Unlock()
	}
	if s.bytes != size || len(s.from) != 4 {
		t.Errorf("%d bytes came in %d pieces, the file has %d", s.bytes, len(s.from), size)
	}
	for i, at := range s.from {
		if at != int64(i)*30*trickleRead {
			t.Errorf("piece %d begins at %d", i, at)
		}
	}
}

// The window of another night may be over midnight, and the clock may be set within it.
func TestWindowOverMidnightDuringADownload(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Skipf("this machine has no time zones: %v", err)
	}
	// From 22:00 to 04:00 there is from 21:00 to 03:00 UTC in November: it is 02:00 UTC, an hour is left.
	d, s, v1, v2, size := thin(t, []string{"22:00-04:00"}, berlin, 2*time.Minute)
	if err := d.pollOnce(); err != nil || d.server.current() != v1.Digest || s.bytes != 30*trickleRead {
		t.Fatalf("%v: %d bytes until the window closed", err, s.bytes)
	}
	d.clock.advance(18 * time.Hour) // 21:00 UTC and what the last read took
	if err := d.pollOnce(); err != nil || d.server.current() != v2.Digest || s.bytes != size {
		t.Fatalf("%v: %d of %d bytes", err, s.bytes, size)
	}
}

// Where downloads may come at any time, and for a person on site, a window that closes ends nothing. This is the product without
// the check: it shows what the test above looks at.
func TestWindowThatDoesNotHoldDownloads(t *testing.T) {
	d, s, v1, v2, size := thin(t, []string{"Mon-Fri 02:00-05:00"}, time.UTC, 6*time.Minute, func(c *Channel) { c.Downloads = true })
	if err := d.pollOnce(); err != nil || s.bytes != size || d.server.current() != v1.Digest || d.channel().Waiting == nil || d.channel().Waiting.Action != "activate" {
		t.Fatalf("%v: %d bytes, %+v", err, s.bytes, d.channel().Waiting)
	}
	d, s, _, v2, size = thin(t, []string{"Mon-Fri 02:00-05:00"}, time.UTC, 6*time.Minute)
	if err := d.followers[0].pollAs(t.Context(), urgent); err != nil || d.server.current() != v2.Digest || s.bytes != size {
		t.Fatalf("%v: %d bytes", err, s.bytes)
	}
}
