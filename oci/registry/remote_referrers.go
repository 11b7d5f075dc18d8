package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

const (
	maxPages     = 1000
	pageSize     = "1000"
	maxTagsBytes = 16 << 20 // of one page
)

// Referrers implements Repository: the union of the referrers API, the fallback index and the tags of single
// referrers. Each candidate's manifest is read and hashed, and only its own subject decides.
func (r *Remote) Referrers(ctx context.Context, d artifact.Digest) ([]artifact.Descriptor, error) {
	listed, _, err := r.apiReferrers(ctx, d)
	if err != nil {
		return nil, err
	}
	x, err := r.fallbackIndex(ctx, d)
	if err != nil {
		return nil, err
	}
	cand := map[artifact.Digest]bool{}
	for _, e := range slices.Concat(listed, x.Manifests) {
		if _, err := artifact.ParseDigest(string(e.Digest)); err != nil {
			return nil, diag.Wrap(diag.Registry, err, "registry %s, repository %s: its list of referrers", r.host, r.repo)
		}
		cand[e.Digest] = true
	}
	tags, err := r.Tags(ctx)
	if s := statusOf(err); err != nil && !errors.Is(err, fs.ErrNotExist) && s != http.StatusMethodNotAllowed && s != http.StatusNotImplemented {
		return nil, err // refused or broken; a registry that has no such list is another thing
	}
	out := []artifact.Descriptor{}
	add := func(target string) error {
		b, desc, err := r.GetBounded(ctx, target, artifact.MaxManifest)
		if err != nil {
			return err
		}
		doc, err := store.ParseDoc(b, desc.MediaType)
		if err != nil {
			return diag.Wrap(diag.Registry, err, "registry %s, repository %s, referrer %s", r.host, r.repo, target)
		}
		if doc.Subject == d {
			out = append(out, doc.Descriptor)
		}
		return nil
	}
	prefix := artifact.ReferrersTag(d) + "."
	own := slices.DeleteFunc(tags, func(t string) bool { return !strings.HasPrefix(t, prefix) })
	if len(cand)+len(own) > 2*artifact.MaxReferrers {
		return nil, diag.New(diag.Registry, "registry %s, repository %s: %s has more than %d referrers", r.host, r.repo, d, artifact.MaxReferrers)
	}
	for c := range cand {
		if err := add(string(c)); err != nil {
			return nil, err
		}
	}
	for _, t := range own {
		// Most tags name what the lists had; asking for the digest is cheaper than fetching again, and a lie there
		// can only lead to a fetch or hide what the server could have hidden anyway.
		h, err := r.HeadTag(ctx, t)
		if err != nil {
			return nil, err
		}
		if !cand[h] {
			cand[h] = true
			if err := add(t); err != nil {
				return nil, err
			}
		}
	}
	slices.SortFunc(out, func(a, b artifact.Descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	out = slices.CompactFunc(out, func(a, b artifact.Descriptor) bool { return a.Digest == b.Digest })
	if len(out) > artifact.MaxReferrers {
		return nil, diag.New(diag.Registry, "registry %s, repository %s: %s has more than %d referrers", r.host, r.repo, d, artifact.MaxReferrers)
	}
	return out, nil
}

// apiReferrers asks the referrers API; supported is false when the registry has none.
func (r *Remote) apiReferrers(ctx context.Context, d artifact.Digest) (ds []artifact.Descriptor, supported bool, err error) {
	next := "referrers/" + string(d)
	for range maxPages {
		b, resp, err := r.document(ctx, request{
			action: actPull, method: http.MethodGet, url: next, header: http.Header{"Accept": {artifact.MediaTypeIndex}},
			ok: []int{http.StatusOK, http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusNotImplemented},
		}, artifact.MaxManifest)
		if err != nil {
			return nil, supported, err
		}
		mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		if resp.StatusCode != http.StatusOK || mt != artifact.MediaTypeIndex {
			if supported { // a first page came: half a list is no list
				return nil, true, diag.New(diag.Registry, "registry %s, repository %s: the list of referrers breaks off (status %d)", r.host, r.repo, resp.StatusCode)
			}
			return nil, false, nil
		}
		supported = true
		x, err := artifact.ParseIndex(b)
		if err != nil {
			return nil, true, diag.Wrap(diag.Registry, err, "registry %s, repository %s: its list of referrers", r.host, r.repo)
		}
		ds = append(ds, x.Manifests...)
		if next, err = r.nextLink(resp); err != nil || next == "" || len(ds) > artifact.MaxReferrers {
			return ds, true, err
		}
	}
	return nil, true, diag.New(diag.Registry, "registry %s, repository %s: the list of referrers does not end", r.host, r.repo)
}

// fallbackIndex reads the index behind the OCI 1.1 fallback tag; without one it is empty.
func (r *Remote) fallbackIndex(ctx context.Context, d artifact.Digest) (artifact.Index, error) {
	empty := artifact.Index{SchemaVersion: 2, MediaType: artifact.MediaTypeIndex}
	b, _, err := r.GetBounded(ctx, artifact.ReferrersTag(d), artifact.MaxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, err
	}
	x, err := artifact.ParseIndex(b)
	if err != nil {
		return empty, diag.Wrap(diag.Registry, err, "registry %s, repository %s: tag %s", r.host, r.repo, artifact.ReferrersTag(d))
	}
	return x, nil
}

// announce makes a pushed referrer findable: by a tag of its own always, by the fallback index where the registry has
// no referrers API (distribution-spec 1.1, pushing manifests with subject).
func (r *Remote) announce(ctx context.Context, b []byte, doc store.Doc, h http.Header) error {
	d := doc.Descriptor
	tag := artifact.ReferrersTag(doc.Subject) + "." + d.Digest.Short()
	if m, err := artifact.ParseManifest(b); err == nil && d.MediaType == artifact.MediaTypeManifest {
		tag = artifact.ReferrerTag(m, d.Digest)
	}
	if _, err := r.putRaw(ctx, tag, b, d, nil); err != nil {
		return err
	}
	if h.Get("OCI-Subject") != "" {
		return nil
	}
	if _, supported, err := r.apiReferrers(ctx, doc.Subject); supported || err != nil {
		return err
	}
	// The index has no lock. Another writer may replace ours between reading and writing, so look again; what is lost
	// all the same is still found by its own tag.
	for range 3 {
		x, err := r.fallbackIndex(ctx, doc.Subject)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(x.Manifests, func(e artifact.Descriptor) bool { return e.Digest == d.Digest }) {
			return nil
		}
		x.SchemaVersion, x.MediaType = 2, artifact.MediaTypeIndex
		x.Manifests = append(x.Manifests, d)
		ib, err := json.Marshal(x)
		if err != nil {
			return err
		}
		id := artifact.Descriptor{MediaType: artifact.MediaTypeIndex, Digest: artifact.DigestOf(ib), Size: int64(len(ib))}
		if _, err := r.putRaw(ctx, artifact.ReferrersTag(doc.Subject), ib, id, nil); err != nil {
			return err
		}
	}
	return nil
}

// Tags implements Repository.
func (r *Remote) Tags(ctx context.Context) ([]string, error) {
	tags := []string{}
	next := "tags/list?n=" + pageSize
	for range maxPages {
		b, resp, err := r.document(ctx, request{action: actPull, method: http.MethodGet, url: next, ok: []int{http.StatusOK}}, maxTagsBytes)
		if err != nil {
			return nil, err
		}
		var page struct {
			Tags []string `json:"tags"`
		}
		if err := json.Unmarshal(b, &page); err != nil {
			return nil, diag.Wrap(diag.Registry, err, "registry %s, repository %s: its list of tags", r.host, r.repo)
		}
		tags = append(tags, page.Tags...)
		if next, err = r.nextLink(resp); err != nil {
			return nil, err
		}
		if next == "" {
			slices.Sort(tags)
			return slices.Compact(tags), nil
		}
	}
	return nil, diag.New(diag.Registry, "registry %s, repository %s: the list of tags does not end", r.host, r.repo)
}

// nextLink reads a Link header with rel="next" (RFC 8288) into an absolute URL on the registry itself.
func (r *Remote) nextLink(resp *http.Response) (string, error) {
	for _, l := range resp.Header.Values("Link") {
		for part := range strings.SplitSeq(l, ",") {
			target, params, ok := strings.Cut(strings.TrimSpace(part), ">")
			if !ok || !strings.HasPrefix(target, "<") || !strings.Contains(params, "next") {
				continue
			}
			u, err := r.gate.resolve(resp, target[1:])
			if err != nil {
				return "", r.fail(request{}, err)
			}
			if base, err := r.gate.ready(resp.Request.Context()); err != nil || !r.gate.rules.own(u, base) {
				return "", r.fail(request{}, refusedError{fmt.Sprintf("the next page of a list is said to be at %s", u.Host)})
			}
			return u.String(), nil
		}
	}
	return "", nil
}
