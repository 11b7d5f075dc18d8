// Package cloudflare deploys the JavaScript bundle of an artifact as a Cloudflare Worker, by the account's REST API: a version per release,
// labelled by a variable with the artifact's digest, and deployments that give versions their percentage of the traffic.
//
// The API has no conditional deployment. So a move looks before that what it planned from still serves, marks its own deployment, and
// looks afterwards what it replaced: was that another's, the other's deployment is put back and the move is a deploy.ErrConflict.
package cloudflare

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/jsbundle"
	"github.com/waybill-ml/waybill/deploy/retry"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Config of a Target. Account, Script and Token are required.
type Config struct {
	Account  string // id
	Script   string // the Worker's name
	Token    string // of the API, with the permission to edit Workers scripts
	Endpoint string // empty: Cloudflare's
	// Preview is where one version can be asked before it has traffic, with {version} for the first eight digits of its id, as in
	// https://{version}-churn.example.workers.dev. Empty: a version is given traffic when the platform started it once.
	Preview string
	URL     string // where the Worker answers, for people
	HTTP    *http.Client
	Log     *slog.Logger
	Retry   retry.Policy
	Poll    time.Duration // between looks at a preview; 0: a second
}

// Target is one Worker. It is a deploy.Promoter.
type Target struct{ cfg Config }

