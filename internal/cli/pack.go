package cli

import (
	"context"
	"fmt"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
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
bundle is tagged name:version in the local store. The same input gives the same digest, in any folder, on any machine.`,
		Examples: []string{
			"waybill pack                        # the project in this folder",
			"waybill pack models/churn --tag 1.4.0-rc1",
			"waybill pack --without-source       # leave the model as trained out of the bundle",
		},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "tag", Usage: "`TAG` in the local store instead of the version"},
			&ucli.BoolFlag{Name: "without-source", Usage: "leave the model as trained out of the bundle"},
			&ucli.BoolFlag{Name: "dry-run", Usage: "do everything but write to the store"},
		},
		Exits: []diag.Code{diag.Unsupported, diag.NotFound},
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
	p, err := project.Load(dir)
	if err != nil {
		return err
	}
	c.UI.Say("%s %s  from %s", c.UI.Err.Bold(p.Name), p.Version, p.File)
	in, err := build.Read(ctx, p)
	if err != nil {
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
	if c.Bool("dry-run") {
		out.Seconds = c.Env.Now().Sub(start).Seconds()
		if c.UI.JSON {
			return c.UI.PrintJSON(out)
		}
		c.UI.Field("bundle", "not written (--dry-run)")
		return nil
	}
	st, err := c.openStore(ctx, true)
	if err != nil {
		return err
	}
	defer st.Close()
	clock = c.Env.Now()
	o := build.PackOptions{WithoutSource: c.Bool("without-source"), Tag: c.String("tag")}
	packed, err := build.Pack(ctx, in, m, rec.Doc(), st, o)
	if err != nil {
		return err
	}
	c.UI.Field("bundle", "%s, %s, hashed once   %s", ui.Plural(packed.Files, "file"), ui.Bytes(packed.Bytes), ui.Duration(c.Env.Now().Sub(clock)))
	c.UI.Field("tagged", "%s", packed.Ref)
	out.Ref, out.Tag, out.Digest = p.Name+"@"+string(packed.Digest), packed.Ref, string(packed.Digest)
	out.Files, out.Bytes, out.Seconds = packed.Files, packed.Bytes, c.Env.Now().Sub(start).Round(time.Microsecond).Seconds()
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	c.UI.Data("%s", out.Ref)
	return nil
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
