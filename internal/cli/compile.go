package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/explain"
	"github.com/waybill-ml/waybill/packager/project"
)

func compileCommand() Command {
	return Command{
		Name: "compile", Group: Build, Summary: "compile a model to WebAssembly files, without a project or a bundle",
		Args: "MODEL", Min: 1, Max: 1,
		Long: `Writes module.wasm, interface.json and, for large models, weights.bin into a folder. It is for a look at the result
and for hosts of your own; use waybill pack for what is to be shipped.

With --explain it also says what the compiler did: the graph after each pass that changed it (long constants left out),
how long values are held, where in memory they lie, and the operations and bytes of each node. Sizes that a call
decides are formulas over the names of the dimensions; "?" is what only the data decides. The picture has the memory
plan below the graph.`,
		Examples: []string{
			"waybill compile model.onnx                  # into ./model.wasm.d",
			"waybill compile model.onnx --out build/",
			"waybill compile model.onnx --explain --explain-svg graph.svg",
		},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "out", Usage: "`FOLDER` to write to (default: the model's name with .wasm.d)"},
			&ucli.BoolFlag{Name: "inline-weights", Usage: "keep all constants in the module, however large"},
			&ucli.BoolFlag{Name: "explain", Usage: "print the graph after each pass, memory, operations and bytes"},
			&ucli.StringFlag{Name: "explain-svg", Usage: "`FILE` to draw the compiled graph into, as SVG"},
			dryRunFlag(),
		},
		Exits: []diag.Code{diag.Unsupported, diag.NotFound},
		See:   []string{"pack", "test"},
		Run:   runCompile,
	}
}

type compileJSON struct {
	Schema    string              `json:"schema"`
	Folder    string              `json:"folder"`
	Files     []artifact.FileRef  `json:"files"`
	Kind      string              `json:"kind"`
	Nodes     packNodes           `json:"nodes"`
	Interface *artifact.Interface `json:"interface"`
	Explain   *explain.Report     `json:"explain,omitempty"`
}

func runCompile(ctx context.Context, c *Call) error {
	path := c.Abs(c.Args[0])
	src, err := build.OpenSource(ctx, path)
	if err != nil {
		return err
	}
	o := build.Options{Name: project.NameFor(path), Version: "0"}
	if c.Bool("inline-weights") {
		o.Codegen = codegen.Options{WeightsAbove: -1}
	}
	var rec explain.Recorder
	if c.Bool("explain") {
		o.Watch = rec.Watch
	}
	clock := c.Env.Now()
	m, err := build.Compile(ctx, src, o)
	if err != nil {
		return err
	}
	took := c.Env.Now().Sub(clock)
	if err := ctx.Err(); err != nil {
		return err
	}
	dir := c.Abs(c.String("out"))
	if dir == "" {
		base := filepath.Base(path)
		dir = c.Abs(strings.TrimSuffix(base, filepath.Ext(base)) + ".wasm.d")
	}
	if !c.Bool("dry-run") {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return diag.Wrap(diag.Failure, err, "compile")
		}
	}
	doc, err := artifact.Canonical(m.Interface)
	if err != nil {
		return err
	}
	out := compileJSON{Schema: schemaBase + "compile/v1", Folder: dir, Files: []artifact.FileRef{}, Kind: m.Kind, Nodes: packNodes{m.Imported, m.Compiled}, Interface: m.Interface}
	for _, f := range []struct {
		name string
		data []byte
	}{{"module.wasm", m.Code}, {"weights.bin", m.Weights}, {"interface.json", doc}} {
		if f.data == nil {
			continue
		}
		if c.dry(filepath.Join(dir, f.name), f.data) {
			// only told
		} else if err := writeFile(filepath.Join(dir, f.name), f.data, true); err != nil {
			return diag.Wrap(diag.Failure, err, "compile")
		}
		out.Files = append(out.Files, artifact.FileRef{Path: f.name, Digest: artifact.DigestOf(f.data), Size: int64(len(f.data))})
	}
	if name := c.String("explain-svg"); name != "" {
		var b bytes.Buffer
		if err := explain.SVG(&b, m.Final, m.Plan); err != nil {
			return diag.Wrap(diag.Failure, err, "draw the graph")
		}
		if c.dry(name, b.Bytes()) {
			// only told
		} else if err := writeFile(c.Abs(name), b.Bytes(), true); err != nil {
			return diag.Wrap(diag.Failure, err, "draw the graph")
		}
	}
	if c.Bool("explain") {
		out.Explain = rec.Report(m.Final, int64(m.Interface.Memory.Arena), m.Plan)
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	c.UI.Field("model", "%s  %s   %d nodes -> %d after passes", c.Args[0], m.Kind, m.Imported, m.Compiled)
	c.UI.Field("compiled", "module %s, weights %s   %s", ui.Bytes(int64(len(m.Code))), ui.Bytes(int64(len(m.Weights))), ui.Duration(took))
	for _, n := range m.Notes {
		c.UI.Why("  %s (%s): %s", n.Node, n.Op, n.Text)
	}
	if out.Explain != nil {
		var b strings.Builder
		if err := out.Explain.Text(&b); err != nil {
			return err
		}
		c.UI.Data("%s", strings.TrimSuffix(b.String(), "\n"))
	}
	for _, f := range out.Files {
		c.UI.Data("%s  %s", f.Digest, filepath.Join(dir, f.Path))
	}
	return nil
}
