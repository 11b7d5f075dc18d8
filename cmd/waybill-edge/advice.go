package main

import (
	"errors"

	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/diag"
)

// advise adds what to look at next to a failure of the device itself that says nothing of it.
func advise(err error, file string) error {
	var e *diag.Error
	switch {
	case !errors.As(err, &e) || len(e.Hints) > 0 || diag.CodeOf(err) != diag.Failure:
	case errors.Is(err, state.ErrLocked):
		e.Hint("waybill-edge status --config %s", file)
	default:
		e.Hint("waybill-edge doctor --config %s", file)
	}
	return err
}
