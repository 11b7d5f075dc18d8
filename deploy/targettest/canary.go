package targettest

import (
	"context"
	"errors"
	"maps"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

func canaryParts() []part {
	return []part{
		{"canary", func(c *check) {
			w := c.world("canary")
			if _, ok := w.target().Target.(deploy.Promoter); !ok {
				w.deployed(1)
				before := w.Dump()
				r := w.release(2)
				r.Weight = 10
				_, err := w.apply(c.tb.Context(), r)
				w.is("Apply with a weight", err, deploy.ErrRelease)
				if w.Rest(); w.Dump() != before {
					w.errorf("a refused canary changes the platform")
				}
				return
			}
			c.canary()
		}},
	}
}

// canary is for targets that have them.
func (c *check) canary() {
	ctx := c.tb.Context()
	shares := func(w *world, when string, want map[int]int) {
		w.Rest()
		digests := map[artifact.Digest]int{}
		for n, weight := range want {
			digests[w.digest(n)] = weight
		}
		if got := w.Serving(); !maps.Equal(got, digests) {
			w.errorf("%s: %s serves, want %s", when, w.show(got), w.show(digests))
		}
	}
	apply := func(w *world, n, weight int) (*deploy.Outcome, error) {
		r := w.release(n)
		r.Weight = weight
		return w.apply(ctx, r)
	}
	begun := func(where string) *world {
		w := c.world("%s", where).deployed(1)
		w.outage()
		if o, err := apply(w, 2, 10); err != nil {
			w.fatalf("Apply of a canary: %v", err)
		} else if o == nil || o.Digest != w.digest(2) || o.Weight != 10 || !o.Changed {
			w.errorf("the Outcome of a canary is %+v", o)
		}
		shares(w, "the canary", map[int]int{1: 90, 2: 10})
		return w
	}
	w := c.world("a canary where nothing runs")
	if _, err := apply(w, 1, 10); err != nil {
		w.errorf("Apply: %v", err)
	}
	w.serves("it gets everything", 1)

	w = begun("promoted")
	s, err := w.target().Status(ctx)
	if err != nil || len(s.Shares) != 2 || s.Shares[0].Digest != w.digest(1) || s.Shares[0].Weight != 90 || s.Shares[1].Digest != w.digest(2) || s.Shares[1].Weight != 10 {
		w.errorf("Status is %+v, %v", s, err)
	}
	if x := s.Canary(); x == nil || x.Digest != w.digest(2) {
		w.errorf("Status calls %+v the canary", x)
	}
	before := w.Dump()
	if o, err := apply(w, 2, 10); err != nil || o.Changed {
		w.errorf("the same canary again gives %+v, %v", o, err)
	}
	if w.Rest(); w.Dump() != before {
		w.errorf("the same canary again changes the platform")
	}
	if _, err := apply(w, 2, 30); err != nil {
		w.errorf("a larger weight: %v", err)
	}
	shares(w, "a larger weight", map[int]int{1: 70, 2: 30})
	if _, err := apply(w, 2, 80); err != nil {
		w.errorf("the larger part: %v", err)
	}
	shares(w, "the larger part", map[int]int{1: 20, 2: 80})
	if s, err := w.target().Status(ctx); err != nil || s.Canary() == nil || s.Canary().Digest != w.digest(2) {
		w.errorf("a canary with the larger part is not told: %+v, %v", s, err)
	}
	o, err := w.target().promote(ctx)
	if err != nil {
		w.fatalf("Promote: %v", err)
	}
	w.outcome(o, 2, 1, false)
	w.serves("after Promote", 2)
	if s, err := w.target().Status(ctx); err != nil || s.Canary() != nil {
		w.errorf("after Promote Status still tells of a canary: %+v, %v", s, err)
	}
	w.rollsBack("after Promote", 1)

	w = begun("promoted by Apply of the whole")
	w.deployed(2)
	w.rollsBack("after it", 1)

	w = begun("rolled back")
	w.rollsBack("while the canary runs", 1)

	w = begun("rolled back to the canary's digest")
	if _, err := w.target().Rollback(ctx, w.digest(2), long); err != nil {
		w.errorf("Rollback: %v", err)
	}
	w.serves("at the end", 2)

	w = begun("overtaken by another release")
	w.deployed(3)
	w.rollsBack("it is no longer of interest", 1)

	w = c.world("promoted without one").deployed(1, 2)
	if o, err := w.target().promote(ctx); err == nil && o.Changed {
		w.errorf("Promote without a canary changes something: %+v", o)
	}
	w.serves("after that", 2)

	w = c.world("a canary that never gets healthy").deployed(1)
	w.Sick(w.digest(2), deploy.ErrUnhealthy)
	w.sick[w.digest(2)] = true
	w.outage()
	r := w.release(2)
	r.Weight = 10
	_, err = w.apply(ctx, r)
	w.is("Apply", err, deploy.ErrUnhealthy)
	w.serves("at the end", 1)

	// Each call of the three moves lost, once.
	for _, m := range []struct {
		name     string
		from, to map[int]int
		do       func(w *world, ctx context.Context) error
	}{
		{"the canary's Apply", map[int]int{1: 100}, map[int]int{1: 90, 2: 10}, func(w *world, ctx context.Context) error {
			r := w.release(2)
			r.Weight = 10
			_, err := w.apply(ctx, r)
			return err
		}},
		{"Promote", map[int]int{1: 90, 2: 10}, map[int]int{2: 100}, func(w *world, ctx context.Context) error {
			if w.Serving()[w.digest(2)] == 100 {
				return nil
			}
			_, err := w.target().promote(ctx)
			return err
		}},
		{"the canary's Rollback", map[int]int{1: 90, 2: 10}, map[int]int{1: 100}, func(w *world, ctx context.Context) error {
			_, err := w.target().Rollback(ctx, w.digest(1), long)
			return err
		}},
	} {
		for _, f := range []fault{{kind: lost}, {kind: cut, on: true}, {kind: says, cause: deploy.ErrForbidden}, {kind: after}} {
			for n := 1; n <= most; n++ {
				w := c.world("call %d of %s goes wrong (%d)", n, m.name, f.kind).deployed(1)
				if len(m.from) == 2 {
					if _, err := apply(w, 2, 10); err != nil {
						w.fatalf("the canary: %v", err)
					}
				}
				w.outage()
				cctx, cancel := context.WithCancel(ctx)
				x := f
				x.nth, x.run = n, cancel
				w.wire.arm(&x)
				err := m.do(w, cctx)
				cancel()
				fired, _, trace := w.wire.hit()
				w.wire.arm(nil)
				w.at(w.where + " (" + trace + ")")
				w.Rest()
				got := w.Serving()
				is := func(want map[int]int) bool {
					for n, weight := range want {
						if got[w.digest(n)] != weight {
							return false
						}
					}
					return len(got) == len(want)
				}
				if !is(m.to) && (err == nil || !is(m.from)) {
					w.errorf("%s serves after %v", w.show(got), err)
				}
				if err != nil && !fired {
					w.fatalf("it fails without a fault: %v", err)
				}
				if f.kind == says && err != nil && !errors.Is(err, deploy.ErrForbidden) {
					w.errorf("it says %v, want %v", err, deploy.ErrForbidden)
				}
				if err := m.do(w, ctx); err != nil {
					w.errorf("the next run fails: %v", err)
				}
				shares(w, "after the next run", m.to)
				if len(c.found) > 0 {
					panic(stop{})
				}
				if !fired {
					break
				}
			}
		}
	}
}
