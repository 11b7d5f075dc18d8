package carrier

import (
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

// index is what the index.json of an OCI layout says about tags.
type index struct{ lines []line }

type line struct {
	name   string // before the tag: "churn" in "churn:channel-prod"; "" for a tag alone
	tag    string
	digest artifact.Digest
}

// maxHeads bounds what one tag may stand for in one place.
const maxHeads = 8

func parseIndex(raw []byte) (*index, error) {
	x, err := artifact.ParseIndex(raw)
	if err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	out := &index{}
	for _, e := range x.Manifests {
		full := e.Annotations[registry.AnnotationName]
		if full == "" {
			full = e.Annotations[store.AnnotationRef]
		}
		if full == "" {
			continue
		}
		l := line{tag: full, digest: e.Digest}
		if i := strings.LastIndexByte(full, ':'); i >= 0 {
			l.name, l.tag = full[:i], full[i+1:]
		}
		out.lines = append(out.lines, l)
	}
	return out, nil
}

// heads are the digests under a tag: those that stand under one of names, or, when none does, all of them, since an archive
// of one model needs no name.
func (x *index) heads(tag string, names []string) []artifact.Digest {
	var named, all []artifact.Digest
	for _, l := range x.lines {
		if l.tag != tag {
			continue
		}
		if !slices.Contains(all, l.digest) && len(all) < maxHeads {
			all = append(all, l.digest)
		}
		if slices.Contains(names, l.name) && !slices.Contains(named, l.digest) && len(named) < maxHeads {
			named = append(named, l.digest)
		}
	}
	if len(named) > 0 {
		return named
	}
	return all
}

// blobPath is where a layout keeps a digest, with slashes.
func blobPath(d artifact.Digest) string { return "blobs/sha256/" + d.Hex() }
