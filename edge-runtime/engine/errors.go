package engine

import (
	"errors"
	"fmt"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
)

// Errors that callers tell apart with errors.Is.
var (
	// ErrIntegrity: bytes do not have the digest that the interface document states.
	ErrIntegrity = errors.New("content does not match its digest")
	// ErrClosed: the model or the engine was closed.
	ErrClosed = errors.New("the model is closed")
	// ErrMemoryLimit: the call needs more linear memory than the engine allows.
	ErrMemoryLimit = errors.New("memory limit reached")
	// ErrTimeLimit: the call took longer than the engine allows (Config.TimeLimit).
	ErrTimeLimit = errors.New("time limit reached")
)

// InputError is the caller's fault: a missing input, a wrong element type or shape, malformed data.
type InputError struct {
	Input string // name of the input, "" when the call as a whole is wrong
	Err   error
}

// Error implements error.
func (e *InputError) Error() string {
	if e.Input == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("input %q: %v", e.Input, e.Err)
}

// Unwrap gives the cause.
func (e *InputError) Unwrap() error { return e.Err }

// StepError is why a step of the user's could not be loaded.
type StepError struct {
	Step string
	Err  error
}

// Error implements error.
func (e *StepError) Error() string { return fmt.Sprintf("step %s: %v", e.Step, e.Err) }

// Unwrap gives the cause.
func (e *StepError) Unwrap() error { return e.Err }

// GuestError is the error record that a guest left: its code, the node that failed and two numbers.
type GuestError struct {
	Step  string // name of the step
	Code  abi.Code
	Node  string // operator and name of the node, "" when the guest named none
	A, B  int64
	Input string // name of the input that A counts, for the codes where it does
}

// Error gives the text of docs/abi.md's table.
func (e *GuestError) Error() string {
	at := e.Step
	if e.Node != "" {
		at += ": " + e.Node
	}
	return at + ": " + e.text()
}

func (e *GuestError) text() string {
	in := fmt.Sprintf("input %d", e.A)
	if e.Input != "" {
		in = fmt.Sprintf("input %q", e.Input)
	}
	switch e.Code {
	case abi.ErrABI:
		return fmt.Sprintf("host and module disagree about the call (%d, %d)", e.A, e.B)
	case abi.ErrDType:
		return fmt.Sprintf("%s has element type %s, which the model does not accept", in, abi.DType(uint32(e.B)))
	case abi.ErrRank:
		return fmt.Sprintf("%s has rank %d, which the model does not accept", in, e.B)
	case abi.ErrDim:
		return fmt.Sprintf("dimension %d is %d, which the model does not accept", e.A, e.B)
	case abi.ErrShape:
		return fmt.Sprintf("shapes do not fit together: %d against %d", e.A, e.B)
	case abi.ErrIndex:
		return fmt.Sprintf("index %d is out of range (%d)", e.A, e.B)
	case abi.ErrMemory:
		return fmt.Sprintf("%d bytes or elements needed, more than the module can address", e.A)
	case abi.ErrOverflow:
		return "the size of a tensor overflows"
	case abi.ErrValue:
		return fmt.Sprintf("a value is outside of what the operator accepts (%d, %d)", e.A, e.B)
	case abi.ErrString:
		return fmt.Sprintf("%s holds a string that is not valid UTF-8", in)
	case abi.ErrState:
		return fmt.Sprintf("called in the wrong state (%d)", e.A)
	}
	if e.Code == abi.ErrUnsupported {
		if e.A == 1 {
			return "the inputs ask for a random draw (training mode), which modules never make: switch training mode off, or set its ratio to 0"
		}
		return fmt.Sprintf("the inputs ask for what the module does not do (%d)", e.A)
	}
	if e.Code >= abi.ErrUser {
		return fmt.Sprintf("step error %d (%d, %d)", e.Code, e.A, e.B)
	}
	return fmt.Sprintf("unknown error %d (%d, %d)", e.Code, e.A, e.B)
}

// InputFault tells whether the record blames the input, rather than the module or the host.
func (e *GuestError) InputFault() bool {
	switch e.Code {
	case abi.ErrDType, abi.ErrRank, abi.ErrDim, abi.ErrShape, abi.ErrIndex, abi.ErrOverflow, abi.ErrValue, abi.ErrString, abi.ErrUnsupported:
		return true
	}
	return e.Code >= abi.ErrUser
}

// TrapError is a crash inside the module: an instruction that trapped, or an exit. The instance was discarded.
type TrapError struct {
	Step string
	Node string // node that the guest was working on, when it says so
	Err  error
}

// Error implements error.
func (e *TrapError) Error() string {
	at := e.Step
	if e.Node != "" {
		at += ": " + e.Node
	}
	return fmt.Sprintf("%s: the module crashed: %v", at, e.Err)
}

// Unwrap gives the cause.
func (e *TrapError) Unwrap() error { return e.Err }

// ProtocolError is a module that breaks the ABI: an impossible status, a descriptor that points nowhere.
type ProtocolError struct {
	Step string
	Err  error
}

// Error implements error.
func (e *ProtocolError) Error() string {
	return fmt.Sprintf("%s: the module breaks the ABI: %v", e.Step, e.Err)
}

// Unwrap gives the cause.
func (e *ProtocolError) Unwrap() error { return e.Err }