// New makes a target; it asks nothing yet.
func New(c Config) (*Target, error) {
	for name, v := range map[string]string{"account": c.Account, "script": c.Script, "token": c.Token} {
		if v == "" {
			return nil, diag.New(diag.Usage, "the Cloudflare target has no %s", name)
		}
	}
	if c.Endpoint == "" {
		c.Endpoint = "https://api.cloudflare.com/client/v4"
	}
	if u, err := url.Parse(c.Endpoint); err != nil || u.Scheme != "https" && u.Hostname() != "127.0.0.1" {
		return nil, diag.New(diag.Usage, "the endpoint of the Cloudflare target is no https address")
	}
	if c.Preview != "" && !strings.Contains(c.Preview, "{version}") {
		return nil, diag.New(diag.Usage, "the preview address of the Cloudflare target has no {version}")
	}
	if c.HTTP == nil {
		c.HTTP = &http.Client{Timeout: 2 * time.Minute}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Poll == 0 {
		c.Poll = time.Second
	}
	return &Target{c}, nil
}

// Variables that a version is labelled with. The second tells bundles of the same artifact by other releases of Waybill apart.
const (
	varDigest = "WAYBILL_DIGEST"
	varBundle = "WAYBILL_BUNDLE"
)

// The annotation of a deployment that tells whose move it was.
const moveKey = "workers/message"

func label(v *apiVersion, name string) string {
	for _, b := range v.Resources.Bindings {
		if b.Type == "plain_text" && b.Name == name {
			return b.Text
		}
	}
	return ""
}

// ours tells whether a version came by the API, as Waybill's do. One that was made of such a version in the dashboard, by its editor or with wrangler
// keeps the variables, whatever its code has become.
func ours(v *apiVersion) bool {
	switch v.Metadata.Source {
	case "", "api", "unknown":
		return true
	}
	return false
}

// state is what serves.
type state struct {
	history  []apiDeployment // newest first; none: there is no Worker
	versions map[string]*apiVersion
}

func (s *state) revision() string {
	if len(s.history) == 0 {
		return "none"
	}
	return s.history[0].ID
}

func (s *state) digest(id string) artifact.Digest {
	if v := s.versions[id]; v != nil {
		if d, err := artifact.ParseDigest(label(v, varDigest)); err == nil {
			return d
		}
	}
	return ""
}

// shares are those of a deployment, largest first.
func shares(d apiDeployment) []apiShare {
	out := slices.DeleteFunc(slices.Clone(d.Versions), func(s apiShare) bool { return s.Percentage <= 0 })
	sort.SliceStable(out, func(i, j int) bool { return out[i].Percentage > out[j].Percentage })
	return out
}

func (s *state) current() []apiShare {
	if len(s.history) == 0 {
		return nil
	}
	return shares(s.history[0])
}

// read asks what serves.
func (t *Target) read(ctx context.Context) (*state, error) {
	s := &state{versions: map[string]*apiVersion{}}
	var err error
	if s.history, err = t.deployments(ctx); errors.Is(err, errAbsent) {
		return s, nil
	} else if err != nil {
		return nil, err
	}
	for _, x := range s.current() {
		if err := t.know(ctx, s, x.VersionID); err != nil && !errors.Is(err, errAbsent) {
			return nil, err
		}
	}
	return s, nil
}

// unread tells whether the API knew no deployment, or not the versions of the one that serves.
func (s *state) unread() bool {
	return len(s.history) == 0 || slices.ContainsFunc(s.current(), func(x apiShare) bool { return s.versions[x.VersionID] == nil })
}

// know reads a version into s.
func (t *Target) know(ctx context.Context, s *state, id string) error {
	if s.versions[id] != nil {
		return nil
	}
	v, err := t.version(ctx, id)
	if err == nil {
		s.versions[id] = v
	}
	return err
}

func (s *state) share(x apiShare, weight int) deploy.Share {
	sh := deploy.Share{Digest: s.digest(x.VersionID), ID: x.VersionID, Weight: weight}
	if v := s.versions[x.VersionID]; v != nil {
		sh.Since = v.Metadata.CreatedOn
	}
	return sh
}

// keptVersions bounds how many older versions Status looks at.
const keptVersions = 10

// Status implements deploy.Target.
func (t *Target) Status(ctx context.Context) (*deploy.Status, error) {
	s, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	out := &deploy.Status{Exists: len(s.history) > 0, Revision: s.revision(), State: "absent", Settled: true, URL: t.cfg.URL}
	if !out.Exists {
		return out, nil
	}
	out.State, out.Healthy = "deployed", true
	seen := map[artifact.Digest]bool{"": true}
	canary := ""
	if len(s.current()) > 1 {
		_, canary = s.split()
	}
	for _, x := range s.current() {
		sh := s.share(x, int(math.Round(x.Percentage)))
		sh.Canary = x.VersionID == canary
		seen[sh.Digest] = true
		out.Shares = append(out.Shares, sh)
	}
	ids, err := t.versions(ctx)
	if err != nil {
		return nil, err
	}
	for _, id := range ids[:min(len(ids), keptVersions)] {
		if err := t.know(ctx, s, id); errors.Is(err, errAbsent) {
			continue // deleted just now
		} else if err != nil {
			return nil, err
		}
		if sh := s.share(apiShare{VersionID: id}, 0); !seen[sh.Digest] {
			seen[sh.Digest] = true
			out.Kept = append(out.Kept, sh)
		}
	}
	return out, nil
}

// wanted is what Apply aims at.
type wanted struct {
	bundle artifact.Digest // of bundle.json
}

// settings gives what of a version is not as this target makes it.
func (w wanted) settings(v *apiVersion) (out []deploy.Change) {
	if !ours(v) {
		out = append(out, deploy.Change{Field: "source", Old: v.Metadata.Source, New: "api", Why: "another than Waybill made this version of one of Waybill's: its code may be other code"})
	}
	r := v.Resources.ScriptRuntime
	if r.CompatibilityDate != jsbundle.CompatibilityDate {
		out = append(out, deploy.Change{Field: "compatibility_date", Old: r.CompatibilityDate, New: jsbundle.CompatibilityDate})
	}
	if len(r.CompatibilityFlags) > 0 {
		out = append(out, deploy.Change{Field: "compatibility_flags", Old: strings.Join(r.CompatibilityFlags, ", ")})
	}
	for _, b := range v.Resources.Bindings {
		if b.Name != varDigest && b.Name != varBundle {
			out = append(out, deploy.Change{Field: "bindings." + b.Name, Old: b.Type})
		}
	}
	return out
}

// Plan implements deploy.Target.
func (t *Target) Plan(ctx context.Context, r deploy.Release) (*deploy.Plan, error) {
	if err := r.Check(false, true); err != nil {
		return nil, err
	}
	if len(r.Arches) > 0 && !slices.Contains(r.Arches, "wasm") {
		return nil, diag.Errorf("a Worker runs WebAssembly, the release is for %s: %w", strings.Join(r.Arches, ", "), deploy.ErrPlatform)
	}
	b, err := openBundle(r)
	if err != nil {
		return nil, err
	}
	s, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	w := wanted{b.ListDigest()}
	p := &deploy.Plan{Release: r, Revision: s.revision(), Create: len(s.history) == 0, State: w}
	cur := s.current()
	if len(cur) > 0 {
		p.From = s.digest(cur[0].VersionID)
		if v := s.versions[cur[0].VersionID]; v != nil && p.From != "" {
			p.Drift = w.settings(v)
		}
	}
	if len(p.Drift) == 0 && s.serves(r, w) {
		return p, nil
	}
	text := func(shares []apiShare) string {
		var out []string
		for _, x := range shares {
			out = append(out, fmt.Sprintf("%s %g%%", orForeign(s.digest(x.VersionID)), x.Percentage))
		}
		return strings.Join(out, ", ")
	}
	weight := weightOf(r, cur)
	to := fmt.Sprintf("%s %d%%", r.Digest, weight)
	if weight < 100 {
		stable, _ := s.split()
		to = fmt.Sprintf("%s %d%%, ", orForeign(s.digest(stable)), 100-weight) + to
	}
	if old := text(cur); old != to {
		p.Changes = append(p.Changes, deploy.Change{Field: "traffic", Old: old, New: to})
	} else if v := s.versions[cur[0].VersionID]; v != nil && label(v, varBundle) != string(w.bundle) {
		p.Changes = append(p.Changes, deploy.Change{Field: "bundle", Old: label(v, varBundle), New: string(w.bundle), Why: "written by another release of Waybill"})
	}
	p.Changes = append(p.Changes, p.Drift...)
	return p, nil
}

func orForeign(d artifact.Digest) string {
	if d == "" {
		return "a version that Waybill did not make"
	}
	return string(d)
}

func openBundle(r deploy.Release) (*jsbundle.Bundle, error) {
	b, err := jsbundle.Open(r.Bundle)
	switch {
	case err != nil:
		return nil, diag.Errorf("%w: %w", deploy.ErrRelease, err)
	case b.Digest != r.Digest:
		return nil, diag.Errorf("%w: the bundle in %s is of the artifact %s, not %s", deploy.ErrRelease, r.Bundle, b.Digest, r.Digest)
	case b.Main == "":
		return nil, diag.Errorf("%w: the bundle in %s has no Worker", deploy.ErrRelease, r.Bundle)
	}
	return b, nil
}

// weightOf is the percentage that r gets: all of it where nothing runs.
func weightOf(r deploy.Release, cur []apiShare) int {
	if r.Weight == 0 || len(cur) == 0 {
		return 100
	}
	return r.Weight
}

// made tells whether Waybill made a version of d.
func (s *state) made(id string, d artifact.Digest) bool {
	return s.versions[id] != nil && ours(s.versions[id]) && s.digest(id) == d
}

// fits tells whether a version is the release as this target would make it.
func (s *state) fits(id string, r deploy.Release, w wanted) bool {
	v := s.versions[id]
	return v != nil && s.digest(id) == r.Digest && label(v, varBundle) == string(w.bundle) && len(w.settings(v)) == 0
}

// serves tells whether all is as r wants it.
func (s *state) serves(r deploy.Release, w wanted) bool {
	cur := s.current()
	if len(cur) == 0 {
		return false
	}
	weight := weightOf(r, cur)
	if len(cur) == 1 {
		return s.fits(cur[0].VersionID, r, w)
	}
	for _, x := range cur {
		if s.fits(x.VersionID, r, w) && int(math.Round(x.Percentage)) == weight {
			return true
		}
	}
	return false
}

// Apply implements deploy.Target.
func (t *Target) Apply(ctx context.Context, p *deploy.Plan) (*deploy.Outcome, error) {
	w, ok := p.State.(wanted)
	if !ok {
		return nil, diag.Errorf("%w: this plan is not of this target", deploy.ErrRelease)
	}
	r := p.Release
	b, err := openBundle(r)
	if err != nil {
		return nil, err
	}
	if b.ListDigest() != w.bundle {
		return nil, diag.Errorf("%w: the bundle in %s was altered since it was planned", deploy.ErrRelease, r.Bundle)
	}
	s, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	if len(p.Changes) == 0 && s.revision() == p.Revision {
		return t.outcome(s, "", r.Digest, p.From, false), nil
	}
	if s.revision() != p.Revision {
		if s.serves(r, w) { // an answer that was lost
			return t.outcome(s, "", r.Digest, p.From, true), nil
		}
		return nil, diag.Errorf("planned at deployment %s, now it is %s: %w", p.Revision, s.revision(), deploy.ErrConflict)
	}
	move := rand.Text()
	if len(s.history) == 0 {
		return t.create(ctx, b, r, w, move)
	}
	id, err := t.find(ctx, s, func(id string) bool { return s.fits(id, r, w) })
	if errors.Is(err, errAbsent) {
		if id, err = t.upload(ctx, http.MethodPost, t.script()+"/versions", b, r, w, move); errors.Is(err, errAbsent) {
			err = diag.Errorf("%w: the Worker was deleted in between: %w", deploy.ErrConflict, err)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := t.healthy(ctx, id, r.Wait); err != nil {
		return nil, diag.Errorf("version %s: %w", id, err)
	}
	to := []apiShare{{id, 100}}
	if stable, _ := s.split(); r.Weight > 0 && r.Weight < 100 && stable != id {
		to = []apiShare{{stable, float64(100 - r.Weight)}, {id, float64(r.Weight)}}
	}
	return t.move(ctx, s, to, r.Digest, move)
}

// create uploads the first version, which serves at once: there is nothing that could serve instead.
func (t *Target) create(ctx context.Context, b *jsbundle.Bundle, r deploy.Release, w wanted, move string) (*deploy.Outcome, error) {
	if _, err := t.upload(ctx, http.MethodPut, t.script(), b, r, w, move); err != nil {
		return nil, err
	}
	s, err := t.read(ctx)
	for i := 0; err == nil && s.unread() && i < 10; i++ { // the API may not know at once what was made a moment ago
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(t.cfg.Poll):
		}
		s, err = t.read(ctx)
	}
	if err != nil {
		return nil, err
	}
	if !s.serves(deploy.Release{Digest: r.Digest}, w) {
		return nil, diag.Errorf("another made the Worker at the same time: %w", deploy.ErrConflict)
	}
	for _, x := range s.current() {
		if err := t.healthy(ctx, x.VersionID, r.Wait); err != nil {
			return nil, diag.Errorf("version %s: %w", x.VersionID, err)
		}
	}
	return t.outcome(s, "", r.Digest, "", true), nil
}

// upload sends the bundle; it gives the id of the version where the API tells.
func (t *Target) upload(ctx context.Context, method, path string, b *jsbundle.Bundle, r deploy.Release, w wanted, move string) (string, error) {
	tag := strings.TrimSpace(r.Model + " " + r.Ver)
	if tag == "" {
		tag = b.Name + " " + b.Version
	}
	kind, body, err := form(b, metadata{
		MainModule: b.Main, CompatibilityDate: jsbundle.CompatibilityDate,
		Bindings:    []apiBinding{{"plain_text", varDigest, string(r.Digest)}, {"plain_text", varBundle, string(w.bundle)}},
		Annotations: map[string]string{"workers/tag": string(r.Digest), "workers/message": strings.ToValidUTF8(tag[:min(len(tag), 100)], "")},
	}, "waybill-"+move)
	if err != nil {
		return "", err
	}
	var out struct {
		ID string `json:"id"`
	}
	if err := t.call(ctx, method, path, kind, body, &out); err != nil {
		return "", err
	}
	return out.ID, nil
}

// find gives the newest version that is wanted; errAbsent when there is none.
func (t *Target) find(ctx context.Context, s *state, ok func(id string) bool) (string, error) {
	for _, x := range s.current() {
		if ok(x.VersionID) {
			return x.VersionID, nil
		}
	}
	ids, err := t.versions(ctx)
	if err != nil {
		return "", err
	}
	for _, id := range ids {
		if err := t.know(ctx, s, id); errors.Is(err, errAbsent) {
			continue
		} else if err != nil {
			return "", err
		}
		if ok(id) {
			return id, nil
		}
	}
	return "", errAbsent
}

// move makes shares serve, where s was read before; see the package's text.
func (t *Target) move(ctx context.Context, s *state, to []apiShare, d artifact.Digest, move string) (*deploy.Outcome, error) {
	before := s.revision()
	mine := "waybill " + move
	history, err := t.deployments(ctx)
	if err != nil {
		return nil, err
	}
	if len(history) == 0 || history[0].ID != before {
		return nil, diag.Errorf("another deployment was made in between: %w", deploy.ErrConflict)
	}
	if _, err := t.deploy(ctx, to, map[string]string{moveKey: mine}); err != nil {
		return nil, err
	}
	if history, err = t.deployments(ctx); err != nil {
		return nil, err
	}
	n := 0 // asked again, one move can be several deployments
	for n < len(history) && history[n].Annotations[moveKey] == mine {
		n++
	}
	switch {
	case n == 0:
		return nil, diag.Errorf("another deployment was made right after this one: %w", deploy.ErrConflict)
	case n < len(history) && history[n].ID != before:
		if _, err := t.deploy(ctx, history[n].Versions, map[string]string{moveKey: history[n].Annotations[moveKey]}); err != nil {
			return nil, diag.Errorf("%w: deployment %s of another was replaced, and could not be put back: %w", deploy.ErrConflict, history[n].ID, err)
		}
		return nil, diag.Errorf("another deployment was made in between, and is put back: %w", deploy.ErrConflict)
	}
	var previous artifact.Digest
	if cur := s.current(); len(cur) > 0 {
		if previous = s.digest(cur[0].VersionID); previous == d && len(cur) > 1 {
			previous = s.digest(cur[1].VersionID)
		}
	}
	s.history = history
	return t.outcome(s, to[len(to)-1].VersionID, d, previous, true), nil
}

// outcome says what serves by s; id is the version of d, empty where it is to be found among those that s knows.
func (t *Target) outcome(s *state, id string, d, previous artifact.Digest, changed bool) *deploy.Outcome {
	o := &deploy.Outcome{Digest: d, Previous: previous, Changed: changed, URL: t.cfg.URL,
		IDs: map[string]string{"script": t.cfg.Script, "deployment": s.revision()}}
	for _, x := range s.current() {
		if x.VersionID == id || id == "" && s.digest(x.VersionID) == d {
			o.Weight, o.IDs["version"] = int(math.Round(x.Percentage)), x.VersionID
		}
	}
	return o
}

// Rollback implements deploy.Target.
func (t *Target) Rollback(ctx context.Context, to artifact.Digest, wait time.Duration) (*deploy.Outcome, error) {
	s, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	cur := s.current()
	if len(cur) == 0 {
		return nil, diag.Errorf("nothing was ever deployed: %w", deploy.ErrNotFound)
	}
	running := s.digest(cur[0].VersionID)
	if to != "" && len(cur) == 1 && s.made(cur[0].VersionID, to) {
		return t.outcome(s, "", to, running, false), nil
	}
	var id string
	switch {
	case to != "":
		id, err = t.find(ctx, s, func(id string) bool { return s.made(id, to) })
		if errors.Is(err, errAbsent) {
			return nil, diag.Errorf("%s: %w", to, deploy.ErrNotFound)
		}
	case len(cur) > 1:
		id, _ = s.split() // a canary runs: the other is what served before
		to = s.digest(id)
	default:
		id, err = t.previous(ctx, s)
		to = s.digest(id)
	}
	if err != nil {
		return nil, err
	}
	if err := t.healthy(ctx, id, wait); err != nil {
		return nil, diag.Errorf("version %s: %w", id, err)
	}
	return t.move(ctx, s, []apiShare{{id, 100}}, to, rand.Text())
}

// previous is the version that had all traffic before the one that has it now, with another artifact.
func (t *Target) previous(ctx context.Context, s *state) (string, error) {
	now := s.current()[0].VersionID
	for _, d := range s.history[1:] {
		sh := shares(d)
		if len(sh) != 1 || sh[0].VersionID == now {
			continue
		}
		err := t.know(ctx, s, sh[0].VersionID)
		if errors.Is(err, errAbsent) {
			return "", diag.Errorf("version %s, which served before: %w", sh[0].VersionID, deploy.ErrGone)
		}
		if err != nil {
			return "", err
		}
		d := s.digest(sh[0].VersionID)
		if d == s.digest(now) {
			continue
		}
		if d == "" || s.made(sh[0].VersionID, d) {
			return sh[0].VersionID, nil
		}
		id, err := t.find(ctx, s, func(id string) bool { return s.made(id, d) }) // what it was made of
		if errors.Is(err, errAbsent) {
			return "", diag.Errorf("version %s, which served before, is not as Waybill made it, and the one that was is gone: %w", sh[0].VersionID, deploy.ErrGone)
		}
		return id, err
	}
	return "", diag.Errorf("nothing else served before: %w", deploy.ErrNotFound)
}

// Promote implements deploy.Promoter.
func (t *Target) Promote(ctx context.Context, wait time.Duration) (*deploy.Outcome, error) {
	s, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	cur := s.current()
	if len(cur) < 2 {
		return nil, diag.Errorf("no canary runs: %w", deploy.ErrNotFound)
	}
	_, canary := s.split()
	if err := t.healthy(ctx, canary, wait); err != nil {
		return nil, diag.Errorf("version %s: %w", canary, err)
	}
	return t.move(ctx, s, []apiShare{{canary, 100}}, s.digest(canary), rand.Text())
}

// split tells the two versions that share the traffic apart: the canary is the one that did not have all of it before, however large
// its part has become. Where the platform no longer tells, it is the one with the smaller part.
func (s *state) split() (stable, canary string) {
	cur := s.current()
	stable = cur[0].VersionID
	for _, d := range s.history[1:] {
		if sh := shares(d); len(sh) == 1 {
			if slices.ContainsFunc(cur, func(x apiShare) bool { return x.VersionID == sh[0].VersionID }) {
				stable = sh[0].VersionID
			}
			break
		}
	}
	for _, x := range cur {
		if x.VersionID != stable {
			canary = x.VersionID
		}
	}
	return stable, canary
}
