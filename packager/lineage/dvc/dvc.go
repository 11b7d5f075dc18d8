// Package dvc reads files and folders that DVC tracks: what a .dvc file or dvc.lock says of them, and their content from the
// working tree or DVC's cache. Content is taken only when it has the MD5 that DVC recorded. Nothing is fetched from a remote.
package dvc

import (
	"context"
	"crypto/md5" // what DVC names content by
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/lineage"
	"github.com/waybill-ml/waybill/packager/project"
)

const lockFile = "dvc.lock"

// out is a file or folder that DVC tracks.
type out struct {
	Path string `yaml:"path"`
	MD5  string `yaml:"md5"` // of a folder: of its manifest, with ".dir" behind it
	Hash string `yaml:"hash"`
}

type pointer struct {
	Outs []out `yaml:"outs"`
}

type lock struct {
	Schema string           `yaml:"schema"`
	Stages map[string]stage `yaml:"stages"`
}

type stage struct {
	Cmd    any                       `yaml:"cmd"` // a text, or a list of them
	Deps   []out                     `yaml:"deps"`
	Params map[string]map[string]any `yaml:"params"` // by file
	Outs   []out                     `yaml:"outs"`
}

// Open finds what name tracks: a .dvc file, or the tracked file or folder itself, of which a .dvc file beside it or the dvc.lock of
// a pipeline speaks. from is how the user wrote it.
func Open(_ context.Context, name, from string) (*lineage.Model, error) {
	if strings.HasSuffix(name, ".dvc") {
		m, err := single(name, "")
		if errors.Is(err, fs.ErrNotExist) {
			return nil, diag.Wrap(diag.NotFound, err, "--from %s", from).Hint("dvc add model.onnx, then: waybill pack --from dvc:model.onnx.dvc")
		}
		return m, err
	}
	m, err := single(name+".dvc", filepath.Base(name))
	if !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	for dir := filepath.Dir(name); ; dir = filepath.Dir(dir) {
		m, err := pipeline(dir, name)
		if m != nil || err != nil {
			return m, err
		}
		if isRoot(dir) || filepath.Dir(dir) == dir {
			break
		}
	}
	return nil, diag.New(diag.NotFound, "--from %s: no .dvc file and no dvc.lock tracks it", from).Hint("dvc add %s", lineage.ShellWord(filepath.Base(name)))
}

// single reads a .dvc file; want is the output that it must have, "" for its only one.
func single(file, want string) (*lineage.Model, error) {
	b, err := readFile(file)
	if err != nil {
		return nil, err
	}
	p, err := parsePointer(b)
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "%s", file).Hint("git checkout %s", lineage.ShellWord(filepath.Base(file)))
	}
	if want != "" && p.Path != want {
		return nil, diag.New(diag.Usage, "%s tracks %s, not %s", file, p.Path, want).Hint("waybill pack --from dvc:%s", lineage.ShellWord(filepath.Base(file)))
	}
	m, err := open(filepath.Dir(file), p)
	if err != nil {
		return nil, err
	}
	m.Document = lineage.FileOf(filepath.Base(file), b)
	return m, nil
}

func parsePointer(b []byte) (out, error) {
	var p pointer
	if err := lineage.YAML(b, &p); err != nil {
		return out{}, err
	}
	if len(p.Outs) != 1 {
		return out{}, fmt.Errorf("it has %d outs, not one", len(p.Outs))
	}
	return p.Outs[0], p.Outs[0].check()
}

var md5RE = regexp.MustCompile(`^[0-9a-f]{32}$`)

func (o out) check() error {
	if err := artifact.CheckPath(o.Path); err != nil {
		return err
	}
	if !md5RE.MatchString(strings.TrimSuffix(o.MD5, ".dir")) {
		return fmt.Errorf("%s: its md5 is %.80q", o.Path, o.MD5)
	}
	if o.Hash != "md5" { // before DVC 3 the MD5 of a text file was that of another text
		return fmt.Errorf("%s: hash %.80q is not md5: dvc cache migrate --dvc-files brings files of DVC 2 up to date", o.Path, o.Hash)
	}
	return nil
}

