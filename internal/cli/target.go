package cli

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/project"
)

// target is something that can be run: a model file or a project, compiled now, or an artifact.
type target struct {
	build.Module
	Name   string // for people: path or reference
	Digest artifact.Digest
	Golden *artifact.Golden // of an artifact that has one
	Input  *build.Input     // of a project
	Model  *build.Model     // of a file or project
}

// openTarget finds what arg names: a model file, a project (folder or waybill.yaml), else a reference. "" is the project
// in the working directory.
func openTarget(ctx context.Context, c *Call, arg string) (*target, error) {
	if arg == "" {
		if _, err := os.Stat(c.Abs(project.FileName)); err != nil {
			return nil, diag.New(diag.Usage, "%s: no MODEL, project or REF given, and there is no %s here", c.Path, project.FileName).
				Hint("waybill %s model.onnx", c.Path)
		}
		return openProject(ctx, c, c.Env.Dir)
	}
	info, err := os.Stat(c.Abs(arg))
	switch {
	case err == nil && info.IsDir():
		if _, err := os.Stat(filepath.Join(c.Abs(arg), project.FileName)); err == nil {
			return openProject(ctx, c, c.Abs(arg))
		}
		return openFile(ctx, build.ModelIn(c.Abs(arg)), arg)
	case err == nil && filepath.Base(arg) == project.FileName:
		return openProject(ctx, c, c.Abs(arg))
	case err == nil:
		return openFile(ctx, c.Abs(arg), arg)
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) && filepath.Ext(arg) == ".onnx":
		return nil, diag.Wrap(diag.Failure, err, "open %s", arg)
	case filepath.Ext(arg) == ".onnx":
		return nil, diag.New(diag.NotFound, "model %s does not exist", arg)
	}
	return openRef(ctx, c, arg)
}

func openFile(ctx context.Context, path, name string) (*target, error) {
	src, err := build.OpenSource(ctx, path)
	if err != nil {
		return nil, err
	}
	m, err := build.Compile(ctx, src, build.Options{Name: project.NameFor(path), Version: "0"})
	if err != nil {
		return nil, err
	}
	return &target{Module: m.Module, Name: name, Model: m}, nil
}

func openProject(ctx context.Context, c *Call, dir string) (*target, error) {
	p, err := project.Load(dir)
	if err != nil {
		return nil, err
	}
	if !p.Compile {
		return nil, notCompiled(c, p.Name+" "+p.Version).Hint("waybill pack --dry-run")
	}
	in, err := build.Read(ctx, p)
	if err != nil {
		return nil, err
	}
	m, err := in.Compile(ctx, codegen.Options{})
	if err != nil {
		return nil, err
	}
	if err := checkSteps(ctx, in, m); err != nil {
		return nil, err
	}
	return &target{Module: m.Module, Name: p.Name + " " + p.Version, Input: in, Model: m}, nil
}

func openRef(ctx context.Context, c *Call, arg string) (*target, error) {
	ref, err := registry.ParseRef(arg)
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "%q is neither a file nor a reference", arg)
	}
	place, err := c.place(ctx, ref)
	if err != nil {
		return nil, err
	}
	defer place.Close()
	m, d, err := registry.ReadModel(ctx, place, ref.Target())
	if err != nil {
		return nil, err
	}
	if !m.Compiled() {
		return nil, notCompiled(c, arg).Hint("waybill pull %s --out DIR", arg)
	}
	t := &target{Name: arg, Digest: d.Digest}
	read := func(l artifact.Layer, limit int64) ([]byte, error) {
		return registry.ReadBlob(ctx, place, l.Descriptor(), limit)
	}
	il, err := m.One(artifact.RoleInterface)
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "%s", arg)
	}
	b, err := read(il, artifact.MaxInterface)
	if err != nil {
		return nil, err
	}
	if t.Interface, err = build.ParseInterface(b); err != nil {
		return nil, diag.Wrap(diag.Failure, err, "%s", arg)
	}
	ml, err := m.Module(artifact.TargetAny)
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "%s", arg)
	}
	if t.Code, err = read(ml, build.MaxModel); err != nil {
		return nil, err
	}
	for _, l := range m.ByRole(artifact.RoleWeights) {
		if t.Weights, err = read(l, 4<<30); err != nil {
			return nil, err
		}
	}
	for _, l := range m.ByRole(artifact.RoleStep) {
		if b, err = read(l, build.MaxModel); err != nil {
			return nil, err
		}
		t.Steps = append(t.Steps, build.StepFile{Path: l.Path, Code: b})
	}
	for _, l := range m.ByRole(artifact.RoleGolden) {
		if b, err = read(l, artifact.MaxGolden); err != nil {
			return nil, err
		}
		if t.Golden, err = build.ParseGolden(b); err != nil {
			return nil, diag.Wrap(diag.Failure, err, "%s", arg)
		}
	}
	return t, nil
}

// notCompiled refuses what needs a module to run.
func notCompiled(c *Call, what string) *diag.Error {
	return diag.New(diag.Unsupported, "%s: %s was bundled as it is (compile: false): it has no module to run", c.Path, what).
		Line("its files are for the program that loads them")
}
