package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"

	"golang.org/x/text/unicode/norm"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/header"
	"github.com/waybill-ml/waybill/packager/project"
)

// pathBundled is the interface document's path in an artifact that was not compiled: no name that a model's own files have.
const pathBundled = "waybill.interface.json"

// Bundle is a project whose files go into the artifact as they are (compile: false).
type Bundle struct {
	Project *project.Project
	LeftOut []string // files of the model's folder that are not packed, with slashes, sorted

	members []member
	allowed map[string]bool
	bytes   int64
	notes   *notes
}

// Files is how many files of the project are packed, and Bytes how large they are together.
func (b *Bundle) Files() int { return len(b.members) }

// Bytes is the size of all files when they were listed.
func (b *Bundle) Bytes() int64 { return b.bytes }

// Member tells one file that is packed.
type Member struct {
	Role artifact.Role
	Path string // in the artifact
}

// Members lists what is packed, sorted by path.
func (b *Bundle) Members() []Member {
	var out []Member
	for _, m := range b.members {
		out = append(out, Member{m.layer.Role, m.layer.Path})
	}
	return out
}

// List finds the files of a project with compile: false, gives each its role, and checks names and number: what could not be
// packed is refused before a single byte is read.
func List(ctx context.Context, p *project.Project) (*Bundle, error) {
	b := &Bundle{Project: p, allowed: allowed(p)}
	root, err := os.OpenRoot(p.Dir)
	if err != nil {
		return nil, fmt.Errorf("project folder: %w", err)
	}
	defer root.Close()
	info, err := root.Stat(filepath.FromSlash(p.Model.Path))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", p.Model.Path, err)
	}
	switch {
	case info.IsDir():
		err = b.folder(ctx, root)
	case isIndex(p.Model.Path):
		err = b.shards(root)
	default:
		b.add(p.Model.Path, p.Model.Path, artifact.RoleSource, p.Model.Loc)
	}
	if err != nil {
		return nil, err
	}
	for _, list := range []struct {
		role  artifact.Role
		files []project.File
	}{{artifact.RoleConfig, p.Config}, {artifact.RoleCode, p.Code}} {
		for _, f := range list.files {
			b.set(f.Path, list.role, f.Loc)
		}
	}
	for _, d := range p.Docs {
		b.set(d, artifact.RoleDoc, p.Loc(d))
	}
	if err := b.check(root); err != nil {
		return nil, err
	}
	b.notes, err = readNotes(ctx, p)
	return b, err
}

// in gives a path of the project its path in the artifact: files of the model's folder lie at the top. Names are in Unicode's
// form C, whatever form the file system that they came from prefers.
func (b *Bundle) in(name string) string {
	if rest, ok := strings.CutPrefix(name, b.Project.Model.Path+"/"); ok {
		name = rest
	}
	return norm.NFC.String(name)
}

func (b *Bundle) add(name, in string, role artifact.Role, loc diag.Loc) *member {
	l := artifact.Layer{Role: role, Path: norm.NFC.String(in)}
	if role == artifact.RoleSource {
		l.Personal = b.Project.Model.PersonalData
	}
	b.members = append(b.members, member{layer: l, name: name, loc: loc})
	return &b.members[len(b.members)-1]
}

// set adds a file that waybill.yaml names, or changes the role of one that the model's folder has.
func (b *Bundle) set(name string, role artifact.Role, loc diag.Loc) {
	for i := range b.members {
		if m := &b.members[i]; m.name == name {
			m.layer.Role, m.layer.Personal, m.loc = role, "", loc
			return
		}
	}
	b.add(name, b.in(name), role, loc)
}

func isIndex(name string) bool { return strings.HasSuffix(name, ".safetensors.index.json") }

// shards takes an index of safetensors and the files that it names.
func (b *Bundle) shards(root *os.Root) error {
	p := b.Project
	data, err := readRoot(root, p.Model.Path, maxJSON)
	if err != nil {
		return err
	}
	files, err := shardsOf(data)
	if err != nil {
		return diag.Wrap(diag.Usage, err, "%s", p.Model.Path).At(p.Model.Loc)
	}
	b.add(p.Model.Path, p.Model.Path, artifact.RoleConfig, p.Model.Loc).data = data
	for _, f := range files {
		name := path.Join(path.Dir(p.Model.Path), f)
		if _, err := root.Stat(filepath.FromSlash(name)); errors.Is(err, fs.ErrNotExist) {
			return diag.New(diag.NotFound, "%s does not exist, and %s names it", name, p.Model.Path).At(p.Model.Loc)
		}
		b.add(name, name, artifact.RoleSource, p.Model.Loc)
	}
	return nil
}

