package engine

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// Where no memory may be executable, Auto interprets and says so, and asking for the compiler is an error.
func TestWithoutExecutableMemory(t *testing.T) {
	denied := func(context.Context) error { return errors.New("mprotect: permission denied") }
	var log lines
	e, err := newWith(t.Context(), Config{Log: log.add}, denied)
	if err != nil || e.Mode() != Interpreter || !strings.Contains(log.String(), "interpreted") || !strings.Contains(log.String(), "permission denied") {
		t.Fatalf("%v, log %q", err, log.String())
	}
	defer func() { _ = e.Close(t.Context()) }()
	code := doubler().bytes()
	m := mustLoad(t, e, code, vectorIface(code))
	if _, err := m.Run(t.Context(), []Tensor{Of(ramp(3))}); err != nil {
		t.Error(err)
	}
	if _, err := newWith(t.Context(), Config{Mode: Compiler}, denied); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("the compiler by name: %v", err)
	}
	allowed := func(context.Context) error { return nil }
	e, err = newWith(t.Context(), Config{}, allowed)
	if err != nil || e.Mode() != Compiler {
		t.Errorf("allowed: %v", err)
	}
}
