package cli

import (
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
)

// Who waits for a command can end it: a large model takes what it takes. A limit that is asked for holds.
func TestCommandsWaitForModels(t *testing.T) {
	for asked, want := range map[time.Duration]time.Duration{0: -1, time.Hour: time.Hour} {
		e, err := newEngine(t.Context(), engine.Config{Mode: engine.Interpreter, TimeLimit: asked})
		if err != nil {
			t.Fatal(err)
		}
		if got := e.TimeLimit(); got != want {
			t.Errorf("a limit of %v became %v", asked, got)
		}
		_ = e.Close(t.Context())
	}
	e, err := engine.New(t.Context(), engine.Config{Mode: engine.Interpreter})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(t.Context())
	if e.TimeLimit() <= 0 {
		t.Error("an engine has no limit of its own: this shows nothing")
	}
}
