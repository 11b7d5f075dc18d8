package build

import (
	"context"

	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// interpret runs the reference interpreter on the graph as it was imported, before any pass.
func interpret(ctx context.Context, g *ir.Graph, ins map[string]*ir.Val) (map[string]*ir.Val, error) {
	return interp.Run(ctx, g, ins)
}
