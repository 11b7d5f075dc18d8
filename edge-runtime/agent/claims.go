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
		if _, err := a.sweep(); err != nil {
			return errors.Join(ErrTransient, err)
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
		if _, err := a.sweep(); err != nil {
			return errors.Join(ErrTransient, err)
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

// release gives up what room claimed. What the document names by now stays.
func (f *follower) release() {
	f.a.disk.Lock()
	defer f.a.disk.Unlock()
	delete(f.a.claims, f)
}

// missing is the number of bytes of ds that are not here.
func (a *Agent) missing(ds []artifact.Descriptor) (n uint64) {
	for _, d := range ds {
		n += uint64(max(a.blobs.Missing(d.Digest, d.Size), 0))
	}
	return n
}
