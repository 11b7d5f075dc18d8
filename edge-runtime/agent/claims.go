package agent

import (
	"errors"
	"fmt"

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
		case swept && others > 0:
			return fmt.Errorf("%w: %d bytes to download and %d of other channels, %d bytes free besides the reserve of %d", ErrTransient, need, others, free, a.cfg.Reserve)
		case swept:
			return fmt.Errorf("%w: %d bytes to download, %d bytes free besides the reserve of %d", ErrTransient, need, free, a.cfg.Reserve)
		}
		if _, err := a.sweep(); err != nil {
			return errors.Join(ErrTransient, err)
		}
	}
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
