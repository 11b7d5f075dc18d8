package onnx

import "testing"

// Each operator that is said to be refused is one that the frontend knows.
func TestRefusedAreKnown(t *testing.T) {
	for name, why := range Refused() {
		if !Supported()[name] || why == "" {
			t.Errorf("%s: %q, known: %v", name, why, Supported()[name])
		}
	}
}