// pipeline looks for name among the outputs of the stages in dir's dvc.lock; nil when it is none.
func pipeline(dir, name string) (*lineage.Model, error) {
	file := filepath.Join(dir, lockFile)
	b, err := readFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rel, err := filepath.Rel(dir, name)
	if err != nil {
		return nil, fmt.Errorf("dvc: %w", err)
	}
	which, s, o, err := parseLock(b, filepath.ToSlash(rel))
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "%s", file).Hint("dvc repro")
	}
	if which == "" {
		return nil, nil
	}
	m, err := open(dir, o)
	if err != nil {
		return nil, err
	}
	m.Document = lineage.FileOf(lockFile, b)
	m.Add("stage", which)
	if cmd, ok := s.Cmd.(string); ok {
		m.Add("command", cmd)
	}
	for _, d := range s.Deps {
		if md5RE.MatchString(strings.TrimSuffix(d.MD5, ".dir")) {
			m.Inputs = append(m.Inputs, lineage.Input{Name: d.Path, MD5: strings.TrimSuffix(d.MD5, ".dir")})
		}
	}
	for file, table := range s.Params {
		prefix := file + ":"
		if file == "params.yaml" {
			prefix = ""
		}
		flatten(prefix, table, &m.Params)
	}
	return m, nil
}

func parseLock(b []byte, want string) (string, stage, out, error) {
	var l lock
	if err := lineage.YAML(b, &l); err != nil {
		return "", stage{}, out{}, err
	}
	if !strings.HasPrefix(l.Schema, "2.") {
		return "", stage{}, out{}, fmt.Errorf("schema %.20q is not 2", l.Schema)
	}
	for name, s := range l.Stages {
		for _, o := range s.Outs {
			if o.Path == want {
				return name, s, o, o.check()
			}
		}
	}
	return "", stage{}, out{}, nil
}

// flatten writes nested parameters as a.b.c.
func flatten(prefix string, v any, to *[]lineage.Fact) {
	if len(*to) > lineage.MaxFacts { // Check refuses so many
		return
	}
	if m, ok := v.(map[string]any); ok {
		for k, x := range m {
			p := prefix + k
			if _, deeper := x.(map[string]any); deeper {
				p += "."
			}
			flatten(p, x, to)
		}
		return
	}
	text := fmt.Sprint(v)
	if b, err := json.Marshal(v); err == nil {
		if _, ok := v.(string); !ok {
			text = string(b)
		}
	}
	*to = append(*to, lineage.Fact{Name: strings.TrimSuffix(prefix, "."), Value: text})
}

// tree gives the content of one output.
type tree struct {
	dir   string            // that the paths are relative to
	cache string            // "" without one
	md5   map[string]string // by path
	out   string
}

func open(dir string, o out) (*lineage.Model, error) {
	t := &tree{dir: dir, md5: map[string]string{}, out: o.Path}
	root := dir
	for !isRoot(root) && filepath.Dir(root) != root {
		root = filepath.Dir(root)
	}
	if isRoot(root) {
		t.cache = cacheDir(root)
	}
	m := &lineage.Model{Name: project.NameFor(path.Base(o.Path)), Entry: o.Path, Tree: t, MD5: true}
	m.System = "dvc"
	m.Add("path", o.Path)
	m.Add("md5", o.MD5)
	sum, folder := strings.CutSuffix(o.MD5, ".dir")
	if !folder {
		t.md5[o.Path] = sum
		return m, nil
	}
	m.Name = project.NameFor(path.Base(o.Path) + ".x")
	b, err := t.manifest(o.MD5)
	if err != nil {
		return nil, err
	}
	list, err := parseDir(b)
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "manifest of %s", o.Path)
	}
	for _, e := range list {
		name := o.Path + "/" + e.Path
		t.md5[name] = e.MD5
		m.Folder = append(m.Folder, name)
	}
	return m, nil
}

type entry struct {
	MD5  string `json:"md5"`
	Path string `json:"relpath"`
}

// parseDir reads the manifest of a folder.
func parseDir(b []byte) ([]entry, error) {
	var list []entry
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, err
	}
	if len(list) == 0 || len(list) > artifact.MaxLayers {
		return nil, fmt.Errorf("%d files; an artifact has at least one and at most %d", len(list), artifact.MaxLayers)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Path < list[j].Path })
	for i, e := range list {
		if err := artifact.CheckPath(e.Path); err != nil {
			return nil, err
		}
		if !md5RE.MatchString(e.MD5) {
			return nil, fmt.Errorf("%s: its md5 is %.80q", e.Path, e.MD5)
		}
		if i > 0 && list[i-1].Path == e.Path {
			return nil, fmt.Errorf("%s stands in it twice", e.Path)
		}
	}
	return list, nil
}

