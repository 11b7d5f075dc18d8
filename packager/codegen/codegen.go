// Package codegen compiles a verified ir.Graph to a WebAssembly module that speaks the ABI of docs/abi.md and computes
// with the arithmetic of docs/numerics.md. Each node becomes one or more records of a program in the data
// segment; a small machine walks them and calls shape-parameterised kernels (packager/codegen/kernel), of which the module
// holds those that the program uses. The output is a function of graph and options alone, byte for byte.
package codegen

import (
	"fmt"

	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/plan"
)

// Options steer Compile. The zero value is the default.
type Options struct {
	// WeightsAbove is the number of constant bytes above which constants go to the weights image; 0 means
	// DefaultWeightsAbove, negative never.
	WeightsAbove int64
	// Parallel lets big kernels announce parallel sections; without it they are only sliced. Kernels over packed weights have
	// one scratch and are always only sliced.
	Parallel bool
	// ParallelMin is the least work (budget units) of a parallel section; 0 means 16 default budgets.
	ParallelMin int64
	// UnitMost is the most that one unit of work may charge (budget units): longer lines and rows are cut into pieces; 0 means a
	// quarter of the default budget. It does not change a bit of any output.
	UnitMost int64
}

// DefaultWeightsAbove is the size of constants above which a weights image is made.
const DefaultWeightsAbove = 1 << 20

// Result is a compiled graph.
type Result struct {
	Module []byte
	// Weights is the weights image, a multiple of abi.PageSize, tensors aligned to abi.TensorLine; nil when the
	// constants are in the module's data segment. It is mapped at WeightsBase.
	Weights     []byte
	WeightsBase uint32
	// Nodes are the names that error records refer to; entry 0 stands for the binding of inputs.
	Nodes []string
	// HeapBase is the first address that the host may use, CtxSize the size of a context block.
	HeapBase uint32
	CtxSize  uint32
	// ArenaHint is an arena size with which an inference of static shape needs no need-memory; dynamic values come on top.
	ArenaHint uint32
	// Memory tells where the values of known size lie in the arena.
	Memory *plan.Map
	// Notes tell what was done to single nodes (packed weights, table sizes), for inspect.
	Notes []Note
}

// Note is a remark about a node.
type Note struct{ Node, Op, Text string }

// Unsupported says that the compiler lacks an operator or a variant of it.
type Unsupported struct {
	Op     string
	Node   string
	Reason string
}

// Error names op, node and reason.
func (e *Unsupported) Error() string {
	return fmt.Sprintf("operator %s (node %q) is not supported: %s", e.Op, e.Node, e.Reason)
}

func unsupported(n *ir.Node, format string, args ...any) error {
	return &Unsupported{Op: n.Op, Node: n.Name, Reason: fmt.Sprintf(format, args...)}
}
