// Package version holds the one version number of both binaries and of the compiler. It is a leaf.
package version

import "runtime/debug"

// Number is the semantic version. It is written into interface documents, so it must not depend on the build.
const Number = "0.1.0"

// Compiler is the value of an interface document's field compiler.
const Compiler = "waybill " + Number

// Build describes the binary that runs.
type Build struct {
	Commit   string // full revision, empty when the build did not record it
	Modified bool   // the tree had changes
	Time     string // commit time, RFC 3339
	Go       string // toolchain
}

// Info reads the build facts of this binary.
func Info() Build {
	var b Build
	bi, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Go = bi.GoVersion
	for _, s := range bi.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		case "vcs.time":
			b.Time = s.Value
		}
	}
	return b
}
