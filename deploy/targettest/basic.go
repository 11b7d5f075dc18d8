package targettest

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

func basicParts() []part {
	return []part{
		{"empty", func(c *check) {
			w := c.world("nothing was ever deployed")
			s, err := w.target().Status(c.tb.Context())
			if err != nil || s == nil || len(s.Shares) != 0 || s.Running() != "" {
				c.errorf("Status gives %+v, %v", s, err)
			}
			for _, to := range []artifact.Digest{"", w.digest(1)} {
				_, err := w.target().Rollback(c.tb.Context(), to, long)
				w.is("Rollback", err, deploy.ErrGone, deploy.ErrNotFound)
			}
			w.serves("after all that", 0)
		}},
		{"plan", func(c *check) {
			w := c.world("a plan")
			for n := 1; n <= 2; n++ {
				before := w.Dump()
				p, err := w.target().Plan(c.tb.Context(), w.release(n))
				if err != nil {
					w.fatalf("Plan: %v", err)
				}
				if w.Dump() != before {
					w.errorf("Plan of release %d changes the platform", n)
				}
				if len(p.Changes) == 0 || len(p.Drift) != 0 {
					w.errorf("Plan of release %d says changes %+v and drift %+v", n, p.Changes, p.Drift)
				}
				for _, ch := range p.Changes {
					if ch.Field == "" || ch.Old == ch.New {
						w.errorf("the change %+v says nothing", ch)
					}
				}
				want := artifact.Digest("")
				if n == 2 {
					want = w.digest(1)
				}
				if p.From != want || p.Release.Digest != w.digest(n) {
					w.errorf("Plan of release %d is from %q to %q", n, p.From, p.Release.Digest)
				}
				w.deployed(n)
			}
		}},
		{"outcome", func(c *check) {
			w := c.world("the outcome")
			for n := 1; n <= 2; n++ {
				o, err := w.apply(c.tb.Context(), w.release(n))
				if err != nil {
					w.fatalf("release %d: %v", n, err)
				}
				w.outcome(o, n, n-1, true)
				w.serves("at the end", n)
			}
			o, err := w.target().Rollback(c.tb.Context(), "", long)
			if err != nil {
				w.fatalf("Rollback: %v", err)
			}
			w.outcome(o, 1, 2, false)
		}},
		{"status", func(c *check) {
			w := c.world("what runs").deployed(1, 2)
			s, err := w.target().Status(c.tb.Context())
			if err != nil {
				w.fatalf("Status: %v", err)
			}
			if !s.Exists || s.Running() != w.digest(2) || len(s.Shares) != 1 || s.Shares[0].Weight != 100 || s.Shares[0].ID == "" || !s.Settled || !s.Healthy || s.Revision == "" {
				w.errorf("Status is %+v", s)
			}
			if !slices.ContainsFunc(s.Kept, func(x deploy.Share) bool { return x.Digest == w.digest(1) && x.Weight == 0 && x.ID != "" }) {
				w.errorf("Status does not tell that release 1 is kept: %+v", s.Kept)
			}
			if slices.ContainsFunc(s.Kept, func(x deploy.Share) bool { return x.Digest == w.digest(2) }) {
				w.errorf("Status keeps release 2, which serves, to roll back to: %+v", s.Kept)
			}
		}},
		{"idempotent", func(c *check) {
			w := c.world("the same release again").deployed(1, 2)
			before := w.Dump()
			t := w.target()
			p, err := t.Plan(c.tb.Context(), w.release(2))
			if err != nil {
				w.fatalf("Plan: %v", err)
			}
			if len(p.Changes)+len(p.Drift) != 0 {
				w.errorf("Plan of what serves says changes %+v and drift %+v", p.Changes, p.Drift)
			}
			o, err := t.Apply(c.tb.Context(), p)
			if err != nil || o == nil || o.Changed || o.Digest != w.digest(2) {
				w.errorf("Apply of what serves gives %+v, %v", o, err)
			}
			o, err = w.target().Rollback(c.tb.Context(), w.digest(2), long)
			if err != nil || o == nil || o.Changed || o.Digest != w.digest(2) {
				w.errorf("Rollback to what serves gives %+v, %v", o, err)
			}
			w.Rest()
			if w.Dump() != before {
				w.errorf("the platform is changed:\n%s\nwas\n%s", w.Dump(), before)
			}
			w = c.world("a plan applied twice").deployed(1)
			t = w.target()
			if p, err = t.Plan(c.tb.Context(), w.release(2)); err != nil {
				w.fatalf("Plan: %v", err)
			}
			if _, err = t.Apply(c.tb.Context(), p); err != nil {
				w.fatalf("Apply: %v", err)
			}
			if _, err = t.Apply(c.tb.Context(), p); err != nil {
				w.is("the second Apply", err, deploy.ErrConflict)
			}
			w.serves("at the end", 2)
			w.rollsBack("at the end", 1)
		}},
		{"digest", func(c *check) {
			w := c.world("by digest only").deployed(1)
			before := w.Dump()
			r := w.release(2)
			bad := map[string]deploy.Release{}
			x := r
			x.Digest = ""
			bad["no artifact"] = x
			if r.Image != "" {
				repo, d, err := deploy.SplitImage(r.Image)
				if err != nil {
					w.fatalf("the harness's release: %v", err)
				}
				for name, image := range map[string]string{"a tag": repo + ":latest", "no tag": repo, "a tag beside the digest": repo + ":latest@" + string(d), "a short digest": repo + "@sha256:abc"} {
					x := r
					x.Image = image
					bad[name] = x
				}
			}
			for _, name := range slices.Sorted(maps.Keys(bad)) {
				_, err := w.apply(c.tb.Context(), bad[name])
				w.is(name, err, deploy.ErrRelease)
			}
			if r.Image != "" { // a plan that somebody altered
				t := w.target()
				p, err := t.Plan(c.tb.Context(), r)
				if err != nil {
					w.fatalf("Plan: %v", err)
				}
				p.Release.Image, _, _ = strings.Cut(r.Image, "@")
				p.Release.Image += ":latest"
				if _, err := t.Apply(c.tb.Context(), p); err == nil {
					w.serves("after a plan with a tag", 2)
				}
				if strings.Contains(w.Dump(), p.Release.Image) {
					w.errorf("the platform was given the tag %s", p.Release.Image)
				}
				return
			}
			w.Rest()
			if w.Dump() != before {
				w.errorf("a refused release changes the platform")
			}
		}},
		{"drift", func(c *check) {
			w := c.world("somebody changed a setting").deployed(1)
			for _, n := range []int{1, 2} { // set right by the same release, and by the next one
				w.Meddle()
				p, err := w.target().Plan(c.tb.Context(), w.release(n))
				if err != nil {
					w.fatalf("Plan: %v", err)
				}
				if len(p.Drift) == 0 {
					w.errorf("Plan of release %d does not show the drift", n)
				}
				if n == 1 && len(p.Changes) == 0 {
					w.errorf("Plan of what serves has no Changes, so that the drift stays")
				}
				if _, err := w.apply(c.tb.Context(), w.release(n)); err != nil {
					w.fatalf("Apply: %v", err)
				}
				if p, err = w.target().Plan(c.tb.Context(), w.release(n)); err != nil {
					w.fatalf("Plan: %v", err)
				}
				if len(p.Drift)+len(p.Changes) != 0 {
					w.errorf("after Apply of release %d there is still drift %+v, changes %+v", n, p.Drift, p.Changes)
				}
				w.serves("after the drift was set right", n)
			}
		}},
		{"rollback", func(c *check) {
			w := c.world("to the previous").deployed(1, 2, 3)
			w.rollsBack("from release 3", 2)
			w = c.world("to a named digest").deployed(1, 2, 3)
			for _, n := range []int{1, 3, 2} {
				o, err := w.target().Rollback(c.tb.Context(), w.digest(n), long)
				if err != nil {
					w.errorf("to release %d: %v", n, err)
				} else if o == nil || o.Digest != w.digest(n) || !o.Changed {
					w.errorf("to release %d: Outcome %+v", n, o)
				}
				w.serves("after the rollback", n)
			}
			_, err := w.target().Rollback(c.tb.Context(), w.digest(4), long)
			w.is("to what never was there", err, deploy.ErrNotFound, deploy.ErrGone)
			w.serves("after the refusal", 2)
			w = c.world("and forth").deployed(1, 2)
			w.rollsBack("from release 2", 1)
			w.deployed(2, 3)
			w.rollsBack("from release 3", 2)
			w = c.world("when there is only one").deployed(1)
			_, err = w.target().Rollback(c.tb.Context(), "", long)
			w.is("Rollback", err, deploy.ErrNotFound, deploy.ErrGone)
			w.serves("after the refusal", 1)
		}},
		{"deleted", func(c *check) {
			w := c.world("the previous revision was deleted").deployed(1, 2)
			w.Forget(w.digest(1))
			for _, to := range []artifact.Digest{"", w.digest(1)} {
				_, err := w.target().Rollback(c.tb.Context(), to, long)
				w.is("Rollback", err, deploy.ErrGone, deploy.ErrNotFound)
				w.serves("after the refusal", 2)
			}
			w.deployed(1) // it can be deployed again
			w = c.world("one in between was deleted").deployed(1, 2, 3)
			w.Forget(w.digest(2))
			_, err := w.target().Rollback(c.tb.Context(), w.digest(2), long)
			w.is("Rollback", err, deploy.ErrGone, deploy.ErrNotFound)
			w.serves("after the refusal", 3)
			if _, err := w.target().Rollback(c.tb.Context(), w.digest(1), long); err != nil {
				w.errorf("Rollback to the one that is there: %v", err)
			}
			w.serves("after the rollback", 1)
		}},
		{"safe", func(c *check) {
			w := c.world("calls at the same time").deployed(1)
			t := w.target()
			p, err := t.Plan(c.tb.Context(), w.release(2))
			if err != nil {
				w.fatalf("Plan: %v", err)
			}
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					defer func() {
						if r := recover(); r != nil && r != any(stop{}) {
							panic(r)
						}
					}()
					if _, err := t.Status(c.tb.Context()); err != nil {
						w.errorf("Status: %v", err)
					}
				})
			}
			if _, err := t.Apply(c.tb.Context(), p); err != nil {
				w.errorf("Apply: %v", err)
			}
			wg.Wait()
			w.serves("at the end", 2)
		}},
		{"cancelled", func(c *check) {
			w := c.world("a context that ended before").deployed(1)
			t := w.target()
			p, err := t.Plan(c.tb.Context(), w.release(2))
			if err != nil {
				w.fatalf("Plan: %v", err)
			}
			before := w.Dump()
			ctx, cancel := context.WithCancel(c.tb.Context())
			cancel()
			_, err = t.Status(ctx)
			w.is("Status", err, context.Canceled)
			_, err = t.Plan(ctx, w.release(2))
			w.is("Plan", err, context.Canceled)
			_, err = t.Apply(ctx, p)
			w.is("Apply", err, context.Canceled)
			_, err = t.Rollback(ctx, "", long)
			w.is("Rollback", err, context.Canceled)
			if w.Rest(); w.Dump() != before {
				w.errorf("the platform is changed")
			}
		}},
	}
}

// rollsBack expects a rollback to the previous to arrive at release n.
func (w *world) rollsBack(when string, n int) {
	if _, err := w.target().Rollback(w.tb.Context(), "", long); err != nil {
		w.errorf("%s: rollback: %v", when, err)
	}
	w.serves(when+", after the rollback", n)
}
