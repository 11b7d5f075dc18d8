// Package deptest checks which packages import which. The rules are a table of one line each with the reason
// for it; a violation is shown as the chain of imports that leads to it.
package deptest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sort"
	"strings"
)

// Module is the path of the module that the rules are about.
const Module = "github.com/waybill-ml/waybill"

// Rule says what packages matching From must not reach. Patterns are import paths relative to the module when they
// start with "./", else absolute; a trailing "/..." matches the path itself and everything below it.
type Rule struct {
	From   []string
	Except []string // packages of From that the rule leaves out
	// Deny lists what must not be imported, directly or through others. Allow lists exceptions to it.
	Deny  []string
	Allow []string
	// Direct restricts the rule to the imports written in From's own files.
	Direct bool
	// StdOnly allows nothing but the standard library and Allow.
	StdOnly bool
	Why     string
}

// Graph is the import graph of the packages of the module and all they need, without test files.
type Graph struct {
	imports map[string][]string
	std     map[string]bool
}

// Load lists the packages below dir with the go command. tags are build tags; goos and goarch may be empty.
func Load(ctx context.Context, dir string, patterns ...string) (*Graph, error) {
	args := append([]string{"list", "-e", "-deps", "-json=ImportPath,Imports,Standard,Error"}, patterns...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, errb.String())
	}
	g := &Graph{imports: map[string][]string{}, std: map[string]bool{}}
	dec := json.NewDecoder(&out)
	for {
		var p struct {
			ImportPath string
			Imports    []string
			Standard   bool
			Error      *struct{ Err string }
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list output: %w", err)
		}
		if p.Error != nil {
			return nil, fmt.Errorf("package %s: %s", p.ImportPath, p.Error.Err)
		}
		g.imports[p.ImportPath] = p.Imports
		g.std[p.ImportPath] = p.Standard
	}
	return g, nil
}

// Packages returns the module's own packages, sorted.
func (g *Graph) Packages() []string {
	var ps []string
	for p := range g.imports {
		if p == Module || strings.HasPrefix(p, Module+"/") {
			ps = append(ps, p)
		}
	}
	sort.Strings(ps)
	return ps
}

// Check returns one line for each violation of r, with the chain of imports.
func (g *Graph) Check(r Rule) []string {
	var bad []string
	for _, p := range g.Packages() {
		if !matchAny(r.From, p) || matchAny(r.Except, p) {
			continue
		}
		for _, chain := range g.reach(p, r) {
			bad = append(bad, fmt.Sprintf("%s: %s", strings.Join(chain, " -> "), r.Why))
		}
	}
	return bad
}

// reach finds the shortest chain from p to each denied package, not looking behind a denied one.
func (g *Graph) reach(p string, r Rule) [][]string {
	type item struct{ chain []string }
	seen := map[string]bool{p: true}
	queue := []item{{[]string{p}}}
	var found [][]string
	for len(queue) > 0 {
		it := queue[0]
		queue = queue[1:]
		for _, q := range g.imports[it.chain[len(it.chain)-1]] {
			if seen[q] {
				continue
			}
			seen[q] = true
			chain := append(append([]string(nil), it.chain...), q)
			denied := matchAny(r.Deny, q)
			if r.StdOnly && !g.std[q] {
				denied = true
			}
			if denied && !matchAny(r.Allow, q) {
				found = append(found, chain)
				continue
			}
			if !r.Direct && !g.std[q] {
				queue = append(queue, item{chain})
			}
		}
	}
	return found
}

func matchAny(patterns []string, path string) bool {
	for _, pat := range patterns {
		if rest, ok := strings.CutPrefix(pat, "./"); ok {
			pat = Module + "/" + rest
		}
		if base, ok := strings.CutSuffix(pat, "/..."); ok {
			if path == base || strings.HasPrefix(path, base+"/") {
				return true
			}
		} else if path == pat {
			return true
		}
	}
	return false
}
