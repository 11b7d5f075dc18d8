// Package device turns a device-local policy, Rego in package waybill.device, into one WebAssembly module that devices
// evaluate before they take a model (edge-runtime/devicepolicy).
//
// The policy says when a device may take a model:
//
//	default allow := false
//	allow if { ... }            # any number of them
//	reasons contains text if { ... }   # what to tell people while it waits; never changes allow
//
// Compile refuses what a device could not evaluate, and what could allow because a reading failed: see Lint. The same files
// give the same bytes.
package device

import (
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	opabundle "github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/compile"
	"github.com/open-policy-agent/opa/v1/util"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/bundle"
)

// Package is the Rego package of a device-local policy; packages below it are its helpers.
const Package = "waybill.device"

// Entrypoints of the module.
const (
	EntryAllow   = "waybill/device/allow"
	EntryReasons = "waybill/device/reasons"
)

// MediaType is that of the module, ArtifactType that of a manifest whose one layer it is.
const (
	MediaType    = "application/wasm"
	ArtifactType = "application/vnd.waybill.device-policy.v1"
)

// MaxModule bounds the module; devices refuse a larger one before they hash it.
const MaxModule = 4 << 20

// Module is a compiled policy.
type Module struct {
	Code   []byte
	Digest artifact.Digest // of Code: what trust documents pin
}

// builtins are what a device's host can evaluate: compiled into the module, deterministic, and the same as in OPA itself.
// A device supplies none, so everything else is refused when the policy is compiled.
var builtins = []string{
	"eq", "assign", "equal", "neq", "lt", "lte", "gt", "gte",
	"plus", "minus", "mul", "div", "rem", "abs", "ceil", "floor", "round", "numbers.range",
	"and", "or", "intersection", "union",
	"count", "sum", "product", "max", "min", "sort",
	"array.concat", "array.slice", "array.reverse",
	"object.get", "object.keys", "object.remove", "object.filter", "object.union",
	"concat", "contains", "startswith", "endswith", "indexof", "substring", "lower", "upper", "replace", "split",
	"trim", "trim_left", "trim_right", "trim_prefix", "trim_suffix", "trim_space", "format_int", "strings.reverse",
	"regex.match", "regex.is_valid", "glob.match", "to_number",
	"is_number", "is_string", "is_boolean", "is_array", "is_set", "is_object", "is_null", "type_name",
	"bits.or", "bits.and", "bits.xor", "bits.negate", "bits.lsh", "bits.rsh",
	"internal.member_2", "internal.member_3", "internal.template_string",
}

// Capabilities are OPA's with exactly the builtins that a device can evaluate.
func Capabilities() *ast.Capabilities {
	caps := ast.CapabilitiesForThisVersion()
	caps.Builtins = slices.DeleteFunc(slices.Clone(caps.Builtins), func(b *ast.Builtin) bool { return !slices.Contains(builtins, b.Name) })
	caps.AllowNet = []string{}
	return caps
}

// Files are those of a policy; a bundle has them.
type Files interface {
	Names() []string
	File(name string) ([]byte, bool)
}

// Only tells whether a policy is for devices alone: all of its Rego is in Package or below it.
func Only(b Files) bool {
	names, err := members(b)
	return err == nil && len(names) > 0 && len(names) == len(regos(b))
}

// members lists the files of b whose package is Package or lies below it.
func members(b Files) ([]string, error) {
	var out []string
	for _, n := range b.Names() {
		c, _ := b.File(n)
		if !strings.HasSuffix(n, ".rego") {
			continue
		}
		m, err := ast.ParseModuleWithOpts(n, string(c), ast.ParserOptions{RegoVersion: ast.RegoV1})
		if err != nil {
			return nil, err
		}
		if p := strings.TrimPrefix(m.Package.Path.String(), "data."); p == Package || strings.HasPrefix(p, Package+".") {
			out = append(out, n)
		}
	}
	return out, nil
}

// Compile makes the module of the device-local part of b. Errors name file and line.
func Compile(ctx context.Context, b *bundle.Bundle) (*Module, error) {
	modules, findings, err := parse(b)
	if err != nil {
		return nil, fmt.Errorf("device policy: %w", err)
	}
	if len(findings) == 0 {
		var compiler *ast.Compiler
		if compiler, findings = check(modules); len(findings) == 0 {
			findings = lint(compiler)
		}
	}
	if len(findings) > 0 {
		return nil, fmt.Errorf("device policy: %w", findings)
	}
	return build(ctx, modules)
}

