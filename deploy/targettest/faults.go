package targettest

import (
	"context"
	"maps"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// mode is one way in which a single call goes wrong.
type mode struct {
	name   string
	fault  fault
	passes bool  // the move must succeed all the same
	want   error // that a move which fails gives; nil: any
}

func modes() []mode {
	return []mode{
		{"says that it is unavailable, once", fault{kind: says, cause: deploy.ErrUnavailable}, true, nil},
		{"asks to slow down, once", fault{kind: says, cause: deploy.ErrThrottled}, true, nil},
		{"is refused for want of a permission, once", fault{kind: says, cause: deploy.ErrForbidden}, false, deploy.ErrForbidden},
		{"finds the credentials expired, once", fault{kind: says, cause: deploy.ErrUnauthorized}, false, deploy.ErrUnauthorized},
		{"does not arrive, once", fault{kind: cut}, false, deploy.ErrUnavailable},
		{"is acted upon, but its answer is lost", fault{kind: lost}, false, nil},
		{"says that it is unavailable, as do all later ones", fault{kind: says, cause: deploy.ErrUnavailable, on: true}, false, deploy.ErrUnavailable},
		{"asks to slow down, as do all later ones", fault{kind: says, cause: deploy.ErrThrottled, on: true}, false, deploy.ErrThrottled},
		{"finds no network any more", fault{kind: cut, on: true}, false, deploy.ErrUnavailable},
	}
}

// move is what the suite disturbs.
type move struct {
	name     string
	before   []int // deployed before, the last one serves
	to       int   // that serves when it succeeded
	do       func(w *world, ctx context.Context) (*deploy.Outcome, error)
	previous int // to which a rollback leads when all is done; 0: not looked at
}

func moves() []move {
	apply := func(n int) func(w *world, ctx context.Context) (*deploy.Outcome, error) {
		return func(w *world, ctx context.Context) (*deploy.Outcome, error) { return w.apply(ctx, w.release(n)) }
	}
	return []move{
		{"first deploy", nil, 1, apply(1), 0},
		{"deploy", []int{1}, 2, apply(2), 1},
		{"deploy after another", []int{1, 2}, 3, apply(3), 2},
		{"rollback", []int{1, 2}, 1, func(w *world, ctx context.Context) (*deploy.Outcome, error) {
			return w.target().Rollback(ctx, w.digest(1), long)
		}, 0},
		{"rollback to the previous", []int{1, 2}, 1, func(w *world, ctx context.Context) (*deploy.Outcome, error) {
			if w.Serving()[w.digest(1)] == 100 { // who rolls back once more looks first
				return &deploy.Outcome{}, nil
			}
			return w.target().Rollback(ctx, "", long)
		}, 0},
	}
}

// most bounds the calls of one move.
const most = 200

func faultParts() []part {
	return []part{
		{"faults", func(c *check) {
			for _, m := range moves() {
				if m.name == "deploy after another" {
					continue // of interest when the answer is lost
				}
				for _, x := range modes() {
					c.disturb(m, x)
				}
			}
		}},
		{"lost", func(c *check) {
			for _, m := range moves() {
				c.disturb(m, mode{"is acted upon, but its answer is lost, and so is all that follows", fault{kind: lost, on: true}, false, nil})
				c.disturb(m, mode{"is acted upon while the caller gives up", fault{kind: after}, false, context.Canceled})
				c.disturb(m, mode{"is made while the caller gives up", fault{kind: hook}, false, context.Canceled})
			}
		}},
	}
}

// disturb does m with each of its calls going wrong as x says, until no call is left, and expects each time: the old release or the
// new one serves alone; the old one when the call went wrong before the switch and the platform could still be asked; and the next
// run, by another process, succeeds.
func (c *check) disturb(m move, x mode) {
	for n := 1; ; n++ {
		if n > most {
			c.fatalf("%s makes more than %d calls", m.name, most)
		}
		w := c.world("%s whose call %d %s", m.name, n, x.name).deployed(m.before...)
		old := 0
		if len(m.before) > 0 {
			old = m.before[len(m.before)-1]
			w.outage()
		}
		ctx, cancel := context.WithCancel(c.tb.Context())
		f := x.fault
		f.nth = n
		if f.kind == hook || f.kind == after {
			f.run = cancel
		}
		w.wire.arm(&f)
		o, err := m.do(w, ctx)
		cancel()
		fired, at, trace := w.wire.hit()
		w.wire.arm(nil)
		w.at(w.where + " (" + trace + ")")
		w.Rest()
		now := w.Serving()
		switch {
		case err == nil:
			w.serves("after a success", m.to)
			if o == nil {
				w.errorf("neither Outcome nor error")
			}
		case !fired:
			w.fatalf("it fails without a fault: %v", err)
		case x.passes:
			w.errorf("it fails instead of asking again: %v", err)
		case x.want != nil:
			w.is("it fails", err, x.want)
		}
		if err != nil {
			if old == 0 && len(now) == 0 {
				now = nil
			} else if !maps.Equal(now, map[artifact.Digest]int{w.digest(m.to): 100}) && (old == 0 || !maps.Equal(now, map[artifact.Digest]int{w.digest(old): 100})) {
				w.errorf("%s serves after a failure", w.show(now))
			}
			if refused := f.kind == says && !f.on; refused && old > 0 && at[w.digest(old)] == 100 && now[w.digest(old)] != 100 {
				w.errorf("a call before the switch was refused, and %s serves", w.show(now))
			}
		}
		if _, err := m.do(w, c.tb.Context()); err != nil {
			w.errorf("the next run fails: %v", err)
		}
		w.serves("after the next run", m.to)
		if p, err := w.target().Plan(c.tb.Context(), w.release(m.to)); err != nil || len(p.Changes)+len(p.Drift) != 0 {
			w.errorf("the next run leaves work: %+v, %v", p, err)
		}
		if m.previous > 0 {
			w.rollsBack("after the next run", m.previous)
		}
		if !fired {
			return
		}
		if len(c.found) > 0 {
			panic(stop{}) // the same again for every call would tell nothing more
		}
	}
}
