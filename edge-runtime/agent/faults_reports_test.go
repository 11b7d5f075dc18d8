package agent

import (
	"bytes"
	"context"
	"path/filepath"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/report"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

// reports are what the processes of a run put into their spool, and what was taken out of it. Safe for concurrent use.
type reports struct {
	mu    sync.Mutex
	put   []report.Item // in order
	acked int           // number of the newest one, from 1, that was put away; 0 when a later one could not be
	taken []report.Item // in order
}

// spooled hands the reports of a channel to the spool, as waybill-edge does.
type spooled struct {
	d    *faultDevice
	name string
}

// Report implements Reporter.
func (s spooled) Report(_ context.Context, slot state.Slot, bundle []byte) error {
	told := &s.d.tape.told
	i := report.Item{Device: s.d.Signer.KeyID(), Channel: s.name, Seq: slot.Seq, At: s.d.clock.Now(), Bundle: bundle}
	told.mu.Lock()
	defer told.mu.Unlock()
	told.put = append(told.put, i)
	told.acked = 0
	err := s.d.spool.Put(i)
	if err == nil {
		told.acked = len(told.put)
	}
	return err
}

// ID implements report.Sink.
func (r *reports) ID() string { return "memory" }

// Send implements report.Sink.
func (r *reports) Send(_ context.Context, i report.Item) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken = append(r.taken, i)
	return nil
}

const spoolDir = stateDir + "/spool"

// openSpool gives each channel the spool on the device's disk. Nothing leaves it before deliver.
func (d *faultDevice) openSpool(fsys fsx.FS, cfg *Config) {
	d.spool, _ = report.Open(fsys, filepath.FromSlash(spoolDir), []report.Sink{&d.tape.told}, report.Options{Now: d.clock.Now}) // failing costs reports and nothing else
	cfg.ReportEvery = time.Hour
	for i := range cfg.Channels {
		cfg.Channels[i].Reporter = spooled{d, cfg.Channels[i].Name}
	}
}

// handed waits until every report was handed to the spool.
func (d *faultDevice) handed() {
	for _, f := range d.followers {
		f.mu.Lock()
		sent := f.sent
		f.mu.Unlock()
		if sent != nil {
			<-sent
		}
	}
}

// deliver has the sink take what waits.
func (d *faultDevice) deliver(ctx context.Context) {
	d.handed()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() { defer close(done); d.spool.Run(ctx) }()
	for d.spool.Waiting()[d.tape.told.ID()] > 0 && ctx.Err() == nil {
		time.Sleep(20 * time.Microsecond)
	}
	cancel()
	<-done
}

// check is ID for what was found after a restart.
func (r *reports) check(bad func(string, ...any)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	newest := 0
	for _, i := range r.taken {
		n := 0
		for k, p := range r.put {
			if bytes.Equal(p.Bundle, i.Bundle) && p.Seq == i.Seq && p.Channel == i.Channel {
				n = k + 1
			}
		}
		if n == 0 {
			bad("ID a report of %d bytes was sent that the device never made", len(i.Bundle))
		}
		newest = max(newest, n)
	}
	if newest < r.acked {
		bad("ID report %d was put away, %d is the newest that came", r.acked, newest)
	}
}

// last is ID for the end: the newest report tells what serves.
func (r *reports) last(d *faultDevice, bad func(string, ...any)) {
	r.check(bad)
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.taken) == 0 {
		bad("ID nothing was reported")
		return
	}
	b, err := evidence.ParseBundle(r.taken[len(r.taken)-1].Bundle)
	var st *evidence.Statement
	if err == nil {
		st, err = evidence.ParseStatement(b.DSSEEnvelope.Payload)
	}
	var s *evidence.Status
	if err == nil {
		s, err = evidence.ParseStatus(st.Predicate)
	}
	if err != nil {
		bad("ID the last report: %v", err)
		return
	}
	var now artifact.Digest
	if now, _ = d.server.serving(d.followers[0].cfg.Model); s.Running != now {
		bad("ID the last report says that %s serves, %s does", s.Running.Short(), now.Short())
	}
	es, err := d.FS.ReadDir(filepath.FromSlash(spoolDir))
	if err != nil || len(es) > 0 {
		bad("ID %d files are left in the spool: %v", len(es), err)
	}
}