func readRoot(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, diag.New(diag.Usage, "%s has more than %d bytes", name, limit)
	}
	return b, nil
}

// weightMap reads an index of shards: the file of each tensor.
func weightMap(data []byte) (map[string]string, error) {
	var x struct {
		Weights map[string]string `json:"weight_map"`
	}
	if err := json.Unmarshal(data, &x); err != nil {
		return nil, fmt.Errorf("index of shards: %w", err)
	}
	if len(x.Weights) == 0 {
		return nil, errors.New("index of shards: weight_map is missing or empty")
	}
	return x.Weights, nil
}

func shardsOf(data []byte) ([]string, error) {
	w, err := weightMap(data)
	if err != nil {
		return nil, err
	}
	set := map[string]bool{}
	for tensor, f := range w {
		if err := artifact.CheckPath(f); err != nil {
			return nil, fmt.Errorf("index of shards: tensor %q: %w", tensor, err)
		}
		set[f] = true
	}
	var out []string
	for f := range set {
		out = append(out, f)
	}
	sort.Strings(out)
	return out, nil
}

// folder takes every file below the model's folder but those whose name, or a folder's on the way, begins with a dot.
func (b *Bundle) folder(ctx context.Context, root *os.Root) error {
	p := b.Project
	own := map[string]bool{} // what has another place in a bundle, or none
	for _, f := range []string{p.Metrics, p.Datasets, project.FileName, p.File} {
		own[f] = true
	}
	err := fs.WalkDir(root.FS(), p.Model.Path, func(name string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", p.Model.Path, err)
		}
		if name == p.Model.Path {
			return nil
		}
		if strings.HasPrefix(d.Name(), ".") || own[name] {
			b.LeftOut = append(b.LeftOut, name)
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		rest := strings.TrimPrefix(name, p.Model.Path+"/")
		b.add(name, rest, roleOf(rest), p.Model.Loc)
		return nil
	})
	if err == nil && !slices.ContainsFunc(b.members, func(m member) bool { return m.layer.Role == artifact.RoleSource }) {
		return diag.New(diag.Usage, "folder %s has no file of weights", p.Model.Path).At(p.Model.Loc)
	}
	return err
}

// roleOf goes by the name: what a file is called is how the programs that load the model find it.
func roleOf(name string) artifact.Role {
	base := strings.ToLower(path.Base(name))
	for _, doc := range []string{"readme", "license", "licence", "notice", "copying", "model_card", "model-card", "modelcard", "changelog", "use_policy", "citation"} {
		if strings.HasPrefix(base, doc) {
			return artifact.RoleDoc
		}
	}
	switch base {
	case "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "source.spm", "target.spm":
		return artifact.RoleConfig
	}
	switch path.Ext(base) {
	case ".json", ".jsonl", ".txt", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".jinja", ".tiktoken", ".vocab", ".pbtxt", ".spm":
		return artifact.RoleConfig
	case ".md", ".rst", ".pdf", ".html", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp":
		return artifact.RoleDoc
	case ".py", ".pyi", ".ipynb", ".sh", ".c", ".h", ".cc", ".cpp", ".hpp", ".cu", ".cuh", ".js", ".ts", ".go", ".rs", ".java", ".proto":
		return artifact.RoleCode
	}
	return artifact.RoleSource
}

