package journal

import (
	"errors"

	"github.com/waybill-ml/waybill/internal/fsx"
)

// Proven reads the entries at path whose hashes and signatures hold, oldest first, as Verify does it. Where a file is damaged its
// entries end there and those of the next one follow: each begins with what signs the history before it. The report is that of the
// newest files that follow each other; damage is the first that was found, and err that a file could not be read.
func Proven(fsys fsx.FS, path string, checker Checker) (es []Entry, r Report, damage, err error) {
	all, err := segments(fsys, path)
	if err != nil {
		return nil, r, nil, err
	}
	for len(all) > 0 {
		run, at, err := verifyFiles(fsys, all, Head{}, checker, func(e Entry) {
			if n := len(es); n == 0 || e.N > es[n-1].N {
				es = append(es, e)
			}
		})
		if err != nil && !errors.Is(err, ErrDamaged) {
			return nil, run, damage, err
		}
		if run.Head.Entries > 0 || err == nil && damage == nil {
			r = run
		}
		if err == nil {
			break
		}
		if damage == nil {
			damage = err
		}
		all = all[max(at, 1):] // it may only not follow what was before it
	}
	return es, r, damage, nil
}
