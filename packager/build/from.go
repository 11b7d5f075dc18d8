package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/lineage"
	"github.com/waybill-ml/waybill/packager/project"
	"github.com/waybill-ml/waybill/packager/screen"
)

// Named are what a project without a file of its own is called.
type Named struct{ Name, Version, License string }

// maxStaged bounds one file of a folder that comes from elsewhere.
const maxStaged = 1 << 40

// Stage writes a project into the empty folder dir: the model that m has, and beside it the files of the project that p names,
// or, without p, a project file of its own. The files that were read are added to m.Files with their digests.
func Stage(ctx context.Context, m *lineage.Model, p *project.Project, n Named, dir string) error {
	model := path.Base(m.Entry)
	if p != nil {
		if p.Compile == (m.Folder != nil) {
			return diag.New(diag.Usage, "%s has compile: %v, and %s gives %s", p.File, p.Compile, m.System, map[bool]string{true: "a folder", false: "one file"}[m.Folder != nil]).At(p.Model.Loc)
		}
		model = p.Model.Path
		if err := copyProject(ctx, p, dir); err != nil {
			return err
		}
	} else if err := writeProject(dir, model, m, n); err != nil {
		return err
	}
	at := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	for _, name := range m.Folder {
		if err := stage(ctx, m, name, at(path.Join(model, strings.TrimPrefix(name, m.Entry+"/"))), maxStaged); err != nil {
			return err
		}
	}
	if m.Folder != nil {
		return nil
	}
	if err := stage(ctx, m, m.Entry, at(model), MaxModel); err != nil {
		return err
	}
	src, err := OpenSource(ctx, at(model))
	if err != nil {
		return err
	}
	for _, e := range Beside(src) {
		err := stage(ctx, m, path.Join(path.Dir(m.Entry), e), at(path.Join(path.Dir(model), e)), maxStaged)
		if errors.Is(err, fs.ErrNotExist) {
			continue // the compiler says what is wrong with it
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stage copies one file of m, unless it is a pointer of Git LFS.
func stage(ctx context.Context, m *lineage.Model, name, file string, limit int64) error {
	if err := artifact.CheckPath(name); err != nil {
		return diag.Wrap(diag.Usage, err, "%s", m.System)
	}
	r, err := m.Tree.Open(ctx, name)
	if err != nil {
		var d *diag.Error
		switch {
		case errors.As(err, &d):
			return err
		case errors.Is(err, fs.ErrNotExist):
			return diag.Wrap(diag.NotFound, err, "%s does not exist", name)
		}
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer r.Close()
	f, err := lineage.Copy(ctx, file, r, limit)
	if errors.Is(err, lineage.ErrTooLarge) {
		return diag.Wrap(diag.Unsupported, err, "%s", name)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	in, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	defer in.Close()
	head := make([]byte, 256)
	k, _ := in.Read(head) // too little is no pointer
	if screen.Pointer(head[:k]) {
		return diag.New(diag.Usage, "%s is a Git LFS pointer, not the file itself", name).Hint("%s", m.Tree.Pull(name))
	}
	f.Path = name
	if !m.MD5 {
		f.MD5 = ""
	}
	m.Files = append(m.Files, f)
	return nil
}

// copyProject copies the project file and what it names, but the model.
func copyProject(ctx context.Context, p *project.Project, dir string) error {
	names := []string{p.File}
	for _, f := range p.Files() {
		inside := f.Path == p.Model.Path || !p.Compile && strings.HasPrefix(f.Path, p.Model.Path+"/")
		if !inside && !slices.Contains(names, f.Path) {
			names = append(names, f.Path)
		}
	}
	for _, name := range names {
		f, err := p.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // who loads the project says where it is named
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		_, err = lineage.Copy(ctx, filepath.Join(dir, filepath.FromSlash(name)), f, maxStaged)
		_ = f.Close() // only read
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
	}
	return nil
}

// writeProject writes the project file of a model that comes without one.
func writeProject(dir, model string, m *lineage.Model, n Named) error {
	q := func(s string) string { b, _ := json.Marshal(s); return string(b) } // a string always encodes; JSON is YAML
	text := fmt.Sprintf("name: %s\nversion: %s\nlicense: %s\nmodel: %s\n", q(n.Name), q(n.Version), q(n.License), q(model))
	if m.Folder != nil {
		text += "compile: false\n"
	}
	if err := os.WriteFile(filepath.Join(dir, project.FileName), []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the project: %w", err)
	}
	return nil
}

// CheckSignature holds what callers were promised against the inputs that the model has. nil promises nothing.
func (in *Input) CheckSignature(s *lineage.Signature) error {
	if s == nil {
		return nil
	}
	g, err := Import(in.Source)
	if err != nil {
		return err
	}
	if err := fits(s, g.Body.Params); err != nil {
		ins, _ := Ports(g)
		return diag.Wrap(diag.Verification, err, "the signature does not fit the model").Line("the model takes %s", strings.Join(ins, ", ")).
			Hint("log the model again with a signature made from what it takes: mlflow.models.infer_signature(inputs, outputs)")
	}
	return nil
}

// numpy gives our names of numpy's types.
var numpy = map[string]string{
	"float16": "f16", "float32": "f32", "float64": "f64", "int8": "i8", "int16": "i16", "int32": "i32", "int64": "i64", "uint8": "u8",
	"uint16": "u16", "uint32": "u32", "uint64": "u64", "bool": "bool", "str": "string", "object": "string",
}

func fits(s *lineage.Signature, params []*ir.Value) error {
	ports := make([]artifact.Port, len(params))
	names := make([]string, len(params))
	for i, v := range params {
		ports[i], names[i] = port(v.Name, v.Type), v.Name
	}
	find := func(name string) *artifact.Port {
		if i := slices.Index(names, name); i >= 0 {
			return &ports[i]
		}
		return nil
	}
	if len(s.Columns) > 0 {
		return fitColumns(s.Columns, ports, find)
	}
	if len(s.Tensors) != len(ports) {
		return fmt.Errorf("it has %d inputs, and the model %d", len(s.Tensors), len(ports))
	}
	for _, t := range s.Tensors {
		p := find(t.Name)
		if p == nil && t.Name == "" && len(ports) == 1 {
			p = &ports[0]
		}
		if p == nil {
			return fmt.Errorf("the model has no input %q", t.Name)
		}
		want, ok := numpy[t.DType]
		if !ok && strings.HasPrefix(t.DType, "<U") {
			want = "string"
		}
		if want != p.DType || p.Kind != "tensor" {
			return fmt.Errorf("input %q is of %s", p.Name, t.DType)
		}
		if !p.Ranked {
			continue
		}
		if len(t.Shape) != len(p.Shape) {
			return fmt.Errorf("input %q has %d dimensions", p.Name, len(t.Shape))
		}
		for i, d := range p.Shape {
			if d.Size >= 0 && t.Shape[i] != d.Size {
				return fmt.Errorf("dimension %d of input %q is %s", i, p.Name, map[bool]string{true: "of any size", false: fmt.Sprint(t.Shape[i])}[t.Shape[i] < 0])
			}
		}
	}
	return nil
}

// fitColumns knows the two ways in which a table becomes tensors: each column is an input, or all are the columns of the only one.
func fitColumns(columns []lineage.ColumnSpec, ports []artifact.Port, find func(string) *artifact.Port) error {
	text := func(c lineage.ColumnSpec) bool {
		return c.Type == "string" || c.Type == "binary" || c.Type == "datetime"
	}
	if len(ports) == 1 && (len(columns) > 1 || find(columns[0].Name) == nil) {
		p := ports[0]
		for _, c := range columns {
			if text(c) != (p.DType == "string") {
				return fmt.Errorf("column %q is of %s, and the model takes %s", c.Name, c.Type, p.DType)
			}
		}
		if !p.Ranked || len(p.Shape) != 2 {
			if p.Ranked {
				return fmt.Errorf("it has columns, and input %q of the model has %d dimensions", p.Name, len(p.Shape))
			}
			return nil
		}
		if n := p.Shape[1].Size; n >= 0 && n != int64(len(columns)) {
			return fmt.Errorf("it has %d columns, and the model takes %d", len(columns), n)
		}
		return nil
	}
	for _, c := range columns {
		p := find(c.Name)
		switch {
		case p == nil && c.Required:
			return fmt.Errorf("the model has no input %q", c.Name)
		case p != nil && text(c) != (p.DType == "string"):
			return fmt.Errorf("column %q is of %s, and the model takes %s", c.Name, c.Type, p.DType)
		}
	}
	for _, p := range ports {
		if !slices.ContainsFunc(columns, func(c lineage.ColumnSpec) bool { return c.Name == p.Name }) {
			return fmt.Errorf("it has no column for the model's input %q", p.Name)
		}
	}
	return nil
}
