package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/spdx"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/project"
)

func initCommand() Command {
	return Command{
		Name: "init", Group: Build, Summary: "start a project: write waybill.yaml by looking at a model",
		Args: "MODEL", Min: 1, Max: 1,
		Long: `Reads the model, checks that the compiler can take it, and writes waybill.yaml into the model's folder with its
name, version, license and inputs and outputs as comments. Edit it, add golden vectors, then run waybill pack.`,
		Examples: []string{
			"waybill init model.onnx",
			"waybill init models/churn.onnx --name churn --version 1.0.0 --license Apache-2.0",
		},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "name", Usage: "`NAME` of the model; by default made from the file's name"},
			&ucli.StringFlag{Name: "version", Value: "0.1.0", Usage: "`VERSION` of the model"},
			&ucli.StringFlag{Name: "license", Value: "LicenseRef-undeclared", Usage: "SPDX `EXPRESSION`"},
			&ucli.BoolFlag{Name: "force", Usage: "overwrite an existing waybill.yaml"},
			dryRunFlag(),
		},
		Exits: []diag.Code{diag.Unsupported, diag.NotFound},
		See:   []string{"pack"},
		Run:   runInit,
	}
}

type initJSON struct {
	Schema  string   `json:"schema"`
	File    string   `json:"file"`
	Name    string   `json:"name"`
	Version string   `json:"version"`
	License string   `json:"license"`
	Model   string   `json:"model"`
	Golden  string   `json:"golden"`
	Kind    string   `json:"kind"`
	Inputs  []string `json:"inputs"`
	Outputs []string `json:"outputs"`
}

func runInit(ctx context.Context, c *Call) error {
	model := c.Abs(c.Args[0])
	dir := filepath.Dir(model)
	name := c.String("name")
	if name == "" {
		name = project.NameFor(model)
	}
	if err := project.CheckName(name); err != nil {
		return diag.Wrap(diag.Usage, err, "--name")
	}
	if err := project.CheckVersion(c.String("version")); err != nil {
		return diag.Wrap(diag.Usage, err, "--version")
	}
	license, err := spdx.Canonical(c.String("license"))
	if err != nil {
		return diag.Wrap(diag.Usage, err, "--license")
	}
	file := filepath.Join(dir, project.FileName)
	if _, err := os.Lstat(file); err == nil && !c.Bool("force") {
		return diag.New(diag.Usage, "%s exists", file).Hint("waybill init %s --force", c.Args[0])
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return diag.Wrap(diag.Failure, err, "init")
	}
	src, err := build.OpenSource(ctx, model)
	if err != nil {
		return err
	}
	g, err := build.Import(src)
	if err != nil {
		return err
	}
	golden := ""
	if _, err := os.Stat(filepath.Join(dir, "golden.json")); err == nil {
		golden = "golden.json"
	}
	out := initJSON{
		Schema: schemaBase + "init/v1", File: file, Name: name, Version: c.String("version"), License: license,
		Model: filepath.Base(model), Golden: golden, Kind: build.Kind(g),
	}
	out.Inputs, out.Outputs = build.Ports(g)
	text := project.Init(out.Name, out.Version, out.License, out.Model, golden, project.Facts{Kind: out.Kind, Inputs: out.Inputs, Outputs: out.Outputs})
	if _, err := project.Parse(project.FileName, []byte(text)); err != nil {
		return diag.Wrap(diag.Usage, err, "init: the file name %q does not fit into %s", out.Model, project.FileName)
	}
	if c.dry(file, []byte(text)) {
		c.UI.Say("%s", strings.TrimRight(text, "\n"))
	} else if err := writeFile(file, []byte(text), c.Bool("force")); err != nil {
		return diag.Wrap(diag.Failure, err, "init")
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(out)
	}
	c.UI.Say("%s %s  from %s", out.Name, out.Version, out.Model)
	c.UI.Field("model", "%s, %d nodes", out.Kind, build.Nodes(g))
	for _, p := range out.Inputs {
		c.UI.Field("input", "%s", p)
	}
	for _, p := range out.Outputs {
		c.UI.Field("output", "%s", p)
	}
	if golden == "" {
		c.UI.Field("next", "add golden vectors to %s, then: waybill pack", project.FileName)
	} else {
		c.UI.Field("next", "waybill pack")
	}
	c.UI.Data("%s", file)
	return nil
}

// writeFile writes a file in one step: a reader sees the old content or the new one, and a failure leaves no part of it.
// Without overwrite an existing file is an error, also one that appeared just now.
func writeFile(name string, b []byte, overwrite bool) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(b); err != nil {
		return err
	}
	if err = f.Chmod(0o644); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if overwrite {
		return os.Rename(f.Name(), name)
	}
	if err = os.Link(f.Name(), name); err == nil {
		return os.Remove(f.Name())
	}
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Rename(f.Name(), name) // a file system without hard links
}
