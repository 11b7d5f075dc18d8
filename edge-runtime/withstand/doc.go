// Package withstand runs the fault harness of the device agent: updates, rollbacks and all else that the agent does, interrupted at
// every operation of the file system (docs/reliability.md). It has tests only, and the last name below edge-runtime, so that
//
//	WAYBILL_FAULT_RUNS=N go test ./edge-runtime/... -run Faults -v
//
// ends with what they found; after that line go itself names the package and the time. The scenarios, invariants and mutants lie in
// the tests of edge-runtime/agent, beside the parts that they look into.
package withstand
