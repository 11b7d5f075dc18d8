// Package pass rewrites graphs: one file per rewrite, and the ordered list here. Passes are deterministic, keep what
// the graph computes bit for bit, and leave a graph that ir.Verify accepts. They do no floating point arithmetic:
// only integer, bool and string constants are folded, and float constants are at most moved.
package pass

import (
	"context"
	"fmt"

	"github.com/waybill-ml/waybill/packager/ir"
)

// Pass is one rewrite. Run changes g in place and reports whether it did.
type Pass struct {
	Name string
	Run  func(ctx context.Context, g *ir.Graph) (bool, error)
}

// Pipeline lists the passes in the order in which they run.
func Pipeline() []Pass {
	return []Pass{
		{"fold", fold},
		{"branch", branch},
		{"identity", identity},
		{"cse", cse},
		{"dce", dce},
	}
}

// maxRounds bounds the repetitions of the pipeline; real graphs settle in three or four.
const maxRounds = 16

// Watch is told of each pass as it ends: the round (from 1), the pass's name, whether it changed the graph, and the
// graph, which it must neither change nor keep.
type Watch func(round int, pass string, changed bool, g *ir.Graph)

// Run repeats the pipeline until nothing changes, and verifies the result.
func Run(ctx context.Context, g *ir.Graph) error { return RunWatched(ctx, g, nil) }

// RunWatched is Run that tells watch of each pass; a nil watch is told nothing.
func RunWatched(ctx context.Context, g *ir.Graph, watch Watch) error {
	for round := 0; round < maxRounds; round++ {
		changed := false
		for _, p := range Pipeline() {
			if err := ctx.Err(); err != nil {
				return err
			}
			c, err := p.Run(ctx, g)
			if err != nil {
				return fmt.Errorf("pass %s: %w", p.Name, err)
			}
			changed = changed || c
			if watch != nil {
				watch(round+1, p.Name, c, g)
			}
		}
		if !changed {
			break
		}
	}
	if err := ir.Verify(g); err != nil {
		return fmt.Errorf("the optimised graph is not consistent: %w", err)
	}
	return nil
}