// check looks at names, kinds and sizes, and sorts the members.
func (b *Bundle) check(root *os.Root) error {
	names := map[string]string{}
	for _, m := range b.members {
		if was, dup := names[m.layer.Path]; dup {
			if norm.NFC.String(was) == norm.NFC.String(m.name) {
				return diag.New(diag.Usage, "the names of two files, %+q and %+q, differ only in how Unicode writes them", was, m.name).At(m.loc)
			}
			return diag.New(diag.Usage, "%s and %s would both be %s in the artifact", was, m.name, m.layer.Path).At(m.loc)
		}
		names[m.layer.Path] = m.name
		info, err := root.Stat(filepath.FromSlash(m.name))
		if err != nil {
			return diag.Wrap(diag.Usage, err, "%s can't be read inside the project folder", m.name).At(m.loc).
				Hint("put the file itself there: links may not lead out of the project folder")
		}
		if !info.Mode().IsRegular() {
			return diag.New(diag.Usage, "%s is not a regular file", m.name).At(m.loc)
		}
		b.bytes += info.Size()
	}
	sort.Slice(b.members, func(i, j int) bool { return b.members[i].layer.Path < b.members[j].layer.Path })
	for _, f := range b.Project.AllowPickle {
		if !slices.ContainsFunc(b.members, func(m member) bool { return m.name == f.Path }) {
			return diag.New(diag.Usage, "allow_pickle: %s is not packed", f.Path).At(f.Loc)
		}
	}
	// With digests that are yet to come, so that a bad name shows before hours of reading.
	layers := []artifact.Layer{{Role: artifact.RoleInterface, Path: pathBundled, Digest: artifact.EmptyDigest}}
	for _, m := range b.members {
		m.layer.Digest = artifact.EmptyDigest
		layers = append(layers, m.layer)
	}
	if len(layers) > artifact.MaxLayers {
		return diag.New(diag.Usage, "%d files are more than the %d that an artifact can have", len(b.members), artifact.MaxLayers-1).At(b.Project.Model.Loc).
			Hint("pack what belongs together into one file first, or name a folder with fewer files")
	}
	if _, _, err := artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: b.Project.Name}}, layers, nil); err != nil {
		return diag.Wrap(diag.Usage, err, "bundle %s", b.Project.Name).At(b.Project.Model.Loc)
	}
	return nil
}

// Pack reads every file once, on all cores, writes the bundle into st and tags it name:version. Nothing is tagged unless
// everything is in the store.
func (b *Bundle) Pack(ctx context.Context, st Store, o PackOptions) (*Packed, error) {
	p := b.Project
	if o.WithoutSource {
		return nil, diag.New(diag.Usage, "without the source nothing would be left: this project has compile: false")
	}
	all := make([]*seen, len(b.members))
	order := make([]int, len(all)) // large files first: the last one to end decides how long it takes
	for i := range order {
		order[i] = i
	}
	size := func(i int) int64 {
		info, err := os.Stat(filepath.Join(p.Dir, filepath.FromSlash(b.members[i].name)))
		if err != nil {
			return 0
		}
		return info.Size()
	}
	sizes := map[int]int64{}
	for _, i := range order {
		sizes[i] = size(i)
	}
	sort.SliceStable(order, func(i, j int) bool { return sizes[order[i]] > sizes[order[j]] })
	o.begin(b.bytes)
	err := each(ctx, len(order), func(ctx context.Context, i int) error {
		s, err := b.take(ctx, st, b.members[order[i]], o.progress())
		all[order[i]] = s
		return err
	})
	if err != nil {
		return nil, err
	}
	doc, cfg, err := b.describe(all)
	if err != nil {
		return nil, err
	}
	iface, err := artifact.Canonical(doc)
	if err != nil {
		return nil, err
	}
	l := artifact.Layer{Role: artifact.RoleInterface, Path: pathBundled}
	d, err := st.PutBytes(ctx, l.Descriptor().MediaType, iface)
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", l.Path, err)
	}
	l.Digest, l.Size = d.Digest, d.Size
	layers := []artifact.Layer{l}
	var inputs []input
	for i, m := range b.members {
		m.layer.Digest, m.layer.Size = all[i].digest, all[i].size
		layers = append(layers, m.layer)
		inputs = append(inputs, input{m.name, m.layer.Digest, m.layer.Size})
	}
	packed, err := put(ctx, st, p, cfg, layers, o)
	if err != nil {
		return nil, err
	}
	packed.Bundled, packed.inputs, packed.notes, packed.project = doc, inputs, b.notes, p
	return packed, nil
}

