package cli

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/ir"
)

// maxDiffSource is how large a model as trained may be for a comparison of operators, which downloads it.
const maxDiffSource = 256 << 20

// operators counts the nodes of a graph by operator, those of inner regions included.
func operators(g *ir.Graph) map[string]int {
	ops := map[string]int{}
	_ = ir.Walk(g.Body, func(_ *ir.Region, n *ir.Node) error { ops[n.Op]++; return nil }) // the callback never fails
	return ops
}

// sourceOperators reads the model as trained out of an artifact. nil: it is not there, is large, or cannot be read.
func sourceOperators(ctx context.Context, p blobReader, m *artifact.Model) (map[string]int, error) {
	layers := m.ByRole(artifact.RoleSource)
	var total int64
	for _, l := range layers {
		total += l.Size
	}
	if len(layers) == 0 || total > maxDiffSource {
		return nil, nil
	}
	dir, err := os.MkdirTemp("", "waybill-diff-*")
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "diff")
	}
	defer os.RemoveAll(dir)
	file := ""
	for _, l := range layers {
		b, err := registry.ReadBlob(ctx, p, l.Descriptor(), maxDiffSource)
		if err != nil {
			if _, kept := p.(*registry.Opened); kept && diag.CodeOf(err) == diag.Failure {
				return nil, nil // a saved file is read once, and what is large is not kept
			}
			return nil, err
		}
		name := filepath.Join(dir, filepath.FromSlash(l.Path)) // ParseModel refuses paths that lead out
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			return nil, diag.Wrap(diag.Failure, err, "diff")
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			return nil, diag.Wrap(diag.Failure, err, "diff")
		}
		if file == "" && slices.Contains(build.ModelExts(), filepath.Ext(name)) {
			file = name
		}
	}
	if file == "" {
		return nil, nil
	}
	src, err := build.OpenSource(ctx, file)
	if err != nil {
		return nil, ctx.Err()
	}
	g, err := build.Import(src)
	if err != nil {
		return nil, ctx.Err() // compiled by an older version, perhaps
	}
	return operators(g), nil
}
