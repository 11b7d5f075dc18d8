package cli

import (
	"context"
	"fmt"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/project"
)

func packCommand() Command {
	return Command{
		Name: "pack", Group: Build, Summary: "compile a project and bundle it as an artifact in the local store",
		Args: "[PROJECT]", Max: 1,
		Long: `Reads waybill.yaml, compiles the model, runs the golden vectors through the compiled module, and compares the answers
bit for bit with the reference interpreter and within a tolerance with the framework that trained the model. The
bundle is tagged name:version in the local store. The same input gives the same digest, in any folder, on any machine.
With compile: false in waybill.yaml the files of the model, a GGUF, safetensors, a TensorRT engine or a whole folder, are
bundled as they are: nothing runs them here, and no device will, but signing, the gate and transfer are the same. A Python
pickle, whatever it is wrapped in, is refused unless allow_pickle names it, and a Git LFS pointer always.
With --from the model is fetched from where it was approved or is tracked (docs/lineage.md), checked, and put where
waybill.yaml names it; without a waybill.yaml, --name, --version and --license say the rest. What is known of it there goes
into provenance and bill of materials. Nothing but the local store is written.`,
		Examples: []string{
			"waybill pack                        # the project in this folder",
			"waybill pack models/churn --tag 1.4.0-rc1",
			"waybill pack --without-source       # leave the model as trained out of the bundle",
			"waybill pack --check sha256:7c1f... # does this project still give that digest?",
			"waybill pack --from mlflow:./model --version 1.2.0",
		},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "tag", Usage: "`TAG` in the local store instead of the version"},
			&ucli.BoolFlag{Name: "without-source", Usage: "leave the model as trained out of the bundle"},
			&ucli.BoolFlag{Name: "dry-run", Usage: "do everything but write to the store"},
			fromFlag(),
			&ucli.StringFlag{Name: "name", Usage: "with --from and no waybill.yaml: `NAME` of the model"},
			&ucli.StringFlag{Name: "version", Usage: "likewise: `VERSION`"},
			&ucli.StringFlag{Name: "license", Usage: "likewise: SPDX `EXPRESSION`; LicenseRef-undeclared without it"},
			&ucli.StringFlag{Name: "check", Usage: "write nothing, and fail unless the project gives this `DIGEST` of a manifest"},
		},
		Exits: []diag.Code{diag.Verification, diag.Denied, diag.Unsupported, diag.Registry, diag.NotFound},
		See:   []string{"init", "test", "sign", "push"},
		Run:   runPack,
	}
}

type packJSON struct {
	Schema     string           `json:"schema"`
	Name       string           `json:"name"`
	Version    string           `json:"version"`
	Ref        string           `json:"ref"`    // name@digest; empty after --dry-run
	Tag        string           `json:"tag"`    // name:tag
	Digest     string           `json:"digest"` // of the manifest
	Kind       string           `json:"kind"`
	Nodes      packNodes        `json:"nodes"`
	Module     int              `json:"module_bytes"`
	Weights    int              `json:"weights_bytes"`
	Files      int              `json:"files"`
	Bytes      int64            `json:"bytes"`
	Golden     packGolden       `json:"golden"`
	Seconds    float64          `json:"seconds"`
	Comparison []packComparison `json:"comparison"`
	Compiled   bool             `json:"compiled"`
	Layers     []layerJSON      `json:"layers"`
	LeftOut    []string         `json:"left_out,omitempty"` // files of the model's folder, without compiling
	// Statements are provenance and bill of materials, stored beside the artifact and not signed.
	Statements []notesJSON `json:"statements"`
	// From is where the model came from, with --from.
	From *fromJSON `json:"from,omitempty"`
	// Facts are what the headers of the weights say, without compiling.
	Facts *artifact.ModelConfig `json:"facts,omitempty"`
}

type packNodes struct {
	Imported int `json:"imported"`
	Compiled int `json:"compiled"`
}

type packGolden struct {
	Vectors    int `json:"vectors"`
	References int `json:"references"`
}

type packComparison struct {
	Output string  `json:"output"`
	MaxAbs float64 `json:"max_abs"`
	RTol   float64 `json:"rtol"`
	ATol   float64 `json:"atol"`
}

