// Package bounds is the proof that a model never takes more time or memory than it may: its tests run compiled graphs
// through the engine, whatever sizes their inputs and shapes ask for, and its benchmarks measure how long a deadline, a
// cancellation and a ticker of the host wait for the largest of them. It has no code of its own.
package bounds
