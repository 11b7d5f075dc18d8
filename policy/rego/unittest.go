package rego

import (
	"context"
	"fmt"
	"io/fs"
	"sort"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"

	"github.com/waybill-ml/waybill/policy/bundle"
)

// TestResult is the outcome of one test_ rule of a policy's *_test.rego files.
type TestResult struct {
	Name   string // package.test_name
	File   string
	Line   int
	Pass   bool
	Reason string // why not
}

// RunTests runs the unit tests (*_test.rego) that stand beside a policy, in OPA's own shape, with the capabilities that
// the gate has. No test is an empty list.
func RunTests(ctx context.Context, fsys fs.FS, timeout time.Duration) ([]TestResult, error) {
	b, err := bundle.FromFS(fsys)
	if err != nil {
		return nil, err
	}
	modules, data, err := parse(b)
	if err != nil {
		return nil, err
	}
	tests := 0
	err = fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, "_test.rego") {
			return err
		}
		raw, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		m, err := ast.ParseModuleWithOpts(p, string(raw), ast.ParserOptions{ProcessAnnotation: true, RegoVersion: ast.RegoV1, Capabilities: Capabilities()})
		if err != nil {
			return fmt.Errorf("policy test: %w", err)
		}
		modules[p] = m
		tests++
		return nil
	})
	if err != nil || tests == 0 {
		return []TestResult{}, err
	}
	store := inmem.NewFromObject(data)
	txn, err := store.NewTransaction(ctx, storage.TransactionParams{Write: true}) // the runner compiles, and may migrate
	if err != nil {
		return nil, fmt.Errorf("policy test: %w", err)
	}
	defer store.Abort(ctx, txn)
	ch, err := tester.NewRunner().SetCompiler(ast.NewCompiler().WithCapabilities(Capabilities()).WithEnablePrintStatements(false)).
		SetStore(store).SetModules(modules).SetTimeout(timeout).RaiseBuiltinErrors(true).SetDefaultRegoVersion(ast.RegoV1).RunTests(ctx, txn)
	if err != nil {
		return nil, fmt.Errorf("policy test: %w", err)
	}
	out := []TestResult{}
	for r := range ch {
		t := TestResult{Name: strings.TrimPrefix(r.Package, "data.") + "." + r.Name, Pass: r.Pass()}
		if r.Location != nil {
			t.File, t.Line = r.Location.File, r.Location.Row
		}
		switch {
		case r.Error != nil:
			t.Reason = oneLine(r.Error)
		case r.Skip:
			t.Reason = "skipped (todo_)"
		case r.Fail:
			t.Reason = "the test is not true"
		}
		out = append(out, t)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, ctx.Err()
}