func runPack(ctx context.Context, c *Call) error {
	start := c.Env.Now()
	dir := c.Env.Dir
	if len(c.Args) == 1 {
		dir = c.Abs(c.Args[0])
	}
	if t := c.String("tag"); t != "" {
		if err := project.CheckVersion(t); err != nil {
			return diag.Wrap(diag.Usage, err, "--tag")
		}
	}
	check, err := checkFlag(c)
	if err != nil {
		return err
	}
	from, err := fetchModel(ctx, c, dir)
	if err != nil {
		return err
	}
	defer from.remove()
	p, err := from.load(dir)
	if err != nil {
		return err
	}
	c.UI.Say("%s %s  from %s", c.UI.Err.Bold(p.Name), p.Version, p.File)
	from.say(c)
	if !p.Compile {
		return packBundle(ctx, c, p, from, check, start)
	}
	in, err := build.Read(ctx, p)
	if err != nil {
		return err
	}
	if err := from.check(in); err != nil {
		return err
	}
	clock := c.Env.Now()
	m, err := in.Compile(ctx, codegen.Options{})
	if err != nil {
		return err
	}
	if err := checkSteps(ctx, in, m); err != nil {
		return err
	}
	producer := ""
	if m.Producer != "" && m.Producer != m.Kind {
		producer = m.Producer + " via "
	}
	c.UI.Field("model", "%s  %s%s   %d nodes -> %d after passes   %s", p.Model.Path, producer, m.Kind, m.Imported, m.Compiled, ui.Bytes(int64(len(in.Source.Data))))
	c.UI.Field("compiled", "module %s, weights %s   %s", ui.Bytes(int64(len(m.Code))), ui.Bytes(int64(len(m.Weights))), ui.Duration(c.Env.Now().Sub(clock)))
	for _, s := range p.Steps {
		when := "before"
		if s.After {
			when = "after"
		}
		what := s.File
		if what == "" {
			what = "built-in"
		}
		c.UI.Field("step", "%s  %s, %s the model", s.Name, what, when)
	}
	for _, n := range m.Notes {
		c.UI.Why("  %s (%s): %s", n.Node, n.Op, n.Text)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	out := packJSON{
		Schema: schemaBase + "pack/v1", Name: p.Name, Version: p.Version, Kind: m.Kind,
		Nodes: packNodes{m.Imported, m.Compiled}, Module: len(m.Code), Weights: len(m.Weights), Comparison: []packComparison{},
		Compiled: true,
	}
	var rec *build.Recorded
	v, err := in.Vectors()
	if err != nil {
		return err
	}
	if v != nil {
		if rec, err = build.Record(ctx, m, v, p.Golden.Tolerance, runner{}); err != nil {
			return err
		}
		out.Golden = packGolden{rec.Vectors, rec.References}
		text := fmt.Sprintf("%s: bit-exact with the interpreter", ui.Plural(rec.Vectors, "vector"))
		for _, w := range rec.Worst {
			t := rec.Tolerance[w.Output]
			out.Comparison = append(out.Comparison, packComparison{w.Output, w.MaxAbs, t.RTol, t.ATol})
		}
		c.UI.Field("golden", "%s", text)
		for _, w := range rec.Worst {
			t := rec.Tolerance[w.Output]
			if t.ATol == 0 && t.RTol == 0 {
				c.UI.Field("", "%s: equal to the framework's own", w.Output)
				continue
			}
			c.UI.Field("", "%s: within %.1e of the framework's own (tolerance %s)", w.Output, w.MaxAbs, tolText(t.ATol, t.RTol))
		}
		if rec.References == 0 {
			c.UI.Warn("no golden vector has the framework's own outputs (reference): a gate may deny it")
		}
		if p.Golden.PersonalData == "" {
			c.UI.Warn("personal_data of the golden vectors is undeclared in %s: a gate may deny it", p.File)
		}
	} else {
		c.UI.Warn("no golden vectors: a device can't prove the model and will refuse it")
	}
	return finishPack(ctx, c, p, from, &out, check, start, func(st build.Store) (*build.Packed, error) {
		return withBar(c, "hashing", func(o build.PackOptions) (*build.Packed, error) { return build.Pack(ctx, in, m, rec.Doc(), st, o) })
	})
}

func tolText(atol, rtol float64) string {
	switch {
	case rtol == 0:
		return fmt.Sprintf("%g", atol)
	case atol == 0:
		return fmt.Sprintf("%g relative", rtol)
	}
	return fmt.Sprintf("%g + %g relative", atol, rtol)
}
