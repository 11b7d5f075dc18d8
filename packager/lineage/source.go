package lineage

import (
	"context"
	"crypto/md5" // DVC names content by it; what is recorded is the SHA-256 too
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"unicode/utf8"
)

// Bounds on what a source may say about a model. Parameters and metrics of a run are people's own texts.
const (
	MaxFacts = 1024 // entries of one kind
	MaxText  = 4096 // bytes of one name or value
)

// Source is where a model came from and what was said of it there, as the system says that approved or tracks it. Nothing in
// it is believed: it is written down beside digests that were worked out here.
type Source struct {
	System   string   // "mlflow", "dvc", "sagemaker"
	URI      string   // of the model there, without credentials: "models:/churn/3"; "" when nobody else could resolve it
	Document File     // that describes the model there
	Files    []File   // of the model, that were read, sorted by path
	Facts    []Fact   // sorted by name
	Params   []Fact   // of the training run, sorted by name
	Metrics  []Metric // of the training run, sorted by name
	Inputs   []Input  // data and files that the run declares, sorted by name
}

// File is a file that was read there, with the digest of the very bytes that are packed.
type File struct {
	Path   string // slash-separated, as that system calls it
	SHA256 string // 64 hex digits
	MD5    string // 32 hex digits, where that system names content by it; it was checked
	Size   int64
}

// Fact is a name and a value.
type Fact struct{ Name, Value string }

// Metric is a figure of a training run.
type Metric struct {
	Name  string
	Value float64 // finite
}

// Input is a dependency that the system names by a digest that was not checked here.
type Input struct{ Name, MD5 string }

// Model is a model in a source, not read yet.
type Model struct {
	Source
	Name, Version string     // suggestions; "" when the source has none
	Entry         string     // the file to compile, or the folder to bundle
	Folder        []string   // with a folder: every file in it, as Open takes it; else nil
	Signature     *Signature // what callers were promised; nil when nothing was
	Tree          Tree
	MD5           bool // Tree checks MD5 digests, which are written down beside the SHA-256
}

// Tree opens the files of a model. Reading to the end fails when the content is not what the source says.
type Tree interface {
	// Open takes a slash-separated path. A file that is not there is an error with fs.ErrNotExist.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	// Pull is the command that fetches the content of a file of which only a Git LFS pointer is there.
	Pull(name string) string
}

// Signature is what a model's inputs were declared to be.
type Signature struct {
	Tensors []TensorSpec // exclusive with Columns
	Columns []ColumnSpec
}

// TensorSpec is one input tensor.
type TensorSpec struct {
	Name  string  // "" for the only input
	DType string  // as numpy names it: "float32"
	Shape []int64 // -1 for any size
}

// ColumnSpec is one column of a table of inputs.
type ColumnSpec struct {
	Name     string
	Type     string // "double", "long", "string" ...
	Required bool
}

// Add appends a fact unless its value is empty.
func (s *Source) Add(name, value string) {
	if value != "" {
		s.Facts = append(s.Facts, Fact{name, value})
	}
}

// Check sorts what s says, masks what looks like a secret, and refuses what is out of bounds: that would end up in documents of others.
func (s *Source) Check() error {
	for kind, list := range map[string][]Fact{"facts": s.Facts, "parameters": s.Params} {
		if len(list) > MaxFacts {
			return fmt.Errorf("%d %s are more than %d", len(list), kind, MaxFacts)
		}
		for i, f := range list {
			if err := checkText(f.Name); err != nil || f.Name == "" {
				return fmt.Errorf("%s: the name %.80q: %w", kind, f.Name, cmpErr(err))
			}
			list[i].Value = Mask(f.Name, f.Value)
			if err := checkText(list[i].Value); err != nil {
				return fmt.Errorf("%s: %s: %w", kind, f.Name, err)
			}
		}
		sort.SliceStable(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	}
	if len(s.Metrics) > MaxFacts || len(s.Inputs) > MaxFacts {
		return fmt.Errorf("%d metrics and %d inputs are more than %d", len(s.Metrics), len(s.Inputs), MaxFacts)
	}
	for _, m := range s.Metrics {
		if err := checkText(m.Name); err != nil || m.Name == "" {
			return fmt.Errorf("metrics: the name %.80q: %w", m.Name, cmpErr(err))
		}
	}
	for _, i := range s.Inputs {
		if err := checkText(i.Name); err != nil || i.Name == "" {
			return fmt.Errorf("inputs: the name %.80q: %w", i.Name, cmpErr(err))
		}
	}
	sort.SliceStable(s.Metrics, func(i, j int) bool { return s.Metrics[i].Name < s.Metrics[j].Name })
	sort.SliceStable(s.Inputs, func(i, j int) bool { return s.Inputs[i].Name < s.Inputs[j].Name })
	sort.SliceStable(s.Files, func(i, j int) bool { return s.Files[i].Path < s.Files[j].Path })
	s.URI = Mask("", s.URI)
	return checkText(s.URI)
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("it is empty")
	}
	return err
}

func checkText(s string) error {
	if len(s) > MaxText {
		return fmt.Errorf("%d bytes are more than %d", len(s), MaxText)
	}
	if !utf8.ValidString(s) {
		return errors.New("it is not UTF-8")
	}
	return nil
}

// FileOf describes a document that was read whole.
func FileOf(name string, b []byte) File {
	sum := sha256.Sum256(b)
	return File{Path: name, SHA256: hex.EncodeToString(sum[:]), Size: int64(len(b))}
}

// ErrTooLarge is the cause when a file has more bytes than it may.
var ErrTooLarge = errors.New("it has more bytes than it may")

// Copy writes what r gives, at most limit bytes, into a new file, and works out its digests on the way.
func Copy(ctx context.Context, file string, r io.Reader, limit int64) (f File, err error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return File{}, fmt.Errorf("copy: %w", err)
	}
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return File{}, fmt.Errorf("copy: %w", err)
	}
	defer func() {
		if e := out.Close(); err == nil && e != nil {
			err = fmt.Errorf("copy: %w", e)
		}
	}()
	s, m := sha256.New(), md5.New()
	n, err := io.Copy(io.MultiWriter(out, s, m), &ctxReader{ctx, io.LimitReader(r, limit+1)})
	if err == nil && n > limit {
		err = fmt.Errorf("%w: %d", ErrTooLarge, limit)
	}
	if err != nil {
		return File{}, err
	}
	return File{SHA256: hex.EncodeToString(s.Sum(nil)), MD5: hex.EncodeToString(m.Sum(nil)), Size: n}, nil
}

// ctxReader ends reading when its context ends.
type ctxReader struct {
	ctx context.Context // of the one copy
	r   io.Reader
}

func (c *ctxReader) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}
