// Package once keeps CI from running a test twice to no purpose. `.ci/run` runs all tests with Go alone, and then again with
// corpora, schemas and other programs at hand. What go test does not take from its cache then, because another test of the
// same package reads those, need not be repeated when it reads none of them itself.
package once

import (
	"os"
	"testing"
)

// passed is set by .ci/run, and only after `go test ./...` of the same tree has passed on the same machine.
const passed = "WAYBILL_PLAIN_TESTS_PASSED"

// Passed tells that the same tree has passed `go test ./...` in this run of CI.
func Passed() bool { return os.Getenv(passed) != "" }

// Skip ends a test that has passed before in this run of CI. It is for tests that take seconds, and that nothing but Go has a
// part in: no corpus, no schema, no program that may be absent, no variable that asks for more runs.
func Skip(t testing.TB) {
	t.Helper()
	if Passed() {
		t.Skip("passed before, with Go alone; nothing else has a part in it")
	}
}
