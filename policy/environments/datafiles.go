package environments

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/waybill-ml/waybill/internal/diag"
)

// MaxDataFiles bounds the files of one environment.
const MaxDataFiles = 64

// dataFiles merges the files that each environment names into its data. What stands in two places is an error: nobody should
// have to know which of them wins.
func (w *walker) dataFiles(d *Document, read func(string) ([]byte, error)) error {
	for _, n := range slices.Sorted(maps.Keys(d.Environments)) {
		e := d.Environments[n]
		if len(e.DataFiles) > MaxDataFiles {
			return w.at1("environments."+n+".dataFiles", "%d files, limit %d", len(e.DataFiles), MaxDataFiles)
		}
		for i, name := range e.DataFiles {
			at := fmt.Sprintf("environments.%s.dataFiles[%d]", n, i)
			v, err := readData(name, read)
			if err != nil {
				if diag.CodeOf(err) == diag.Usage && errors.As(err, new(*diag.Error)) {
					return err // it has a place of its own, in that file
				}
				return w.at1(at, "%w", err)
			}
			if e.Data == nil {
				e.Data = map[string]any{}
			}
			if err := mergeData(e.Data, v, ""); err != nil {
				return w.at1(at, "%s: %w", name, err)
			}
		}
		e.DataFiles = nil
		d.Environments[n] = e
	}
	return nil
}

func (w *walker) at1(p, format string, args ...any) error {
	return diag.Wrap(diag.Usage, fmt.Errorf(format, args...), "%s", p).At(w.nearest(p))
}

func readData(name string, read func(string) ([]byte, error)) (map[string]any, error) {
	ext := strings.ToLower(path.Ext(name))
	switch {
	case !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, `\:`):
		return nil, fmt.Errorf("%q is no file beside this one: a path goes down from here, with slashes", name)
	case ext != ".json" && ext != ".yaml" && ext != ".yml":
		return nil, fmt.Errorf("%q ends neither in .json nor in .yaml", name)
	case read == nil:
		return nil, fmt.Errorf("%q cannot be read here", name)
	}
	raw, err := read(name)
	if err != nil {
		return nil, err
	}
	if len(raw) > MaxBytes {
		return nil, fmt.Errorf("%q has %d bytes, limit %d", name, len(raw), MaxBytes)
	}
	// JSON is YAML here, so that both have the same strictness: a key twice, a value that is no number, an anchor are errors.
	if ext == ".json" && !json.Valid(raw) {
		return nil, fmt.Errorf("%q is no JSON", name)
	}
	var root, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	if err := dec.Decode(&root); err != nil {
		return nil, yamlError(name, err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%q has more than one document", name)
	}
	w := &walker{file: name, at: map[string]diag.Loc{}}
	var v map[string]any
	if err := w.opaque(root.Content[0], reflect.ValueOf(&v).Elem(), ""); err != nil {
		return nil, err
	}
	return v, nil
}

// mergeData puts src into dst, mappings into mappings.
func mergeData(dst, src map[string]any, at string) error {
	for _, k := range slices.Sorted(maps.Keys(src)) {
		was, there := dst[k]
		a, isMap := was.(map[string]any)
		b, toMap := src[k].(map[string]any)
		switch {
		case !there:
			dst[k] = src[k]
		case isMap && toMap:
			if err := mergeData(a, b, join(at, k)); err != nil {
				return err
			}
		default:
			return fmt.Errorf("data.%s is given twice", join(at, k))
		}
	}
	return nil
}
