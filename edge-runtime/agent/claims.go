package agent

import (
	"errors"
	"fmt"
	"math"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// claims are what activations under way count on: the space for what they still fetch, and blobs that no document names yet.
// a.disk guards them; it is never held while something is fetched, so that one channel's carrier keeps no other one waiting.
type claims map[*follower][]artifact.Descriptor

// room makes sure that what is missing of ds fits on the disk beside what other channels are fetching, after a sweep if need
// be, and claims it: a sweep leaves ds alone until release.
func (f *follower) room(ds []artifact.Descriptor) error {
	a := f.a
	a.disk.Lock()
	defer a.disk.Unlock()
	a.claims[f] = append(a.claims[f], ds...)
	for swept := false; ; swept = true {
		need, others := a.missing(ds), uint64(0)
		if need == 0 {
			return nil
		}
		for o, c := range a.claims {
			if o != f {
				others += a.missing(c)
			}
		}
		free, err := a.blobs.Free(a.cfg.Reserve)
		switch {
		case err != nil:
			return errors.Join(ErrTransient, err)
		case free >= need+others:
			return nil
		case swept:
			return noRoom("the download", need, others, free, a.cfg.Reserve, a.blobs.Dir())
		}
		if err := a.makeRoom(need + others); err != nil {
			return err
		}
	}
}

// compiles makes sure that what loading m writes besides its files, its compiled code, fits on the disk too, after a sweep if
// need be: what is reserved is for the journal and the way back.
func (f *follower) compiles(m *artifact.Model) error {
	s, ok := f.a.Runtime.(Sizer)
	if !ok {
		return nil
	}
	a := f.a
	dir, need := s.CompiledSize(deviceLayers(m))
	if need == 0 {
		return nil
	}
	a.disk.Lock()
	defer a.disk.Unlock()
	for swept := false; ; swept = true {
		others := uint64(0)
		for o, c := range a.claims {
			if o != f {
				others += a.missing(c)
			}
		}
		free, err := a.blobs.Free(a.cfg.Reserve)
		switch {
		case err != nil:
			return errors.Join(ErrTransient, err)
		case free >= need+others:
			return nil
		case swept:
			return noRoom("its compiled code", need, others, free, a.cfg.Reserve, dir)
		}
		if err := a.makeRoom(need + others); err != nil {
			return err
		}
	}
}

// Sizer is a Runtime that knows what loading writes to the disk of the state directory.
type Sizer interface {
	// CompiledSize estimates from above the bytes that loading an artifact of these layers adds to the files in dir; 0 when
	// nothing is written, or is there already.
	CompiledSize(layers []artifact.Layer) (dir string, bytes uint64)
}

// noRoom is what a person reads who has to make room.
func noRoom(what string, need, others, free, reserve uint64, dir string) error {
	also := ""
	if others > 0 {
		also = fmt.Sprintf(" and downloads of other channels %s", amount(others))
	}
	e := diag.New(diag.Failure, "no room on the disk: %s needs %s%s, %s are free in %s besides the reserve of %s: %s are missing",
		what, amount(need), also, amount(free), dir, amount(reserve), amount(need+others-free))
	e.Err = ErrTransient
	return e.Hint("df -h %s", dir).Hint("waybill-edge doctor")
}

// amount writes a number of bytes for people, never less than it is.
func amount(n uint64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d bytes", n)
	case n < 1e6:
		return fmt.Sprintf("%.0f kB", math.Ceil(float64(n)/1e3))
	}
	return fmt.Sprintf("%.1f MB", math.Ceil(float64(n)/1e5)/10)
}

// makeRoom sweeps until need bytes are free, or nothing more can go: what nobody needs first, then downloads that were broken off,
// which are made again if need be. The caller holds a.disk.
func (a *Agent) makeRoom(need uint64) error {
	if _, err := a.sweep(); err != nil {
		return errors.Join(ErrTransient, err)
	}
	free, err := a.blobs.Free(a.cfg.Reserve)
	if err != nil || free >= need || len(a.idle) == 0 {
		return errors.Join(err)
	}
	clear(a.idle)
	if _, err := a.sweep(); err != nil {
		return errors.Join(ErrTransient, err)
	}
	return nil
}

// release gives up what room claimed. What the document names by now stays.
func (f *follower) release() {
	f.a.disk.Lock()
	defer f.a.disk.Unlock()
	delete(f.a.claims, f)
}

// idleClaim is what a channel has of a download that was broken off: sweeps for others leave it alone as long as there is room, and
// until the channel names another target. It reserves no space, since nobody knows when the download goes on.
type idleClaim struct {
	target artifact.Digest
	ds     []artifact.Descriptor
}

// rest ends a download of target: what came so far is kept when err says that it may go on later.
func (f *follower) rest(target artifact.Digest, err error) {
	f.a.disk.Lock()
	defer f.a.disk.Unlock()
	delete(f.a.idle, f)
	if goesOn(err) {
		f.a.idle[f] = idleClaim{target, f.a.claims[f]}
	}
	delete(f.a.claims, f)
}

// letGo ends the claim on what is left of a download when a poll came to its end with err: nothing is to go on.
func (f *follower) letGo(err error) {
	f.a.disk.Lock()
	defer f.a.disk.Unlock()
	if !goesOn(err) {
		delete(f.a.idle, f)
	}
}

// goesOn tells whether what ended with err may go on later.
func goesOn(err error) bool {
	_, waits := isPostponed(err)
	return err != nil && (waits || transient(err))
}

// takeUp finds after a start what the channel's accepted record still wants of what lies here.
func (f *follower) takeUp() {
	h, err := f.head()
	if err != nil || h == nil {
		return
	}
	r, c := h.Record, f.state()
	target := slotOf(r.Target, r.Seq)
	if _, committed := c.Committed(target.Digest); committed || target.Digest == "" || c.Barred(target.Digest, r.Generation, r.Seq) != "" || f.a.denied(target.Digest) {
		return
	}
	m, err := f.manifest(target)
	if err != nil || !f.missing(m) {
		return // nothing of it is here, or all
	}
	ds := []artifact.Descriptor{{Digest: target.Digest, Size: target.Size}}
	for _, e := range r.Evidence {
		ds = append(ds, artifact.Descriptor{Digest: e.Digest, Size: e.Size})
	}
	for _, l := range deviceLayers(m) {
		ds = append(ds, artifact.Descriptor{Digest: l.Digest, Size: l.Size})
	}
	f.a.disk.Lock()
	defer f.a.disk.Unlock()
	f.a.idle[f] = idleClaim{target.Digest, ds}
}

// missing is the number of bytes of ds that are not here.
func (a *Agent) missing(ds []artifact.Descriptor) (n uint64) {
	for _, d := range ds {
		n += uint64(max(a.blobs.Missing(d.Digest, d.Size), 0))
	}
	return n
}
