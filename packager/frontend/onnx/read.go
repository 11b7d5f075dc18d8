// Package onnx reads ONNX models into the compiler's graph. It has a bounded protobuf reader of its own, converts
// every operator version to the canonical form of ir's operator table, and lowers what has an exact form in
// simpler operators. What it cannot convert is a *frontend.UnsupportedError; nothing is skipped.
package onnx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/ir"
)

// Read reads the model file at path, with external tensor data from its folder, and returns a verified graph.
// Errors: *frontend.FormatError for what is no ONNX model or damaged, *frontend.UnsupportedError.
func Read(ctx context.Context, path string) (*ir.Graph, error) {
	b, err := readFile(ctx, path)
	if err != nil {
		return nil, err
	}
	g, err := Parse(b, filepath.Dir(path))
	var fe *frontend.FormatError
	if errors.As(err, &fe) {
		fe.Path = path
	}
	return g, err
}

func readFile(ctx context.Context, path string) (_ []byte, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, &frontend.FormatError{Path: path, Err: errors.New("not a regular file")}
	}
	if st.Size() > maxModelBytes {
		return nil, &frontend.FormatError{Path: path, Err: fmt.Errorf("%d bytes is over protobuf's limit of %d", st.Size(), maxModelBytes)}
	}
	b := make([]byte, st.Size())
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b, ctx.Err()
}

// Parse reads a model from memory; dir is the folder of its external data ("" refuses such data). The graph's
// constants may alias data, which must not change afterwards.
func Parse(data []byte, dir string) (*ir.Graph, error) {
	head := data[:min(len(data), frontend.HeadSize)]
	bad := func(err error) error {
		f := frontend.Detect(head, "")
		if f != frontend.ONNX && f != frontend.Unknown {
			err = fmt.Errorf("not an ONNX model but %s", f)
		} else if f == frontend.Unknown {
			err = fmt.Errorf("not an ONNX model: %w", err)
		}
		return &frontend.FormatError{Format: f, Err: err}
	}
	if len(data) == 0 {
		return nil, bad(errors.New("the file is empty"))
	}
	m, err := decodeModel(data)
	if err != nil {
		return nil, bad(err)
	}
	if m.graph == nil {
		return nil, bad(errors.New("there is no graph in it"))
	}
	g, err := importModel(m, dir)
	if err != nil {
		var u *frontend.UnsupportedError
		if errors.As(err, &u) {
			return nil, err
		}
		return nil, &frontend.FormatError{Format: frontend.ONNX, Err: err}
	}
	return g, nil
}
