package build

import (
	"context"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/project"
)

// AnnotationEpoch carries the security epoch on the manifest; absent means 0.
const AnnotationEpoch = "dev.waybill.epoch"

// Store is where Pack writes to; *store.Store is one.
type Store interface {
	Import(ctx context.Context, f fsx.File, path string, o store.ImportOptions) (store.Imported, error)
	PutBytes(ctx context.Context, mediaType string, b []byte) (artifact.Descriptor, error)
	PutManifest(ctx context.Context, b []byte, mediaType string, o store.PutOptions) (artifact.Descriptor, error)
}

// PackOptions refine Pack.
type PackOptions struct {
	WithoutSource bool   // leave the model as trained out of the bundle
	Tag           string // of the local store, instead of the project's version
	// Begin is told once, before Progress, how many bytes the project's part of the bundle has. It may be nil.
	Begin func(total int64)
	// Progress is told of each further n bytes that were hashed, by several goroutines at once. It may be nil.
	Progress func(n int64)
}

func (o PackOptions) begin(total int64) {
	if o.Begin != nil {
		o.Begin(total)
	}
}

func (o PackOptions) progress() func(int64) {
	if o.Progress == nil {
		return func(int64) {}
	}
	return o.Progress
}

// Packed is a bundle in the store.
type Packed struct {
	Digest artifact.Digest
	Ref    string // name:tag
	Files  int
	Bytes  int64

	Bundled *artifact.Bundled // of a project with compile: false; else nil
	Desc    artifact.Descriptor
	Config  artifact.Config
	Layers  []artifact.Layer

	inputs []input
	model  *Model // of a compiled project
	notes  *notes

	project       *project.Project
	withoutSource bool
}

// input is one file of the project that went into the bundle, or was looked at for it.
type input struct {
	name   string
	digest artifact.Digest
	size   int64
}

// Input is a project whose files have been read, each once.
type Input struct {
	Project *project.Project
	Source  Source
	golden  []byte
	docs    map[string][]byte
	steps   []stepSource      // in the order of Project.Steps
	state   map[string][]byte // first values of streaming state, by file

	inputs   []input // every file that was read
	identity fsx.Identity
	beside   []beside
	notes    *notes
}

// Read reads all files of a project that go into its bundle.
func Read(ctx context.Context, p *project.Project) (*Input, error) {
	in := &Input{Project: p, docs: map[string][]byte{}, state: map[string][]byte{}}
	if err := in.model(ctx); err != nil {
		return nil, err
	}
	var err error
	if p.Golden != nil {
		if in.golden, err = in.file(ctx, p.Golden.Path, artifact.MaxGolden); err != nil {
			return nil, err
		}
	}
	for _, s := range p.State {
		if s.File != "" {
			if in.state[s.File], err = in.file(ctx, s.File, maxState); err != nil {
				return nil, err
			}
		}
	}
	for _, s := range p.Steps {
		c, err := in.stepCode(ctx, s)
		if err != nil {
			return nil, err
		}
		in.steps = append(in.steps, c)
	}
	for _, d := range p.Docs {
		if in.docs[d], err = in.file(ctx, d, maxDoc); err != nil {
			return nil, err
		}
	}
	if in.notes, err = readNotes(ctx, p); err != nil {
		return nil, err
	}
	for _, f := range p.AllowPickle {
		if !slices.ContainsFunc(in.inputs, func(i input) bool { return i.name == f.Path }) {
			return nil, diag.New(diag.Usage, "allow_pickle: %s is not packed", f.Path).At(f.Loc)
		}
	}
	return in, nil
}

const maxDoc = 64 << 20

// model reads the model, and finds the files beside it in which its tensors lie.
func (in *Input) model(ctx context.Context) error {
	p := in.Project
	f, err := p.Open(p.Model.Path)
	if err != nil {
		return fmt.Errorf("read model: %w", err)
	}
	defer f.Close()
	if in.identity, err = fsx.Identify(f); err != nil {
		return fmt.Errorf("read model: %w", err)
	}
	dir := path.Dir(p.Model.Path)
	if in.Source, err = ReadSource(ctx, p.Model.Path, filepath.Join(p.Dir, filepath.FromSlash(dir)), f); err != nil {
		return err
	}
	if err := unchanged(p, p.Model.Path, f, in.identity, int64(len(in.Source.Data))); err != nil {
		return err
	}
	if _, err := check(ctx, p, p.Model.Path, p.Model.Loc, in.Source.Data); err != nil {
		return err
	}
	in.inputs = append(in.inputs, input{name: p.Model.Path, size: int64(len(in.Source.Data))}) // its digest is worked out by Pack
	for _, e := range Beside(in.Source) {
		name := path.Join(dir, e)
		x, err := p.Open(name)
		if err != nil {
			continue // the compiler says what is wrong with it
		}
		id, err := fsx.Identify(x)
		_ = x.Close() // only looked at
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		in.beside = append(in.beside, beside{name, id})
	}
	return nil
}

