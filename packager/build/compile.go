package build

import (
	"context"
	"errors"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/features"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/pass"
	"github.com/waybill-ml/waybill/packager/plan"
	"github.com/waybill-ml/waybill/packager/project"
)

// Options of Compile.
type Options struct {
	Name    string // of the model, for the interface document
	Version string
	State   []project.State     // streaming state that the file does not know of itself
	Files   map[string][]byte   // the files that State names
	Dims    []project.DimBound  // largest sizes of symbolic dims
	Columns []string            // names of the columns of the only two-dimensional input
	Mapping *project.FeatureMap // compiled in front of the model; nil for none
	Limits  artifact.Limits
	Codegen codegen.Options
	// Watch is told of the graph as imported (round 0, no name) and of each pass; nil for nobody.
	Watch pass.Watch
}

// Model is a compiled model in memory.
type Model struct {
	Module
	Source   ir.Graph  // the graph as imported: what the reference interpreter runs
	Final    *ir.Graph // the graph after the passes: what was compiled
	Kind     string    // "ONNX, opset 17"
	Producer string
	Imported int            // nodes as imported
	Compiled int            // nodes after the passes
	Notes    []codegen.Note // what the compiler did to single nodes
	Plan     *plan.Map      // where values lie in the arena
}

// Compile turns a model file into a module and its interface document. Errors are *diag.Error; what the compiler lacks
// has code Unsupported.
func Compile(ctx context.Context, s Source, o Options) (*Model, error) {
	oracle, err := Import(s)
	if err != nil {
		return nil, err
	}
	g, err := Import(s) // the passes change their graph; the oracle must see the one that was read
	if err != nil {
		return nil, err
	}
	if o.Mapping != nil {
		for _, x := range []*ir.Graph{oracle, g} {
			if err := features.Apply(x, o.Mapping); err != nil {
				return nil, err
			}
		}
	}
	for _, x := range []*ir.Graph{oracle, g} {
		if err := setBounds(x, o.Dims); err != nil {
			return nil, err
		}
		if err := setState(x, o.State, o.Files); err != nil {
			return nil, err
		}
	}
	m := &Model{Source: *oracle, Kind: Kind(g), Producer: g.Producer, Imported: Nodes(g)}
	if o.Watch != nil {
		o.Watch(0, "", true, g)
	}
	if err := pass.RunWatched(ctx, g, o.Watch); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, modelError(s.Path, err)
	}
	m.Final, m.Compiled = g, Nodes(g)
	c, err := codegen.Compile(g, o.Codegen)
	if err != nil {
		var u *codegen.Unsupported
		if errors.As(err, &u) {
			return nil, diag.Wrap(diag.Unsupported, err, "compile %s", s.Path).Hint("replace %s in the model, or leave that part out of the export", u.Op)
		}
		return nil, modelError(s.Path, err)
	}
	m.Notes, m.Plan = c.Notes, c.Memory
	m.Module = Module{Interface: makeInterface(o.Name, o.Version, g, c), Code: c.Module, Weights: c.Weights}
	m.Interface.Limits = o.Limits
	columns := o.Columns
	if len(columns) == 0 {
		columns = g.Columns
	}
	if err := SetColumns(m.Interface, columns); err != nil {
		return nil, diag.Wrap(diag.Usage, err, "features")
	}
	return m, nil
}
