package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/frontend/lightgbm"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/frontend/xgboost"
	"github.com/waybill-ml/waybill/packager/ir"
)

// MaxModel bounds a model file, in bytes. It is ONNX's own bound for one protobuf message; larger models keep their
// tensors in files beside it.
const MaxModel = 2 << 30

// Source is a model file that was read once.
type Source struct {
	Path string // for messages, and for the layer's name
	Dir  string // folder of its external data
	Data []byte // never changed after reading: constants of the graph may alias it
}

// ReadSource reads a model from an open file.
func ReadSource(ctx context.Context, path, dir string, f *os.File) (Source, error) {
	info, err := f.Stat()
	if err != nil {
		return Source{}, fmt.Errorf("read model: %w", err)
	}
	if info.IsDir() {
		return Source{}, diag.New(diag.Usage, "read model: %s is a folder", path)
	}
	if info.Size() > MaxModel {
		return Source{}, diag.New(diag.Unsupported, "read model %s: %d bytes are more than %d", path, info.Size(), int64(MaxModel))
	}
	b := make([]byte, 0, info.Size()+1)
	for {
		n, err := f.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil && len(b) > MaxModel {
			err = errors.New("it grows while it is read")
		}
		if err != nil {
			return Source{}, fmt.Errorf("read model %s: %w", path, err)
		}
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
	}
	return Source{Path: path, Dir: dir, Data: b}, nil
}

// OpenSource reads a model file by its path.
func OpenSource(ctx context.Context, path string) (Source, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Source{}, diag.New(diag.NotFound, "model %s does not exist", path)
	}
	if err != nil {
		return Source{}, fmt.Errorf("read model: %w", err)
	}
	defer f.Close()
	return ReadSource(ctx, path, filepath.Dir(path), f)
}

// Import turns a model file into a graph. What is no model that can be compiled is a *diag.Error: code Unsupported for a
// known format or operator that the compiler lacks, Failure for a damaged file, Usage for what is no model at all.
func Import(s Source) (*ir.Graph, error) {
	head := s.Data[:min(len(s.Data), frontend.HeadSize)]
	format := frontend.Detect(head, filepath.Base(s.Path))
	var g *ir.Graph
	var err error
	switch format {
	case frontend.ONNX:
		g, err = onnx.Parse(s.Data, s.Dir)
	case frontend.XGBoost:
		g, err = xgboost.Parse(s.Data)
	case frontend.LightGBM:
		g, err = lightgbm.Parse(s.Data)
	case frontend.Unknown:
		if len(s.Data) == 0 {
			return nil, diag.New(diag.Usage, "%s is empty", s.Path)
		}
		return nil, diag.New(diag.Usage, "%s is not a model: its content is of no known format", s.Path).Hint("export the model to ONNX, then: waybill init model.onnx")
	case frontend.LFSPointer:
		return nil, diag.New(diag.Usage, "%s is a Git LFS pointer, not the model itself", s.Path).Hint("%s", lfsPull(filepath.Dir(s.Path), filepath.Base(s.Path)))
	default:
		return nil, diag.New(diag.Unsupported, "%s is a %s file, and this version compiles ONNX, XGBoost and LightGBM models", s.Path, format).Hint("export the model to ONNX, then: waybill init model.onnx")
	}
	if err != nil {
		return nil, modelError(s.Path, err)
	}
	return g, nil
}

// Beside lists the files beside a model in which its tensors lie, relative to the model's folder, with slashes.
func Beside(s Source) []string {
	if frontend.Detect(s.Data[:min(len(s.Data), frontend.HeadSize)], filepath.Base(s.Path)) != frontend.ONNX {
		return nil
	}
	return onnx.ExternalFiles(s.Data)
}

// modelError gives errors of the stages an exit code and a hint.
func modelError(path string, err error) error {
	var u *frontend.UnsupportedError
	if errors.As(err, &u) {
		e := diag.Wrap(diag.Unsupported, err, "compile %s", path)
		if u.Hint != "" {
			e.Hint("%s", strings.ReplaceAll(u.Hint, "MODEL", path))
		}
		return e
	}
	var f *frontend.FormatError
	if errors.As(err, &f) {
		e := diag.Wrap(diag.Failure, f.Err, "read model %s", path)
		switch f.Format {
		case frontend.XGBoost:
			return e.Hint("check that the file is complete: python3 -c 'import xgboost; xgboost.Booster(model_file=\"%s\")'", path)
		case frontend.LightGBM:
			return e.Hint("check that the file is complete: python3 -c 'import lightgbm; lightgbm.Booster(model_file=\"%s\")'", path)
		}
		return e.Hint("check that the file is complete: python3 -c 'import onnx; onnx.checker.check_model(\"%s\")'", path)
	}
	return diag.Wrap(diag.Failure, err, "compile %s", path)
}

// Kind describes where a graph comes from: "ONNX, opset 17, ai.onnx.ml 3", "XGBoost 3.2.0".
func Kind(g *ir.Graph) string {
	if len(g.Opsets) == 0 && g.Producer != "" {
		return g.Producer
	}
	s := "ONNX"
	if v, ok := g.Opsets[""]; ok {
		s += fmt.Sprintf(", opset %d", v)
	} else if v, ok := g.Opsets["ai.onnx"]; ok {
		s += fmt.Sprintf(", opset %d", v)
	}
	var rest []string
	for d, v := range g.Opsets {
		if d != "" && d != "ai.onnx" {
			rest = append(rest, fmt.Sprintf("%s %d", d, v))
		}
	}
	sort.Strings(rest)
	return strings.Join(append([]string{s}, rest...), ", ")
}

// Nodes counts the operations of a graph, those of inner regions included.
func Nodes(g *ir.Graph) int {
	n := 0
	_ = ir.Walk(g.Body, func(*ir.Region, *ir.Node) error { n++; return nil }) // the callback never fails
	return n
}

// Ports lists inputs and outputs of a graph for people.
func Ports(g *ir.Graph) (ins, outs []string) {
	for _, v := range g.Body.Params {
		ins = append(ins, PortText(port(v.Name, v.Type)))
	}
	for _, v := range g.Body.Results {
		outs = append(outs, PortText(port(v.Name, v.Type)))
	}
	return ins, outs
}