// beside is a file of tensors, as it was before the model was compiled.
type beside struct {
	name     string
	identity fsx.Identity
}

// file reads a file of the project that is no model. It is refused when it is a pickle or a pointer, and when it changes
// meanwhile.
func (in *Input) file(ctx context.Context, name string, limit int64) ([]byte, error) {
	b, err := readFile(ctx, in.Project, name, limit)
	if err == nil {
		in.inputs = append(in.inputs, input{name, artifact.DigestOf(b), int64(len(b))})
	}
	return b, err
}

func readFile(ctx context.Context, p *project.Project, name string, limit int64) ([]byte, error) {
	f, err := p.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	before, err := fsx.Identify(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, diag.New(diag.Usage, "%s has more than %d bytes", name, limit).At(p.Loc(name))
	}
	if err := unchanged(p, name, f, before, int64(len(b))); err != nil {
		return nil, err
	}
	_, err = check(ctx, p, name, p.Loc(name), b)
	return b, err
}

// Vectors parses the project's golden file; nil when it has none.
func (in *Input) Vectors() (*Vectors, error) {
	if in.Project.Golden == nil {
		return nil, nil
	}
	v, err := ParseVectors(in.golden)
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "%s", in.Project.Golden.Path)
	}
	return v, nil
}

// Compile compiles the project's model and puts the project's steps around it.
func (in *Input) Compile(ctx context.Context, opt codegen.Options) (*Model, error) {
	p := in.Project
	o := Options{
		Name: p.Name, Version: p.Version, Mapping: p.Mapping, Codegen: opt,
		Limits: artifact.Limits{TimeoutMS: p.Limits.Timeout.Milliseconds(), MaxBatch: p.Limits.MaxBatch},
		State:  p.State, Files: in.state, Dims: p.Limits.Dims,
	}
	m, err := Compile(ctx, in.Source, o)
	if err != nil {
		return nil, err
	}
	if err := bound(&m.Interface.Memory, m.Interface.Weights, p.Limits); err != nil {
		return nil, err
	}
	list, code, err := configured(p.Steps, in.steps, m.Interface.Inputs)
	if err != nil {
		return nil, err
	}
	if err := m.addSteps(list, code); err != nil {
		return nil, err
	}
	if err := SetColumns(m.Interface, p.Features); err != nil {
		return nil, diag.Wrap(diag.Usage, err, "features")
	}
	return m, nil
}

// Pack writes the bundle into st and tags it name:version. Nothing is tagged unless everything is in the store. golden
// may be nil.
func Pack(ctx context.Context, in *Input, m *Model, golden *artifact.Golden, st Store, o PackOptions) (*Packed, error) {
	p := in.Project
	iface, err := artifact.Canonical(m.Interface)
	if err != nil {
		return nil, err
	}
	type file struct {
		layer artifact.Layer
		data  []byte
	}
	files := []file{
		{artifact.Layer{Role: artifact.RoleModule, Path: pathModule, Target: artifact.TargetAny}, m.Code},
		{artifact.Layer{Role: artifact.RoleInterface, Path: pathInterface}, iface},
	}
	if m.Weights != nil {
		files = append(files, file{artifact.Layer{Role: artifact.RoleWeights, Path: pathWeights}, m.Weights})
	}
	for _, st := range m.Steps {
		files = append(files, file{artifact.Layer{Role: artifact.RoleStep, Path: st.Path}, st.Code})
	}
	if golden != nil {
		b, err := artifact.Canonical(golden)
		if err != nil {
			return nil, err
		}
		files = append(files, file{artifact.Layer{Role: artifact.RoleGolden, Path: pathGolden, Personal: p.Golden.PersonalData}, b})
	}
	for _, d := range p.Docs {
		files = append(files, file{artifact.Layer{Role: artifact.RoleDoc, Path: path.Join("docs", d)}, in.docs[d]})
	}
	total := int64(len(in.Source.Data))
	for _, f := range files {
		total += int64(len(f.data))
	}
	for _, b := range in.beside {
		total += b.identity.Size
	}
	o.begin(total)
	inputs := slices.Clone(in.inputs)
	layers := make([]artifact.Layer, len(files))
	for i, f := range files {
		d, err := st.PutBytes(ctx, f.layer.Descriptor().MediaType, f.data)
		if err != nil {
			return nil, fmt.Errorf("store %s: %w", f.layer.Path, err)
		}
		layers[i] = f.layer
		layers[i].Digest, layers[i].Size = d.Digest, d.Size
		o.progress()(d.Size)
	}
	source, err := in.source(ctx, st, o)
	if err != nil {
		return nil, err
	}
	for _, s := range source {
		if i := slices.IndexFunc(inputs, func(i input) bool { return i.name == s.name }); i >= 0 {
			inputs[i] = s.input
		} else {
			inputs = append(inputs, s.input)
		}
		if !o.WithoutSource {
			layers = append(layers, s.layer)
		}
	}
	packed, err := put(ctx, st, p, artifact.ModelConfig{Format: "wasm"}, layers, o)
	if err != nil {
		return nil, err
	}
	packed.inputs, packed.model, packed.notes, packed.project = inputs, m, in.notes, p
	return packed, nil
}