// build makes the module of what was checked.
func build(ctx context.Context, modules map[string]source) (*Module, error) {
	in := &opabundle.Bundle{Data: map[string]any{}}
	in.Manifest.Init()
	for _, n := range util.KeysSorted(modules) {
		// The compiler rewrites what it is given; it gets its own copy.
		raw := []byte(modules[n].source)
		m, err := ast.ParseModuleWithOpts(n, modules[n].source, ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: Capabilities()})
		if err != nil {
			return nil, fmt.Errorf("device policy: %w", err)
		}
		in.Modules = append(in.Modules, opabundle.ModuleFile{URL: n, Path: n, RelativePath: n, Raw: raw, Parsed: m})
	}
	c := compile.New().WithTarget(compile.TargetWasm).WithBundle(in).WithEntrypoints(EntryAllow, EntryReasons).
		WithCapabilities(Capabilities()).WithRegoVersion(ast.RegoV1).WithOutput(io.Discard)
	if err := c.Build(ctx); err != nil {
		return nil, fmt.Errorf("device policy: %w", err)
	}
	out := c.Bundle().WasmModules
	if len(out) != 1 {
		return nil, fmt.Errorf("device policy: the compiler made %d modules", len(out))
	}
	code := out[0].Raw
	if len(code) > MaxModule {
		return nil, fmt.Errorf("device policy: the module has %d bytes, more than %d", len(code), MaxModule)
	}
	return &Module{Code: code, Digest: artifact.DigestOf(code)}, nil
}

// Modules gives the policy as OPA itself would evaluate it, by file: for a second opinion.
func Modules(b *bundle.Bundle) (map[string]string, error) {
	ms, found, err := parse(b)
	if err != nil {
		return nil, err
	}
	if len(found) > 0 {
		return nil, found
	}
	out := map[string]string{}
	for n, m := range ms {
		out[n] = m.source
	}
	return out, nil
}

type source struct {
	*ast.Module
	source string
}

// noReasons stands in for the reasons of a policy that gives none.
const noReasons = "package waybill.device\n\nreasons := set()\n"

// generated is the name of the file that Compile adds.
const generated = "no_reasons.rego"

func parse(b Files) (map[string]source, Findings, error) {
	names, err := members(b)
	if err != nil {
		return nil, nil, err
	}
	if len(names) == 0 {
		return nil, nil, fmt.Errorf("no file is in package %s", Package)
	}
	modules := map[string]source{}
	reasons := false
	for _, n := range names {
		c, _ := b.File(n)
		m, err := ast.ParseModuleWithOpts(n, string(c), ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: Capabilities()})
		if err != nil {
			return nil, nil, err
		}
		modules[n] = source{m, string(c)}
		for _, r := range m.Rules {
			reasons = reasons || m.Package.Path.String() == "data."+Package && name(r) == "reasons"
		}
	}
	for _, n := range b.Names() {
		if c, _ := b.File(n); path.Base(n) == "data.json" && len(names) == len(regos(b)) && len(c) > 0 {
			return nil, Findings{{Code: codeData, File: n, Line: 1, Column: 1, Msg: "a device has no data documents", Fix: "write the values into the policy"}}, nil
		}
	}
	if !reasons {
		if _, taken := modules[generated]; taken {
			return nil, nil, fmt.Errorf("%s: the file name is taken", generated)
		}
		modules[generated] = source{ast.MustParseModuleWithOpts(noReasons, ast.ParserOptions{RegoVersion: ast.RegoV1}), noReasons}
	}
	return modules, nil, nil
}

func regos(b Files) []string {
	return slices.DeleteFunc(b.Names(), func(n string) bool { return !strings.HasSuffix(n, ".rego") })
}

// check compiles the modules against the input's schema: a member that the input cannot have is a finding.
func check(modules map[string]source) (*ast.Compiler, Findings) {
	set := ast.NewSchemaSet()
	set.Put(ast.SchemaRootRef, compilerSchema())
	ms := map[string]*ast.Module{}
	for n, m := range modules {
		ms[n] = m.Module
	}
	c := ast.NewCompiler().WithCapabilities(Capabilities()).WithStrict(true).WithSchemas(set).WithUseTypeCheckAnnotations(true)
	if c.Compile(ms); c.Failed() {
		return nil, compilerFindings(c.Errors)
	}
	return c, nil
}

// compilerSchema is the input's schema as the compiler takes it.
var compilerSchema = sync.OnceValue(func() any {
	var schema any
	if err := util.UnmarshalJSON(deviceinput.SchemaJSON(), &schema); err != nil {
		panic("device input schema: " + err.Error()) // embedded, and read by a test
	}
	return schema
})

func name(r *ast.Rule) string {
	return strings.Trim(r.Head.Ref()[0].Value.String(), `"`)
}
