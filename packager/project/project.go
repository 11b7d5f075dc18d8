// Package project reads waybill.yaml, the file by which an author says what a model is called, where its parts lie and
// what must hold of it. It never sets trust or policy: those belong to the platform team.
//
// Parse reads the bytes strictly: unknown keys, wrong types and values out of range are errors with line and column.
// Load also checks that every file named exists inside the project folder. Init writes a first waybill.yaml for a model.
package project

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// FileName is the name of the project file.
const FileName = "waybill.yaml"

// MaxFile bounds the project file, in bytes.
const MaxFile = 1 << 20

// Project is a checked waybill.yaml. Paths are slash-separated and relative to Dir.
type Project struct {
	Dir  string // absolute folder; empty after Parse
	File string // how messages name the file

	Digest artifact.Digest // of the file's bytes, and their number; only Load sets them
	Size   int64

	Name    string
	Version string  // as written; also the tag in the local store
	License string  // canonical SPDX expression
	Model   File    // without Compile it may be a folder
	Golden  *Golden // nil when the project has none

	Owner string

	// What the author declares for the bill of materials, from which policies take it.
	Risk       string     // minimal, limited, high, prohibited; "" when not said
	Status     string     // active, retired
	Trained    *time.Time // when training ended
	BaseModels []BaseModel

	Epoch    int64 // security epoch: devices whose floor is higher refuse it
	Steps    []Step
	Features []string    // names of the columns of the model's only two-dimensional input
	Mapping  *FeatureMap // nil, or what turns records into that input; then Features is empty
	Metrics  string      // file with the evaluation/v1 predicate, for the bill of materials and waybill attest
	Datasets string      // file with the dataset/v1 predicate, likewise
	State    []State
	Docs     []string
	Limits   Limits

	Compile        bool   // false: the files are bundled as they are
	Config         []File // without Compile: configuration and tokenizer files outside the model's folder
	Code           []File // without Compile
	AllowPickle    []File // files that may be Python pickles
	Considerations *Considerations

	files []File // all that it names, for Load
}

// BaseModel is a model that this one was trained, distilled or quantised from.
type BaseModel struct {
	Name, Version string
	Digest        artifact.Digest // "" when not known
	License       string          // canonical SPDX expression
	URI           string
}

// File is a file of the project whose content may be about people.
type File struct {
	Path         string
	PersonalData string // artifact.PersonalNone, artifact.PersonalYes, or "" when nobody declared it
	Loc          diag.Loc
}

// Golden names the vectors and how near the compiled module must come to the framework's own outputs.
type Golden struct {
	File
	Tolerance []artifact.Tolerance // overrides those in the file, by output
}

// State couples an input with the output that feeds it on the next call.
type State struct {
	Input, Output string
	Fill          float64 // every element of the first value, when File is ""
	File          string  // a tensor of the Open Inference Protocol, as JSON: the first value
	Loc           diag.Loc
}

// Limits are the budgets under which the author expects the model to run; 0 means none.
type Limits struct {
	Timeout  time.Duration
	MaxBatch int64
	Memory   int64      // bytes of linear memory that the model may take on any host
	MemoryAt diag.Loc   // where that stands
	Dims     []DimBound // in the order of the file
}

// DimBound is the largest size of the inputs' dims that have a symbol.
type DimBound struct {
	Symbol string
	Max    int64
	Loc    diag.Loc
}

var (
	nameRE    = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)
	driveRE   = regexp.MustCompile(`^[A-Za-z]:`)
	versionRE = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)
)

// CheckName tells whether s can be a model's name: one component of an OCI repository name.
func CheckName(s string) error {
	if len(s) > 128 || !nameRE.MatchString(s) {
		return fmt.Errorf("%q is not a name: lower-case letters and digits, with . _ or - between them", s)
	}
	return nil
}

// CheckVersion tells whether s can be a version: an OCI tag.
func CheckVersion(s string) error {
	if !versionRE.MatchString(s) {
		return fmt.Errorf("%q is not a version: letters, digits, . _ and -, at most 128", s)
	}
	return nil
}

