package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/spdx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/store"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/lineage"
	"github.com/waybill-ml/waybill/packager/lineage/dvc"
	"github.com/waybill-ml/waybill/packager/lineage/mlflow"
	"github.com/waybill-ml/waybill/packager/lineage/sagemaker"
	"github.com/waybill-ml/waybill/packager/project"
)

func fromFlag() ucli.Flag {
	return &ucli.StringFlag{Name: "from", Usage: "model from `SOURCE`: " + strings.Join(fromForms(), ", ")}
}

// fromForms are what --from takes.
func fromForms() []string {
	return []string{"mlflow:DIR", "models:/NAME/VERSION", "runs:/ID/PATH", "dvc:PATH", "sagemaker-event:FILE"}
}

// fetched is a model that came from elsewhere, with the project that it is packed in. The nil one is no such model: its methods
// do what pack does without --from.
type fetched struct {
	model  *lineage.Model
	root   string // for temporary files, which remove removes
	staged string // folder of the project in it
	file   string // name of the project file in it
	dir    string // of the user's project; "" without one
	from   string
}

type fromJSON struct {
	System  string             `json:"system"`
	URI     string             `json:"uri,omitempty"`
	Facts   map[string]string  `json:"facts"`
	Params  map[string]string  `json:"parameters,omitempty"`
	Metrics map[string]float64 `json:"metrics,omitempty"`
	Files   []fromFileJSON     `json:"files"`
}

type fromFileJSON struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256"`
	MD5    string `json:"md5,omitempty"`
	Size   int64  `json:"size"`
}

// fetchModel fetches what --from names into a project of its own; nil without the flag. dir is where the user's project would be.
func fetchModel(ctx context.Context, c *Call, dir string) (_ *fetched, err error) {
	from := c.String("from")
	if from == "" {
		for _, f := range []string{"name", "version", "license"} {
			if c.IsSet(f) {
				return nil, diag.New(diag.Usage, "--%s is for models that --from brings", f).Hint("write it into %s", project.FileName)
			}
		}
		return nil, nil
	}
	p, err := ownProject(c, dir)
	if err != nil {
		return nil, err
	}
	out := &fetched{from: from, file: project.FileName}
	if out.root, err = os.MkdirTemp("", "waybill-pack-"); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	defer func() {
		if err != nil {
			out.remove()
		}
	}()
	out.staged = filepath.Join(out.root, "project")
	scratch := filepath.Join(out.root, "source")
	for _, d := range []string{out.staged, scratch} {
		if err := os.Mkdir(d, 0o700); err != nil {
			return nil, fmt.Errorf("pack: %w", err)
		}
	}
	m, err := openModel(ctx, c, from, scratch)
	if err != nil {
		return nil, err
	}
	out.model = m
	named := build.Named{}
	if p != nil {
		out.dir, out.file = p.Dir, p.File
	} else if named, err = nameModel(c, m); err != nil {
		return nil, err
	}
	if err := build.Stage(ctx, m, p, named, out.staged); err != nil {
		return nil, err
	}
	if err := m.Check(); err != nil {
		return nil, diag.Wrap(diag.Unsupported, err, "what %s says about the model", m.System)
	}
	return out, nil
}

