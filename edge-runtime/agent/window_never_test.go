package agent

import (
	"strings"
	"testing"
)

// Windows whose zone the device does not know are closed, whatever the clock says: no update begins, also where a clock that is
// wrong would not hold it up.
func TestWindowNever(t *testing.T) {
	w, d, v1, _ := windowed(t, func(c *Channel) { c.Windows, c.Clockless = c.Windows.Never("zone lost"), true })
	for range 3 {
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		d.clock.advance(37 * 60 * 60 * 1e9)
		w.publish(w.change(w.model("2.0 good")))
	}
	c := d.channel()
	if d.server.current() != v1 || c.Waiting == nil || !strings.Contains(c.Waiting.Reason, "zone lost") {
		t.Fatalf("%+v", c.Waiting)
	}
	if s := d.Status(); s.Channels[0].WindowsClosed != "zone lost" {
		t.Errorf("the status does not tell: %+v", s.Channels[0])
	}
}