// Find returns the project file that dir names: dir itself when it is a file, else waybill.yaml in it.
func Find(p string) (string, error) {
	info, err := os.Stat(p)
	if err == nil && info.IsDir() {
		p = filepath.Join(p, FileName)
		_, err = os.Stat(p)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", diag.New(diag.NotFound, "no project: %s does not exist", p).Hint("waybill init model.onnx")
	}
	if err != nil {
		return "", fmt.Errorf("find project: %w", err)
	}
	return p, nil
}

// Load reads and checks the project at p, a folder or a project file.
func Load(p string) (*Project, error) {
	pr, err := Read(p)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(pr.Dir)
	if err != nil {
		return nil, fmt.Errorf("project folder: %w", err)
	}
	defer root.Close()
	for _, f := range pr.files {
		if err := checkFile(root, f); err != nil {
			return nil, err
		}
	}
	if !pr.Compile {
		return pr, pr.checkModel(root)
	}
	return pr, nil
}

// checkModel demands a file or a folder inside the project folder.
func (p *Project) checkModel(root *os.Root) error {
	info, err := root.Stat(filepath.FromSlash(p.Model.Path))
	if err == nil && info.IsDir() {
		return nil
	}
	return checkFile(root, p.Model)
}

// checkFile demands a regular file inside the project folder. os.Root refuses links that lead out of it.
func checkFile(root *os.Root, f File) error {
	info, err := root.Stat(filepath.FromSlash(f.Path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return diag.New(diag.NotFound, "%s does not exist", f.Path).At(f.Loc)
	case err != nil:
		return diag.Wrap(diag.Usage, err, "%s can't be read inside the project folder", f.Path).At(f.Loc)
	case !info.Mode().IsRegular():
		return diag.New(diag.Usage, "%s is not a regular file", f.Path).At(f.Loc)
	}
	return nil
}

// Open opens a file of the project by its slash-separated path. Links that lead out of the project folder are refused.
func (p *Project) Open(name string) (*os.File, error) {
	if err := artifact.CheckPath(name); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(p.Dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.Open(filepath.FromSlash(name))
}

// Files lists what the project names, the model among it; a file that is named twice stands there twice.
func (p *Project) Files() []File { return slices.Clone(p.files) }

// Read reads the project at dir, a folder or a project file, without looking for what it names.
func Read(dir string) (*Project, error) {
	file, err := Find(dir)
	if err != nil {
		return nil, err
	}
	b, err := readBounded(file)
	if err != nil {
		return nil, err
	}
	p, err := Parse(filepath.Base(file), b)
	if err != nil {
		return nil, err
	}
	p.Digest, p.Size = artifact.DigestOf(b), int64(len(b))
	if p.Dir, err = filepath.Abs(filepath.Dir(file)); err != nil {
		return nil, fmt.Errorf("project folder: %w", err)
	}
	return p, nil
}

// Loc tells where the project file names a file; the zero Loc when it does not.
func (p *Project) Loc(name string) diag.Loc {
	for _, f := range p.files {
		if f.Path == name {
			return f.Loc
		}
	}
	return diag.Loc{}
}

func readBounded(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read project: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read project: %w", err)
	}
	if info.Size() > MaxFile {
		return nil, diag.New(diag.Usage, "%s has %d bytes, more than %d", file, info.Size(), MaxFile)
	}
	return os.ReadFile(file)
}

// clean brings a path of the file into slash form and refuses what leaves the folder. A backslash separates too, on every
// system: a project written on Windows means the same everywhere, and no name in an artifact may have one.
func clean(s string) (string, error) {
	s = strings.ReplaceAll(s, `\`, "/")
	if path.IsAbs(s) || filepath.IsAbs(s) || driveRE.MatchString(s) {
		return "", fmt.Errorf("%s is an absolute path: files must lie in the project folder", s)
	}
	c := path.Clean(s)
	if c == ".." || len(c) > 2 && c[:3] == "../" {
		return "", fmt.Errorf("%s leaves the project folder", s)
	}
	return c, artifact.CheckPath(c)
}
