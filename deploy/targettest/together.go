package targettest

import (
	"errors"

	"github.com/waybill-ml/waybill/deploy"
)

func togetherParts() []part {
	return []part{
		{"stale", func(c *check) {
			w := c.world("two plans of the same state").deployed(1)
			a, b := w.target(), w.target()
			pa, err := a.Plan(c.tb.Context(), w.release(2))
			if err != nil {
				w.fatalf("Plan: %v", err)
			}
			pb, err := b.Plan(c.tb.Context(), w.release(3))
			if err != nil {
				w.fatalf("Plan: %v", err)
			}
			if pa.Revision == "" || pa.Revision != pb.Revision {
				w.errorf("plans of the same state name revisions %q and %q", pa.Revision, pb.Revision)
			}
			if _, err := a.Apply(c.tb.Context(), pa); err != nil {
				w.fatalf("Apply: %v", err)
			}
			_, err = b.Apply(c.tb.Context(), pb)
			w.is("the second Apply", err, deploy.ErrConflict)
			w.serves("at the end", 2)
			w.rollsBack("at the end", 1)

			w = c.world("a plan from before a rollback").deployed(1, 2)
			b = w.target()
			if pb, err = b.Plan(c.tb.Context(), w.release(3)); err != nil {
				w.fatalf("Plan: %v", err)
			}
			w.rollsBack("in between", 1)
			_, err = b.Apply(c.tb.Context(), pb)
			w.is("Apply", err, deploy.ErrConflict)
			w.serves("at the end", 1)

			w = c.world("a first deploy that another was faster with")
			b = w.target()
			if pb, err = b.Plan(c.tb.Context(), w.release(2)); err != nil {
				w.fatalf("Plan: %v", err)
			}
			w.deployed(1)
			_, err = b.Apply(c.tb.Context(), pb)
			w.is("Apply", err, deploy.ErrConflict)
			w.serves("at the end", 1)
		}},
		{"interleaved", func(c *check) {
			for _, m := range moves() {
				if m.previous != 1 && m.name != "rollback" {
					continue
				}
				for _, k := range []kind{hook, after} {
					c.interleave(m, k)
				}
			}
		}},
	}
}

// interleave lets a whole deploy of release 4 happen before, or after, each call of m. Who succeeded last serves alone; who was
// overtaken is told so. A rollback that had not yet read what serves when the other was done is simply the later one.
func (c *check) interleave(m move, k kind) {
	when := "before"
	if k == after {
		when = "after"
	}
	conflicts := 0
	for n := 1; ; n++ {
		if n > most {
			c.fatalf("%s makes more than %d calls", m.name, most)
		}
		w := c.world("%s while another deploys release 4 %s call %d", m.name, when, n).deployed(m.before...)
		w.outage()
		t := w.target()
		do := func() error { _, err := t.Rollback(c.tb.Context(), w.digest(m.to), long); return err }
		if m.previous > 0 {
			p, err := t.Plan(c.tb.Context(), w.release(m.to))
			if err != nil {
				w.fatalf("Plan: %v", err)
			}
			do = func() error { _, err := t.Apply(c.tb.Context(), p); return err }
		}
		var other error
		var stopped bool
		w.wire.arm(&fault{kind: k, nth: n, run: func() {
			defer func() { // this is the server's goroutine
				if r := recover(); r == any(stop{}) {
					stopped = true
				} else if r != nil {
					panic(r)
				}
			}()
			_, other = w.apply(c.tb.Context(), w.release(4))
		}})
		err := do()
		fired, _, trace := w.wire.hit()
		w.wire.arm(nil)
		w.at(w.where + " (" + trace + ")")
		if stopped {
			panic(stop{})
		}
		if !fired {
			if err != nil {
				w.errorf("it fails alone: %v", err)
			}
			break
		}
		overtaken := func(err error) bool {
			return errors.Is(err, deploy.ErrConflict) || errors.Is(err, deploy.ErrBusy)
		}
		w.Rest()
		later := m.previous == 0 && conflicts == 0 && err == nil && w.Serving()[w.digest(m.to)] == 100
		switch {
		case other == nil && later:
			w.serves("after the later one", m.to)
		case other == nil:
			if err != nil && !overtaken(err) {
				w.errorf("it is overtaken and says %v, want %v", err, deploy.ErrConflict)
			}
			w.serves("after the other succeeded", 4)
		case !overtaken(other):
			w.errorf("the other is overtaken and says %v, want %v", other, deploy.ErrConflict)
		case err == nil:
			w.serves("after it succeeded, and the other did not", m.to)
		case !overtaken(err):
			w.errorf("both fail: %v; %v", err, other)
		default:
			w.serves("after both were refused", m.before[len(m.before)-1])
		}
		if overtaken(err) || overtaken(other) {
			conflicts++
		}
		w.deployed(3)
		if len(c.found) > 0 {
			panic(stop{})
		}
	}
	if conflicts == 0 {
		c.errorf("whenever the other comes, nobody is told")
	}
}
