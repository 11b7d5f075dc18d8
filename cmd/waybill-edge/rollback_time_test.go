package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// A rollback by hand with no registry in reach: through the running agent and on the state while it is down, the command from its
// start to its end, every file hashed and the golden vectors run. The figures go to the log (-v); docs/reliability.md quotes them.
func TestRollbackByHandOffline(t *testing.T) {
	p := edgetest.NewPublisher(t)
	v1, v2 := p.Pack("v1"), p.Pack("v2")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(time.Millisecond)})
	d.start()
	p.Publish(p.Change(v1))
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	p.Publish(p.Change(v2))
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	now := v2.Digest
	rollback := func(rounds int) []time.Duration {
		t.Helper()
		var took []time.Duration
		for range rounds {
			to := v1.Digest
			if now == to {
				to = v2.Digest
			}
			start := time.Now()
			got, err := d.do("rollback", "--to", string(to))
			took = append(took, time.Since(start))
			if err != nil || artifact.Digest(strings.TrimSpace(got)) != to {
				t.Fatalf("rollback: %q, %v", got, err)
			}
			now = to
		}
		slices.Sort(took)
		return took
	}
	tell := func(what string, took []time.Duration) {
		t.Logf("%s: median %s, slowest of %d %s", what, took[len(took)/2], len(took), took[len(took)-1])
	}
	tell("through the running agent", rollback(10))
	if got, err := d.infer(); err != nil || got != now {
		t.Errorf("%s answers, %v", got, err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	tell("while it is down", rollback(6))
	d.start()
	if got, err := d.infer(); err != nil || got != now {
		t.Errorf("after a start %s answers, %v", got, err)
	}
	if s := d.status(); s.Seq != 2 || s.Current.Digest != now {
		t.Errorf("status %+v", s)
	}
	if out, err := d.do("verify-journal"); err != nil {
		t.Errorf("verify-journal: %s, %v", out, err)
	}
}