// describe makes the interface document and what ModelPack's config says, out of what the files said.
func (b *Bundle) describe(all []*seen) (*artifact.Bundled, artifact.ModelConfig, error) {
	p := b.Project
	doc := &artifact.Bundled{Schema: artifact.BundledSchema, Name: p.Name, Version: p.Version, Precision: []string{}}
	var parts []header.Facts
	byName := map[string]*seen{}
	known := map[string]bool{} // formats; a file of an unknown one says nothing about the model
	for i, m := range b.members {
		s := all[i]
		byName[m.name] = s
		if m.layer.Role != artifact.RoleSource {
			continue
		}
		f := artifact.BundledFile{FileRef: artifact.FileRef{Path: m.layer.Path, Digest: s.digest, Size: s.size}, Format: s.format, Pickle: s.pickle}
		if s.facts != nil {
			f.Tensors, f.Parameters = s.facts.Tensors, s.facts.Parameters
			parts = append(parts, *s.facts)
		}
		doc.Files = append(doc.Files, f)
		if s.format != "unknown" {
			known[s.format] = true
			doc.Format = s.format
		}
	}
	switch len(known) {
	case 0:
		doc.Format = "unknown"
	case 1:
	default:
		doc.Format = "mixed"
	}
	if err := b.complete(byName); err != nil {
		return nil, artifact.ModelConfig{}, err
	}
	if len(known) == 1 && len(parts) > 0 && disjoint(parts) {
		sum, err := header.Sum(parts)
		if err == nil {
			doc.Parameters, doc.Precision = sum.Parameters, sum.Precision
			doc.Quantization, doc.Architecture = sum.Quantization, sum.Architecture
		}
	}
	for i, m := range b.members {
		if m.layer.Path == "config.json" {
			arch, quant := fromConfig(all[i].doc)
			if doc.Architecture == "" {
				doc.Architecture = arch
			}
			if quant != "" {
				doc.Quantization = quant
			}
		}
	}
	return doc, artifact.ModelConfig{
		Architecture: doc.Architecture, Format: doc.Format, ParamSize: header.ParamSize(doc.Parameters),
		Precision: strings.Join(doc.Precision, ","), Quantization: doc.Quantization,
	}, nil
}

// disjoint tells whether no tensor stands in two files: then they are the parts of one model, else versions of it.
func disjoint(parts []header.Facts) bool {
	if len(parts) < 2 {
		return true
	}
	set := map[string]bool{}
	for _, p := range parts {
		for _, n := range p.Names {
			if set[n] {
				return false
			}
			set[n] = true
		}
	}
	return true
}

// complete checks that no part of a model in several files is missing.
func (b *Bundle) complete(byName map[string]*seen) error {
	splits := map[string]map[int]bool{}
	counts := map[string]int{}
	for _, m := range b.members {
		s := byName[m.name]
		if isIndex(m.name) && s.doc != nil {
			if err := checkShards(m, s.doc, byName); err != nil {
				return err
			}
		}
		if s.facts != nil && s.facts.Shards > 1 {
			k := splitName(m.name)
			if splits[k] == nil {
				splits[k] = map[int]bool{}
			}
			splits[k][s.facts.Shard] = true
			counts[k] = max(counts[k], s.facts.Shards)
		}
	}
	for _, m := range b.members {
		k := splitName(m.name)
		for i := range counts[k] {
			if !splits[k][i] {
				e := diag.New(diag.Usage, "%s is one of %d parts, and part %d is missing", m.name, counts[k], i+1).At(m.loc)
				if m.name == b.Project.Model.Path {
					return e.Hint("put all parts into a folder of their own and name that folder as the model")
				}
				return e.Hint("fetch the missing part")
			}
		}
	}
	return nil
}

var splitRE = regexp.MustCompile(`-[0-9]{5}-of-[0-9]{5}(\.[A-Za-z0-9]+)?$`)

// splitName is the name of a GGUF split without the number of the part.
func splitName(name string) string { return splitRE.ReplaceAllString(name, "") }

// checkShards holds an index against the files that it names.
func checkShards(m member, doc []byte, byName map[string]*seen) error {
	w, err := weightMap(doc)
	if err != nil {
		return diag.Wrap(diag.Usage, err, "%s", m.name).At(m.loc)
	}
	tensors := make([]string, 0, len(w))
	for t := range w {
		tensors = append(tensors, t)
	}
	sort.Strings(tensors)
	for _, t := range tensors {
		file := path.Join(path.Dir(m.name), w[t])
		s := byName[file]
		if s == nil {
			return diag.New(diag.Usage, "%s says that tensor %q is in %s, which is not packed", m.name, t, file).At(m.loc)
		}
		if s.facts == nil {
			continue
		}
		if _, ok := slices.BinarySearch(s.facts.Names, t); !ok {
			return diag.New(diag.Usage, "%s says that tensor %q is in %s, which does not have it", m.name, t, file).At(m.loc).
				Hint("fetch the model again: its files belong to different versions")
		}
	}
	return nil
}

// fromConfig reads what a Hugging Face config.json says of the architecture and the quantisation; what it does not say, or
// says in another form, is left out.
func fromConfig(doc []byte) (arch, quant string) {
	var x struct {
		ModelType string `json:"model_type"`
		Quant     struct {
			Method string `json:"quant_method"`
		} `json:"quantization_config"`
	}
	if json.Unmarshal(doc, &x) != nil || len(x.ModelType) > 128 || len(x.Quant.Method) > 128 {
		return "", ""
	}
	return x.ModelType, strings.ToLower(x.Quant.Method)
}
