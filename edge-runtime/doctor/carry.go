package doctor

import (
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/ui"
)

// longDownload is how long an update may take to come before a person should know.
const longDownload = 3 * 24 * time.Hour

// checkCarry looks at when a channel may be updated and how fast: windows that cannot be read or never open, a clock that no
// window can be told by, a bandwidth with which an update of the present size hardly arrives.
func (d *Doctor) checkCarry(c *config.Channel) {
	check := "windows " + c.Name
	set := d.cfg.Over(c.Carry)
	w, err := set.ParseWindows()
	if err != nil {
		d.add(check, Bad, zoneHelp(err, d.file), "%v", err)
		return
	}
	now := d.effectiveNow()
	share := 1.0 // of the time in which files may come
	if !w.Always() {
		opens, closes := w.Next(now)
		behind := d.doc != nil && d.Now.Before(d.doc.TimeFloor)
		switch {
		case !w.Open(opens):
			d.add(check, Bad, "set \"windows\" in "+d.file, "%s: none opens in the next two weeks, nothing is updated", w)
			return
		case behind && set.NoClock != "update":
			d.add(check, Doubt, "timedatectl status", "%s: not one is taken while the clock is behind the last signed time", w)
		case opens.After(now):
			d.ok(check, "%s: the next opens in %s, for %s", w, ui.Ago(opens.Sub(now)), ui.Ago(closes.Sub(opens)))
		default:
			d.ok(check, "%s: open now, for another %s", w, ui.Ago(closes.Sub(now)))
		}
		if set.Download != "always" {
			share = openShare(w.Open, now)
		}
	}
	rate := uint64(d.cfg.Bandwidth)
	if own := uint64(c.Bandwidth); own > 0 && (rate == 0 || own < rate) {
		rate = own
	}
	if rate == 0 {
		return
	}
	check = "bandwidth " + c.Name
	size := d.sizes[c.Name]
	took := time.Duration(0)
	if size > 0 {
		took = time.Duration(float64(size) / float64(rate) / max(share, 1e-6) * float64(time.Second))
	}
	switch {
	case took > longDownload:
		d.add(check, Doubt, "raise \"bandwidth\", widen \"windows\", or set \"download\" to \"always\" in "+d.file, "%s/s: an update as large as what runs now, %s, takes %s", ui.Bytes(int64(min(rate, 1<<62))), ui.Bytes(size), ui.Ago(took))
	case size > 0:
		d.ok(check, "%s/s: an update as large as what runs now, %s, takes %s", ui.Bytes(int64(min(rate, 1<<62))), ui.Bytes(size), ui.Ago(took))
	default:
		d.ok(check, "%s/s", ui.Bytes(int64(min(rate, 1<<62))))
	}
}

func zoneHelp(err error, file string) string {
	if config.ZoneLost(err) {
		return "install tzdata, or set \"timezone\" in " + file + "; then restart the agent: until then its windows are closed"
	}
	return "set \"windows\" and \"timezone\" in " + file
}

// openShare is the part of the coming week in which open says yes.
func openShare(open func(time.Time) bool, now time.Time) float64 {
	const step = time.Minute // windows are told to the minute
	n, yes := 0, 0
	for t := now; t.Before(now.Add(7 * 24 * time.Hour)); t = t.Add(step) {
		if n++; open(t) {
			yes++
		}
	}
	return float64(yes) / float64(n)
}

// present tells whether the artifact is what runs.
func present(st *state.Channel, s state.Slot) bool {
	return st.Current != nil && st.Current.Digest == s.Digest
}