func isRoot(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, ".dvc"))
	return err == nil && info.IsDir()
}

// cacheDir honours cache.dir of the two configuration files that belong to a repository; the local one wins.
func cacheDir(root string) string {
	at := filepath.Join(root, ".dvc", "cache")
	for _, name := range []string{"config", "config.local"} {
		b, err := readFile(filepath.Join(root, ".dvc", name))
		if err != nil {
			continue
		}
		if d := cacheOf(string(b)); d != "" {
			if at = d; !filepath.IsAbs(d) {
				at = filepath.Join(root, ".dvc", d)
			}
		}
	}
	return at
}

func cacheOf(config string) (dir string) {
	section := ""
	for _, l := range strings.Split(config, "\n") {
		l = strings.TrimSpace(l)
		if strings.HasPrefix(l, "[") {
			section = strings.Trim(l, "[]'\" ")
		} else if k, v, ok := strings.Cut(l, "="); ok && section == "cache" && strings.TrimSpace(k) == "dir" {
			dir = strings.TrimSpace(v)
		}
	}
	return dir
}

func (t *tree) object(sum string) string {
	return filepath.Join(t.cache, "files", "md5", sum[:2], sum[2:])
}

func (t *tree) missing() error {
	return diag.New(diag.NotFound, "the content of %s is neither in the working tree nor in DVC's cache", t.out).Hint("dvc pull %s", lineage.ShellWord(t.out))
}

// manifest reads the list of a folder's files out of the cache.
func (t *tree) manifest(sum string) ([]byte, error) {
	if t.cache == "" {
		return nil, t.missing()
	}
	b, err := readFile(t.object(sum))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, t.missing()
	}
	if err != nil {
		return nil, err
	}
	got := md5.Sum(b)
	if hex.EncodeToString(got[:]) != strings.TrimSuffix(sum, ".dir") {
		return nil, t.differs(t.object(sum), sum, hex.EncodeToString(got[:]))
	}
	return b, nil
}

func (t *tree) differs(name, want, got string) error {
	return diag.New(diag.Verification, "%s is not what DVC tracks", name).Line("want md5 %s", want).Line("got  md5 %s", got).
		Hint("dvc status, then dvc checkout %s for the tracked content, or dvc commit for the new", lineage.ShellWord(t.out))
}

// Open implements lineage.Tree: the file in the working tree, else the one in the cache. A file of the model that DVC does not track
// is not there.
func (t *tree) Open(_ context.Context, name string) (io.ReadCloser, error) {
	sum, ok := t.md5[name]
	if !ok {
		return nil, fmt.Errorf("%s is not tracked with %s: %w", name, t.out, fs.ErrNotExist)
	}
	// DVC may have made the file a link into its cache: not os.Root, but what is behind it must have the digest.
	at := filepath.Join(t.dir, filepath.FromSlash(name))
	f, err := openRegular(at)
	if errors.Is(err, fs.ErrNotExist) && t.cache != "" {
		at = t.object(sum)
		f, err = openRegular(at)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil, t.missing()
	}
	if err != nil {
		return nil, err
	}
	return &checked{f: f, h: md5.New(), want: sum, differs: func(got string) error { return t.differs(at, sum, got) }}, nil
}

// Pull implements lineage.Tree.
func (t *tree) Pull(name string) string { return lineage.Folder{Dir: t.dir}.Pull(name) }

// checked fails at the end of content that has another digest.
type checked struct {
	f       *os.File
	h       hash.Hash
	want    string
	differs func(got string) error
}

func (c *checked) Read(b []byte) (int, error) {
	n, err := c.f.Read(b)
	c.h.Write(b[:n])
	if errors.Is(err, io.EOF) {
		if got := hex.EncodeToString(c.h.Sum(nil)); got != c.want {
			return n, c.differs(got)
		}
	}
	return n, err
}

func (c *checked) Close() error { return c.f.Close() }

func openRegular(name string) (*os.File, error) {
	info, err := os.Stat(name) // before it is opened: a pipe would wait for a writer
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, diag.New(diag.Usage, "%s is not a regular file", name)
	}
	return os.Open(name)
}

func readFile(name string) ([]byte, error) {
	f, err := openRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := lineage.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return slices.Clip(b), nil
}
