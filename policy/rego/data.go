package rego

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
)

// rulePaths lists the documents that rules define, as "a/b/name".
func rulePaths(modules map[string]*ast.Module) map[string]struct{} {
	out := map[string]struct{}{}
	for _, m := range modules {
		pkg := packagePath(m)
		for _, r := range m.Rules {
			out[pkg+"/"+ruleName(r)] = struct{}{}
		}
	}
	return out
}

func packagePath(m *ast.Module) string {
	var segs []string
	for _, t := range m.Package.Path[1:] {
		if s, ok := t.Value.(ast.String); ok {
			segs = append(segs, string(s))
		}
	}
	return strings.Join(segs, "/")
}

// collides finds a rule whose place data takes, or whose package a value that is no object stands in for: OPA would mix
// the two, and data could speak for a rule. "" when there is none.
func (p *Policy) collides(data map[string]any) string {
	for _, path := range slices.Sorted(maps.Keys(p.paths)) {
		var at any = data
		hit := true
		for _, seg := range strings.Split(path, "/") {
			o, ok := at.(map[string]any)
			if !ok {
				return path // a value stands where a package is
			}
			if at, ok = o[seg]; !ok {
				hit = false
				break
			}
		}
		if hit {
			return path
		}
	}
	return ""
}

// withData opens a transaction in which the environment's data lies over the policy's own, and gives that data too. The
// transaction is never committed; release ends it. Without data there is none. Evaluations with data of one policy wait for each
// other.
func (p *Policy) withData(ctx context.Context, env map[string]any) (txn storage.Transaction, data map[string]any, release func(), err error) {
	if len(env) == 0 {
		return nil, p.data, func() {}, nil
	}
	if _, ok := env["waybill"]; ok {
		return nil, nil, nil, errors.New("the environment's data may not define waybill: that is where rules live")
	}
	merged, err := overlay(p.data, env, "")
	if err != nil {
		return nil, nil, nil, err
	}
	if at := p.collides(merged); at != "" && p.on("data") {
		return nil, nil, nil, fmt.Errorf("the environment's data defines %s, which is a rule", at)
	}
	if txn, err = p.store.NewTransaction(ctx, storage.TransactionParams{Write: true}); err != nil {
		return nil, nil, nil, err
	}
	release = func() { p.store.Abort(ctx, txn) }
	for _, k := range slices.Sorted(maps.Keys(env)) {
		if err := p.store.Write(ctx, txn, storage.AddOp, storage.Path{k}, merged[k]); err != nil {
			release()
			return nil, nil, nil, fmt.Errorf("the environment's data: %s: %w", k, err)
		}
	}
	return txn, merged, release, nil
}

// overlay lays over on own and gives a new map: objects are merged, other values of one kind replaced, a list as a
// whole. A value of another kind is an error: it is more likely a mistake than a setting, and a rule that expects the one may be
// silent about the other.
func overlay(own, over map[string]any, at string) (map[string]any, error) {
	out := maps.Clone(own)
	if out == nil {
		out = map[string]any{}
	}
	for k, v := range over {
		old, ok := out[k]
		if !ok {
			out[k] = v
			continue
		}
		a, aok := old.(map[string]any)
		b, bok := v.(map[string]any)
		switch {
		case aok && bok:
			m, err := overlay(a, b, at+k+".")
			if err != nil {
				return nil, err
			}
			out[k] = m
		case kind(old) != kind(v):
			return nil, fmt.Errorf("the environment's data has %s at %s%s, the policy's data.json has %s", kind(v), at, k, kind(old))
		default:
			out[k] = v
		}
	}
	return out, nil
}

func kind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case string:
		return "a text"
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	default:
		return "a number"
	}
}

// environmentData reads environment.data out of the facts, numbers as they are written.
func environmentData(facts ast.Value) (map[string]any, error) {
	obj, ok := facts.(ast.Object)
	if !ok {
		return nil, errors.New("the facts are no object")
	}
	v, err := obj.Find(ast.Ref{ast.StringTerm("environment"), ast.StringTerm("data")})
	if err != nil {
		return nil, nil
	}
	j, err := ast.JSON(v)
	if err != nil {
		return nil, fmt.Errorf("the environment's data: %w", err)
	}
	m, _ := j.(map[string]any)
	return m, nil
}
