// Standardize is an example of a step in Go; see README.md. It is built for WASI only: step.go holds it.
package main

func main() {} // a library: the host calls its exports, _initialize runs instead of main
