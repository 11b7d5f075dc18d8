package device

import (
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// The kinds of findings.
const (
	codeDefault = "DP-001" // allow is missing, or does not begin with false
	codeBuiltin = "DP-002" // a builtin that no device has
	codeMissing = "DP-003" // something missing is turned into a value on which allow rests
	codeShape   = "DP-004" // allow is more than true or false, or another rule is never asked
	codeInput   = "DP-005" // what the input cannot hold
	codeData    = "DP-006" // a document that no device has
)

// Finding is a place where a policy could allow because something is missing, or that a device could not evaluate.
type Finding struct {
	Code         string
	File         string
	Line, Column int // from 1; 0 where there is no place
	Msg          string
	Fix          string // a form that is safe, or what to do
}

// Findings is an error of one line for each.
type Findings []Finding

// Error implements error.
func (fs Findings) Error() string {
	var lines []string
	for _, f := range fs {
		lines = append(lines, fmt.Sprintf("%s:%d: %s (%s)", f.File, f.Line, f.Msg, f.Fix))
	}
	return strings.Join(lines, "\n")
}

// compilerFindings are the compiler's errors, each with what to do about it.
func compilerFindings(errs ast.Errors) Findings {
	var out Findings
	for _, e := range errs {
		f := Finding{Code: codeInput, Msg: e.Code + ": " + e.Message, Fix: "docs/device-policy.md lists what the input holds, and of which type it is"}
		if e.Location != nil {
			f.File, f.Line, f.Column = e.Location.File, e.Location.Row, e.Location.Col
		}
		if _, fn, ok := strings.Cut(e.Message, "undefined function "); ok {
			f.Code, f.Fix = codeBuiltin, fmt.Sprintf("not one of the %d builtins that a device evaluates: docs/device-policy.md", len(builtins))
			if strings.HasPrefix(fn, "time.") {
				f.Fix = "a device has no clock in its policy; the time is in input.time"
			}
		}
		if d, ok := e.Details.(*ast.RefErrInvalidDetail); ok && len(d.OneOf) > 0 {
			var names []string
			for _, v := range d.OneOf {
				names = append(names, strings.Trim(v.String(), `"`))
			}
			f.Fix = "there are " + strings.Join(names, ", ")
		}
		out = append(out, f)
	}
	return out
}

// positive is what to write for a negated expression so that it holds only when its readings are there.
func positive(e *ast.Expr) string {
	const general = "write a rule that holds when the readings are there and good, and demand it"
	if e.Location == nil {
		return general
	}
	body, err := ast.ParseBodyWithOpts(string(e.Location.Text), ast.ParserOptions{RegoVersion: ast.RegoV1})
	if err != nil || len(body) != 1 || !body[0].Negated || len(body[0].With) > 0 {
		return general
	}
	x := body[0]
	switch t := x.Terms.(type) {
	case *ast.Term:
		if r, ok := t.Value.(ast.Ref); ok && r.HasPrefix(ast.InputRootRef) {
			return "write " + t.String() + " == false"
		}
	case []*ast.Term:
		opposite := map[string]string{ast.Equality.Name: "!=", ast.Equal.Name: "!=", ast.NotEqual.Name: "==",
			ast.LessThan.Name: ">=", ast.LessThanEq.Name: ">", ast.GreaterThan.Name: "<=", ast.GreaterThanEq.Name: "<"}
		if op, ok := opposite[x.Operator().String()]; ok && len(x.Operands()) == 2 {
			return fmt.Sprintf("write %s %s %s", x.Operand(0), op, x.Operand(1))
		}
	}
	return general
}
