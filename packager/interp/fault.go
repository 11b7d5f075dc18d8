package interp

import (
	"errors"
	"fmt"

	"github.com/waybill-ml/waybill/packager/ir"
)

// Reason groups the errors of a run as the ABI's error codes do (docs/numerics.md, section 1).
type Reason int

// Reasons.
const (
	Misfit   Reason = iota // sizes or ranks that do not fit each other: whatever is none of the others
	BadIndex               // an index, a position or an axis out of range
	BadValue               // a value that the operator does not accept
	TooMuch                // more elements than there can be
)

type reasoned struct {
	why Reason
	err error
}

func (e *reasoned) Error() string { return e.err.Error() }
func (e *reasoned) Unwrap() error { return e.err }

// ReasonOf gives the reason of an error that Run returned.
func ReasonOf(err error) Reason {
	var r *reasoned
	if errors.As(err, &r) {
		return r.why
	}
	return Misfit
}

func indexf(format string, args ...any) error {
	return &reasoned{BadIndex, fmt.Errorf(format, args...)}
}

func valuef(format string, args ...any) error {
	return &reasoned{BadValue, fmt.Errorf(format, args...)}
}

func tooMuchf(format string, args ...any) error {
	return &reasoned{TooMuch, fmt.Errorf(format, args...)}
}

// axisOf is ir.Axis with a reason.
func axisOf(axis int64, rank int) (int, error) {
	k, err := ir.Axis(axis, rank)
	if err != nil {
		return 0, &reasoned{BadIndex, err}
	}
	return k, nil
}

// axesOf is ir.Axes with a reason.
func axesOf(axes []int64, rank int) ([]int, error) {
	for _, a := range axes {
		if _, err := axisOf(a, rank); err != nil {
			return nil, err
		}
	}
	out, err := ir.Axes(axes, rank)
	if err != nil {
		return nil, &reasoned{BadValue, err}
	}
	return out, nil
}
