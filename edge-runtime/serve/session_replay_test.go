package serve

import (
	"bytes"
	"fmt"
	"testing"
)

// A step that is sent twice counts twice: the protocol has no number for a request of a sequence, so that a server cannot tell a
// repetition from the next step. A client that has to repeat what may have been answered carries the state itself: then a
// repetition gives the same answer, and nothing is kept that it, or anybody who knows the session's name, could move.
func TestRepeatedStep(t *testing.T) {
	e := newEngine(t)
	s := New(Config{})
	s.Swap("sum", Model{digestN(1), runningSum(t, e, 0.5)})
	url, _ := serveOn(t, s)
	ask := func(start bool) []byte {
		t.Helper()
		extra := fmt.Sprintf(`],"parameters":{"sequence_id":"a","sequence_start":%v,"binary_data_output":true}`, start)
		status, doc, y := askSum(t, url, sumRequest(1, extra))
		if status != 200 {
			t.Fatalf("%d %v", status, doc)
		}
		return y
	}
	once, twice := ask(true), ask(false)
	if bytes.Equal(once, twice) {
		t.Error("a repeated step of a session changed nothing: the documents say otherwise")
	}
	if again := ask(true); !bytes.Equal(again, once) { // what a session has for it
		t.Errorf("begun anew: %x, want %x", again, once)
	}
	own := func() string {
		t.Helper()
		status, doc, _ := askSum(t, url, sumRequest(1, `,{"name":"s","datatype":"FP32","shape":[3],"data":[1,2,3]}]`))
		if status != 200 {
			t.Fatalf("%d %v", status, doc)
		}
		return fmt.Sprint(doc["outputs"])
	}
	if a, b := own(), own(); a != b {
		t.Errorf("with the client's own state a repetition gives another answer: %s, %s", a, b)
	}
}