// sourceFile is a file of the model as trained.
type sourceFile struct {
	input
	layer artifact.Layer
}

// source stores the model as trained and the files of tensors beside it; without it in the bundle they are only hashed. A
// large model is not written a second time: the store takes its file, which must have the content that was compiled.
func (in *Input) source(ctx context.Context, st Store, o PackOptions) ([]sourceFile, error) {
	p := in.Project
	if o.WithoutSource {
		st = DryStore{}
	}
	layer := func(name string) artifact.Layer {
		return artifact.Layer{Role: artifact.RoleSource, Path: path.Join("source", name), Personal: p.Model.PersonalData}
	}
	var out []sourceFile
	take := func(name string, was fsx.Identity, want artifact.Digest) error {
		f, err := p.Open(name)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		defer f.Close()
		in, err := st.Import(ctx, f, filepath.Join(p.Dir, filepath.FromSlash(name)), store.ImportOptions{Want: want, Progress: o.Progress})
		if err != nil {
			return err
		}
		if err := unchanged(p, name, f, was, in.Size); err != nil {
			return err
		}
		l := layer(name)
		l.Digest, l.Size = in.Digest, in.Size
		out = append(out, sourceFile{input{name, in.Digest, in.Size}, l})
		return nil
	}
	name := p.Model.Path
	if int64(len(in.Source.Data)) >= store.MinReference {
		if err := take(name, in.identity, artifact.DigestOf(in.Source.Data)); err != nil {
			return nil, err
		}
	} else {
		l := layer(name)
		d, err := st.PutBytes(ctx, l.Descriptor().MediaType, in.Source.Data)
		if err != nil {
			return nil, fmt.Errorf("store %s: %w", l.Path, err)
		}
		l.Digest, l.Size = d.Digest, d.Size
		o.progress()(d.Size)
		out = append(out, sourceFile{input{name, d.Digest, d.Size}, l})
	}
	for _, b := range in.beside {
		if err := take(b.name, b.identity, ""); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// put writes config and manifest of layers that are in the store, and sets the tag.
func put(ctx context.Context, st Store, p *project.Project, model artifact.ModelConfig, layers []artifact.Layer, o PackOptions) (*Packed, error) {
	cfg := artifact.Config{
		Descriptor: artifact.ModelDescriptor{Name: p.Name, Version: p.Version, Licenses: []string{p.License}},
		Model:      model,
	}
	if p.Owner != "" {
		cfg.Descriptor.Authors = []string{p.Owner}
	}
	var notes map[string]string
	if p.Epoch > 0 {
		notes = map[string]string{AnnotationEpoch: strconv.FormatInt(p.Epoch, 10)}
	}
	manifest, config, err := artifact.BuildModel(cfg, layers, notes)
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "bundle %s", p.Name)
	}
	if _, err := st.PutBytes(ctx, artifact.MediaTypeConfig, config); err != nil {
		return nil, fmt.Errorf("store the config: %w", err)
	}
	tag := o.Tag
	if tag == "" {
		tag = p.Version
	}
	layers = slices.Clone(layers)
	slices.SortFunc(layers, func(a, b artifact.Layer) int { return strings.Compare(a.Path, b.Path) })
	out := &Packed{Ref: p.Name + ":" + tag, Files: len(layers), Config: cfg, Layers: layers, withoutSource: o.WithoutSource}
	if out.Desc, err = st.PutManifest(ctx, manifest, artifact.MediaTypeManifest, store.PutOptions{Ref: out.Ref}); err != nil {
		return nil, fmt.Errorf("store the manifest: %w", err)
	}
	out.Digest = out.Desc.Digest
	out.Bytes = int64(len(config)) + int64(len(manifest))
	for _, l := range layers {
		out.Bytes += l.Size
	}
	return out, nil
}
