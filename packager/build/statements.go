package build

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/store"
	"github.com/waybill-ml/waybill/packager/lineage"
	"github.com/waybill-ml/waybill/packager/project"
	"github.com/waybill-ml/waybill/packager/provenance"
)

// notes are the project's own statements about data and figures, which go into the bill of materials.
type notes struct {
	metrics  *evidence.Evaluation
	datasets *evidence.Datasets
	inputs   []input
}

// readNotes reads the files of the keys metrics and datasets; they must be predicates that waybill attest would take.
func readNotes(ctx context.Context, p *project.Project) (*notes, error) {
	n := &notes{}
	read := func(name, key string, parse func([]byte) error) error {
		if name == "" {
			return nil
		}
		b, err := readFile(ctx, p, name, artifact.MaxBundle/2)
		if err != nil {
			return err
		}
		if err := parse(b); err != nil {
			return diag.Wrap(diag.Usage, err, "%s: %s", key, name).At(p.Loc(name)).Hint("docs/format.md describes every predicate")
		}
		n.inputs = append(n.inputs, input{name, artifact.DigestOf(b), int64(len(b))})
		return nil
	}
	if err := read(p.Metrics, "metrics", func(b []byte) (err error) { n.metrics, err = evidence.ParseEvaluation(b); return err }); err != nil {
		return nil, err
	}
	if err := read(p.Datasets, "datasets", func(b []byte) (err error) { n.datasets, err = evidence.ParseDatasets(b); return err }); err != nil {
		return nil, err
	}
	return n, nil
}

// Origin is what a bundle's provenance says beside the project itself.
type Origin struct {
	Commit *lineage.Commit  // that the project lies in, when that describes it exactly
	Build  *debug.BuildInfo // of this program
	Epoch  *time.Time       // SOURCE_DATE_EPOCH
	Source *lineage.Source  // that the model came from, when it was not the project's own
	Dir    string           // of the project, when Stage has moved it
}

// Statement is an in-toto statement about a bundle that nobody has signed.
type Statement struct {
	PredicateType string
	Raw           []byte
}

// Statements writes provenance and bill of materials of a bundle. Equal inputs give equal bytes.
func (packed *Packed) Statements(o Origin) ([]Statement, error) {
	p := packed.project
	f := provenance.Facts{
		Name: p.Name, Version: p.Version, License: p.License, Owner: p.Owner,
		Risk: p.Risk, Status: p.Status, Trained: p.Trained, BaseModels: p.BaseModels, Manifest: packed.Digest, Layers: packed.Layers, Model: packed.Config.Model,
		Project: provenance.File{Path: p.File, Digest: p.Digest, Size: p.Size}, WithoutSource: packed.withoutSource, Commit: o.Commit,
		Compiled: p.Compile, Kind: packed.Config.Model.Format, Metrics: packed.notes.metrics, Datasets: packed.notes.datasets,
		Considerations: p.Considerations, Tool: version.Number, Build: o.Build, SourceDateEpoch: o.Epoch, Source: o.Source,
	}
	if o.Commit != nil {
		dir := o.Dir
		if dir == "" {
			dir = p.Dir
		}
		f.Project.Path = lineage.GitPath(dir, p.File)
	}
	for _, i := range slices.Concat(packed.inputs, packed.notes.inputs) {
		f.Inputs = append(f.Inputs, provenance.File{Path: i.name, Digest: i.digest, Size: i.size})
	}
	slices.SortFunc(f.Inputs, func(a, b provenance.File) int { return strings.Compare(a.Path, b.Path) })
	f.Inputs = slices.CompactFunc(f.Inputs, func(a, b provenance.File) bool { return a.Path == b.Path })
	if m := packed.model; m != nil {
		f.Kind, f.Inports, f.Outports = m.Kind, m.Interface.Inputs, m.Interface.Outputs
		for _, s := range m.Interface.Steps {
			if s.Kind != "model" {
				f.Steps = append(f.Steps, s)
			}
		}
	}
	var out []Statement
	for _, k := range []struct {
		typ   string
		write func(provenance.Facts) ([]byte, error)
	}{{evidence.TypeProvenance, provenance.SLSA}, {evidence.TypeCycloneDX, provenance.CycloneDX}} {
		predicate, err := k.write(f)
		if err != nil {
			return nil, err
		}
		s, err := evidence.NewStatement(k.typ, p.Name, packed.Digest, json.RawMessage(predicate))
		if err != nil {
			return nil, fmt.Errorf("make the statement: %w", err)
		}
		raw, err := s.Encode()
		if err != nil {
			return nil, diag.Wrap(diag.Failure, err, "%s of %s", evidence.NameOf(k.typ), p.Name)
		}
		out = append(out, Statement{k.typ, raw})
	}
	return out, nil
}

// Notebook is a store in which unsigned statements can be replaced; *store.Store is one.
type Notebook interface {
	Store
	Referrers(ctx context.Context, d artifact.Digest) ([]artifact.Descriptor, error)
	Remove(ctx context.Context, d artifact.Digest) ([]artifact.Digest, error)
}

// Attach stores statements beside the bundle, unsigned, in the place of those that an earlier pack has left there.
func (packed *Packed) Attach(ctx context.Context, st Notebook, list []Statement) error {
	old, err := st.Referrers(ctx, packed.Digest)
	if err != nil {
		return err
	}
	keep := map[artifact.Digest]bool{}
	for _, s := range list {
		if _, err := st.PutBytes(ctx, artifact.MediaTypeStatement, s.Raw); err != nil {
			return err
		}
		if _, err := st.PutBytes(ctx, artifact.MediaTypeEmpty, []byte(artifact.EmptyConfig)); err != nil {
			return err
		}
		b, err := artifact.BuildStatement(packed.Desc, s.Raw, s.PredicateType)
		if err != nil {
			return fmt.Errorf("attach %s: %w", evidence.NameOf(s.PredicateType), err)
		}
		d, err := st.PutManifest(ctx, b, artifact.MediaTypeManifest, store.PutOptions{Made: true})
		if err != nil {
			return err
		}
		keep[d.Digest] = true
	}
	for _, r := range old {
		if r.ArtifactType != artifact.MediaTypeStatement || keep[r.Digest] {
			continue
		}
		if slices.ContainsFunc(list, func(s Statement) bool { return s.PredicateType == r.Annotations[artifact.AnnotationPredicate] }) {
			if _, err := st.Remove(ctx, r.Digest); err != nil && diag.CodeOf(err) != diag.NotFound { // another pack was faster
				return err
			}
		}
	}
	return nil
}