// ownProject reads the project that the command line names, or the one in its folder; nil when there is none.
func ownProject(c *Call, dir string) (*project.Project, error) {
	if len(c.Args) == 0 {
		if _, err := os.Stat(filepath.Join(dir, project.FileName)); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	p, err := project.Read(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range []string{"name", "version", "license"} {
		if c.IsSet(f) {
			return nil, diag.New(diag.Usage, "--%s: %s says it already", f, p.File).Hint("change it there, or leave --%s out; --tag names the tag in the local store", f)
		}
	}
	return p, nil
}

// nameModel finds name, version and license of a model without a project.
func nameModel(c *Call, m *lineage.Model) (build.Named, error) {
	n := build.Named{Name: c.String("name"), Version: c.String("version"), License: c.String("license")}
	if n.Name == "" {
		n.Name = m.Name
	}
	if n.Version == "" {
		n.Version = m.Version
	}
	if n.License == "" {
		n.License = "LicenseRef-undeclared"
	}
	if n.Version == "" {
		return n, diag.New(diag.Usage, "which version of %s this is, the source does not say", n.Name).
			Hint("waybill pack --from %s --version 1.0.0", lineage.ShellWord(c.String("from")))
	}
	if err := project.CheckName(n.Name); err != nil {
		return n, diag.Wrap(diag.Usage, err, "--name")
	}
	if err := project.CheckVersion(n.Version); err != nil {
		return n, diag.Wrap(diag.Usage, err, "--version")
	}
	var err error
	if n.License, err = spdx.Canonical(n.License); err != nil {
		return n, diag.Wrap(diag.Usage, err, "--license")
	}
	return n, nil
}

// openModel finds the reader for a source. scratch is an empty folder, for what has to be unpacked.
func openModel(ctx context.Context, c *Call, from, scratch string) (*lineage.Model, error) {
	system, rest, ok := strings.Cut(from, ":")
	if ok && rest != "" {
		switch system {
		case "mlflow":
			return mlflow.Folder(ctx, c.Abs(rest), from)
		case "sagemaker-event":
			return sagemaker.Open(ctx, c.Abs(rest), scratch)
		case "dvc":
			return dvc.Open(ctx, c.Abs(rest), from)
		case "models", "runs":
			if !strings.HasPrefix(rest, "/") {
				break
			}
			s, err := mlflow.Connect(c.Env.Getenv)
			if err != nil {
				return nil, err
			}
			return s.Model(ctx, from)
		}
	}
	return nil, diag.New(diag.Usage, "--from: %q is no source", from).Line("sources are %s", strings.Join(fromForms(), ", ")).
		Hint("waybill pack --from mlflow:./model --version 1.0.0")
}

func (f *fetched) remove() {
	if f != nil {
		_ = os.RemoveAll(f.root) // a folder for temporary files: nobody asks for it again
	}
}

func (f *fetched) load(dir string) (*project.Project, error) {
	if f == nil {
		return project.Load(dir)
	}
	return project.Load(filepath.Join(f.staged, f.file))
}

func (f *fetched) say(c *Call) {
	if f == nil {
		return
	}
	m := f.model
	where := m.URI
	if where == "" {
		where = f.from
	}
	c.UI.Field("source", "%s  %s, %s, %s", where, ui.Plural(len(m.Files), "file"), ui.Plural(len(m.Params), "parameter"), ui.Plural(len(m.Metrics), "metric"))
	for _, x := range m.Facts {
		c.UI.Why("  %s %s", x.Name, x.Value)
	}
}

func (f *fetched) check(in *build.Input) error {
	if f == nil {
		return nil
	}
	return in.CheckSignature(f.model.Signature)
}

// store keeps s from referring to files that are removed afterwards.
func (f *fetched) store(s build.Notebook) build.Store {
	if f == nil {
		return s
	}
	return copies{s}
}

type copies struct{ build.Notebook }

func (c copies) Import(ctx context.Context, f fsx.File, path string, o store.ImportOptions) (store.Imported, error) {
	o.How = store.HowCopy
	return c.Notebook.Import(ctx, f, path, o)
}

func (f *fetched) json() *fromJSON {
	if f == nil {
		return nil
	}
	table := func(list []lineage.Fact) map[string]string {
		m := map[string]string{}
		for _, x := range list {
			m[x.Name] = x.Value
		}
		return m
	}
	s := f.model.Source
	out := &fromJSON{System: s.System, URI: s.URI, Facts: table(s.Facts), Params: table(s.Params), Metrics: map[string]float64{}}
	for _, x := range s.Metrics {
		out.Metrics[x.Name] = x.Value
	}
	for _, x := range s.Files {
		out.Files = append(out.Files, fromFileJSON{x.Path, x.SHA256, x.MD5, x.Size})
	}
	return out
}
