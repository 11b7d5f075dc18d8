package main

import (
	"testing"
	"time"
)

// eventually waits until ok, for what happens beside the command that caused it.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("in a minute it did not happen that %s", what)
		}
	}
}
