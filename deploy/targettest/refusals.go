package targettest

import (
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// cause is why a platform never runs a revision.
type cause struct {
	name string
	is   error
}

func causes() []cause {
	return []cause{{"failed", deploy.ErrUnhealthy}, {"pending", deploy.ErrUnavailable}, {"architecture", deploy.ErrPlatform}, {"size", deploy.ErrTooLarge}, {"quota", deploy.ErrQuota}}
}

// brief is given to releases that stay pending for ever. What comes after it takes no time: a loaded machine only gives up earlier.
const brief = 200 * time.Millisecond

func refusalParts() []part {
	return []part{
		{"refusals", func(c *check) {
			for _, x := range causes() {
				if c.h.Without["refusals/"+x.name] != "" || c.h.Portable && x.is == deploy.ErrPlatform {
					continue
				}
				want, wait := x.is, long
				if want == deploy.ErrUnavailable { // did not become healthy within the time
					want, wait = deploy.ErrUnhealthy, brief
				}
				w := c.world("the platform refuses release 2: %s", x.name).deployed(1)
				w.Sick(w.digest(2), x.is)
				w.sick[w.digest(2)] = true
				w.outage()
				r := w.release(2)
				r.Wait = wait
				_, err := w.apply(c.tb.Context(), r)
				w.is("Apply", err, want)
				w.serves("after the refusal", 1)
				// The next release is not in the way of what was left behind, and the one before is what served.
				w.deployed(3)
				w.rollsBack("after release 3", 1)
				w = c.world("the platform refuses the first release: %s", x.name)
				w.Sick(w.digest(1), x.is)
				r = w.release(1)
				r.Wait = wait
				_, err = w.apply(c.tb.Context(), r)
				w.is("Apply", err, want)
				if _, err := w.target().Status(c.tb.Context()); err != nil {
					w.errorf("Status: %v", err)
				}
				w.deployed(2)
			}
		}},
		{"architecture", func(c *check) {
			others := [][]string{{"s390x"}}
			if c.h.Portable {
				others = append(others, []string{"amd64"}, []string{"arm64", "amd64"})
			}
			for _, arches := range others {
				w := c.world("a release for %s", strings.Join(arches, " and ")).deployed(1)
				before := w.Dump()
				r := w.release(2)
				r.Arches = arches
				_, err := w.apply(c.tb.Context(), r)
				w.is("Apply", err, deploy.ErrPlatform)
				if w.Rest(); w.Dump() != before {
					w.errorf("the platform is changed by a release that could be refused at once")
				}
			}
			if c.h.Portable {
				w := c.world("a release for wasm")
				for n := 1; n <= 4; n++ {
					if a := w.Release(n).Arches; len(a) > 0 && !slices.Equal(a, []string{"wasm"}) {
						w.errorf("release %d is for %s", n, strings.Join(a, " and "))
					}
				}
				r := w.release(1)
				r.Arches = []string{"wasm"}
				if _, err := w.apply(c.tb.Context(), r); err != nil {
					w.fatalf("Apply: %v", err)
				}
				w.serves("after the deploy", 1)
			}
		}},
		{"credentials", func(c *check) {
			for _, x := range []error{deploy.ErrUnauthorized, deploy.ErrForbidden} {
				w := c.world("all calls are answered with: %v", x).deployed(1, 2)
				t := w.target()
				p, err := t.Plan(c.tb.Context(), w.release(3))
				if err != nil {
					w.fatalf("Plan: %v", err)
				}
				before := w.Dump()
				w.wire.arm(&fault{kind: says, nth: 1, on: true, cause: x})
				_, err = t.Status(c.tb.Context())
				w.is("Status", err, x)
				_, err = t.Plan(c.tb.Context(), w.release(3))
				w.is("Plan", err, x)
				_, err = t.Apply(c.tb.Context(), p)
				w.is("Apply", err, x)
				_, err = t.Rollback(c.tb.Context(), "", long)
				w.is("Rollback", err, x)
				w.wire.arm(nil)
				if w.Rest(); w.Dump() != before {
					w.errorf("the platform is changed")
				}
			}
		}},
	}
}

// outage watches that somebody serves after each call, and never one of the sick.
func (w *world) outage() {
	w.wire.watching(func(shares map[artifact.Digest]int) {
		sum := 0
		for d, weight := range shares {
			sum += weight
			if w.sick[d] && weight > 0 {
				w.errorf("what never got healthy gets %d%% of the traffic", weight)
			}
		}
		if sum != 100 {
			w.errorf("the shares are %s in between", w.show(shares))
		}
	})
}
