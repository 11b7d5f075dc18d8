package lint

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/waybill-ml/waybill/policy/device"
)

// forDevices tells whether a module is in the device-local part of a policy, which has an input and a lint of its own.
func forDevices(m *ast.Module) bool {
	return strings.HasPrefix(m.Package.Path.String()+".", "data."+device.Package+".")
}

// deviceFiles are a policy's files without its unit tests, which are no part of it.
type deviceFiles Files

// Names implements device.Files.
func (fs deviceFiles) Names() []string {
	var out []string
	for n := range fs {
		if !isTest(n) {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// File implements device.Files.
func (fs deviceFiles) File(name string) ([]byte, bool) { b, ok := fs[name]; return b, ok }

// device files what keeps the device-local part from being packed. Every file has been parsed.
func (l *linter) device() {
	part := false
	for n, m := range l.source {
		part = part || !isTest(n) && forDevices(m)
	}
	if !part {
		return
	}
	found, err := device.Lint(deviceFiles(l.files))
	if err != nil {
		l.astErrors(err, "QA-001")
	}
	for _, f := range found {
		l.add(Finding{Code: f.Code, File: f.File, Line: f.Line, Column: f.Column, Rule: l.ruleAt(f.File, f.Line), Message: f.Msg, Fix: f.Fix})
	}
}

// ruleAt names the last rule of a file that begins at line or before.
func (l *linter) ruleAt(file string, line int) string {
	name := ""
	if m := l.source[file]; m != nil {
		for _, r := range m.Rules {
			if r.Location != nil && r.Location.Row <= line {
				name = ruleName(r)
			}
		}
	}
	return name
}
