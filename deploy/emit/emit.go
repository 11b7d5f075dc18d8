// Package emit writes down what a deployment would bring about, as files for the tools of GitOps: YAML for kubectl, Argo CD and Flux,
// templates for SAM and CloudFormation, modules for Terraform. Targets say what (targets.Emitter); this package knows the tools' syntax, and writes all
// files or none.
package emit

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/targets"
	"github.com/waybill-ml/waybill/internal/fsx"
)

// Place is a target of an environment, and what shall run there.
type Place struct {
	Entry   targets.Entry
	Release deploy.Release
}

// File has a path with slashes, relative to the folder that is written.
type File struct {
	Tool targets.Tool
	Path string
	Data []byte
}

// ErrKind: no tool's files are written for this kind of target.
var ErrKind = errors.New("its state cannot be written down for another tool")

// Render makes the files of all places: TOOL/NAME.yaml, or terraform/NAME/main.tf.json. The same input gives the same bytes. env and the
// digest stand in each file's first comment.
func Render(env string, places []Place) ([]File, error) {
	var out []File
	var errs []error
	for _, p := range places {
		fail := func(err error) { errs = append(errs, fmt.Errorf("%s: %w", p.Entry.Name, err)) }
		e, ok := p.Entry.Settings.(targets.Emitter)
		switch why, silent := p.Entry.Settings.(targets.Silent); {
		case p.Entry.Runs != targets.Image:
			fail(fmt.Errorf("kind %s: %w: it takes an upload of files, which no manifest holds; deploy it without --emit", p.Entry.Kind, ErrKind))
			continue
		case silent:
			fail(fmt.Errorf("kind %s: %w: %s; deploy it without --emit", p.Entry.Kind, ErrKind, why.Unwritten()))
			continue
		case !ok:
			fail(fmt.Errorf("kind %s: %w", p.Entry.Kind, ErrKind))
			continue
		}
		ms, err := e.Manifests(p.Release)
		if err != nil {
			fail(err)
			continue
		}
		about := fmt.Sprintf("Written by waybill deploy --emit: target %s of environment %s, %s", p.Entry.Name, env, p.Release.Digest)
		for _, m := range ms {
			f, err := render(p.Entry.Name, about, m)
			if err != nil {
				fail(err)
				continue
			}
			out = append(out, f)
		}
	}
	if errs != nil {
		return nil, errors.Join(errs...)
	}
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return out, nil
}

func render(name, about string, m targets.Manifest) (File, error) {
	if m.Tool == targets.Terraform {
		if len(m.Docs) != 1 {
			return File{}, fmt.Errorf("%d documents for one module", len(m.Docs))
		}
		doc := literal(m.Docs[0]).(map[string]any)
		doc["//"] = escape(about)
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err := e.Encode(doc)
		return File{Tool: m.Tool, Path: path.Join(string(m.Tool), name, "main.tf.json"), Data: b.Bytes()}, err
	}
	b := bytes.NewBufferString("# " + about + "\n")
	e := yaml.NewEncoder(b)
	e.SetIndent(2)
	for _, d := range m.Docs {
		n, err := node(d)
		if err != nil {
			return File{}, err
		}
		if err := e.Encode(n); err != nil {
			return File{}, err
		}
	}
	err := e.Close()
	return File{Tool: m.Tool, Path: path.Join(string(m.Tool), name+".yaml"), Data: b.Bytes()}, err
}

// first are the keys that people look for at the top; the others follow by name.
var first = []string{"AWSTemplateFormatVersion", "Transform", "Description", "apiVersion", "kind", "metadata", "Type", "name"}

// bare are texts that no version of YAML, and no reader, takes for something else; all others are quoted.
var (
	bare  = regexp.MustCompile(`^[A-Za-z/][A-Za-z0-9_./@:-]*[A-Za-z0-9]$`)
	words = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|null|nan|inf)$`)
)

func node(v any) (*yaml.Node, error) {
	switch v := v.(type) {
	case map[string]any:
		rank := func(k string) int {
			if i := slices.Index(first, k); i >= 0 {
				return i
			}
			return len(first)
		}
		keys := slices.SortedFunc(maps.Keys(v), func(a, b string) int { return cmp.Or(rank(a)-rank(b), strings.Compare(a, b)) })
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, k := range keys {
			x, err := node(v[k])
			if err != nil {
				return nil, err
			}
			key, _ := node(k)
			n.Content = append(n.Content, key, x)
		}
		return n, nil
	case []any:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for _, x := range v {
			c, err := node(x)
			if err != nil {
				return nil, err
			}
			n.Content = append(n.Content, c)
		}
		return n, nil
	case string:
		n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v, Style: yaml.DoubleQuotedStyle}
		if bare.MatchString(v) && !words.MatchString(v) {
			n.Style = 0
		}
		return n, nil
	case bool, int, int32, int64, float64: // of objects that went through JSON, too
		n := &yaml.Node{}
		err := n.Encode(v)
		return n, err
	}
	return nil, fmt.Errorf("a %T stands in no document", v)
}

// literal copies v with texts escaped, since in the JSON syntax every text is a template, and expressions written as such ones.
func literal(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			out[escape(k)] = literal(x)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = literal(v[i])
		}
		return out
	case string:
		return escape(v)
	case targets.Expr:
		return "${" + string(v) + "}"
	}
	return v
}

var escaper = strings.NewReplacer("${", "$${", "%{", "%%{")

func escape(s string) string { return escaper.Replace(s) }

// Write puts files into dir, which is made when it is absent. Files of an earlier run are replaced, others stay. When one cannot be
// written, those that were written before it have their old content again, or are gone.
func Write(fsys fsx.FS, dir string, files []File) error {
	var undo []func()
	fail := func(err error) error {
		for _, f := range slices.Backward(undo) {
			f()
		}
		return err
	}
	for _, f := range files {
		p := filepath.Join(dir, filepath.FromSlash(f.Path))
		made, err := mkdirs(fsys, filepath.Dir(p))
		for _, d := range made {
			undo = append(undo, func() { _ = fsys.Remove(d) }) // the first error is the one to report
		}
		if err != nil {
			return fail(err)
		}
		old, err := fsx.ReadFile(fsys, p, 16<<20)
		switch {
		case err == nil && bytes.Equal(old, f.Data):
			continue
		case err == nil:
			undo = append(undo, func() { _ = fsx.WriteFileAtomic(fsys, p, old, 0o644) })
		case errors.Is(err, fs.ErrNotExist):
			undo = append(undo, func() { _ = fsys.Remove(p) })
		default:
			return fail(err)
		}
		if err := fsx.WriteFileAtomic(fsys, p, f.Data, 0o644); err != nil {
			return fail(err)
		}
	}
	return nil
}

// mkdirs makes dir and what is missing above it, and tells what it made, outermost first.
func mkdirs(fsys fsx.FS, dir string) (made []string, err error) {
	if info, err := fsys.Stat(dir); err == nil {
		if !info.IsDir() {
			return nil, &fs.PathError{Op: "mkdir", Path: dir, Err: errors.New("a file has this name")}
		}
		return nil, nil
	}
	if up := filepath.Dir(dir); up != dir {
		if made, err = mkdirs(fsys, up); err != nil {
			return made, err
		}
	}
	return append(made, dir), fsys.MkdirAll(dir, 0o755)
}
