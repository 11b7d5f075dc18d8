// Package cloudrun deploys to Google Cloud Run: a service is the place, its revisions are the revisions, its traffic targets are the
// traffic. Each revision is pinned by its name in the traffic, so that a new one gets none before it is ready.
//
// What Waybill knows is read from Cloud Run: the digest of the artifact stands in labels of each revision, the revision that served
// before carries the traffic tag "previous" and a canary the tag "canary", written by the very call that moves the traffic. A revision
// counts as Waybill's when its label says its own name: one made by hand from Waybill's settings inherits the labels, not the name.
package cloudrun

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
	run "google.golang.org/api/run/v2"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/google"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Labels of a revision.
const (
	labelDigest   = "waybill-digest"   // see google.Label
	labelRevision = "waybill-revision" // its own name, without the service's
)

// Tags of traffic targets.
const (
	tagPrevious = "previous"
	tagCanary   = "canary"
)

const byRevision = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"

// defaultWait is for a release without one. Cloud Run itself gives up after some minutes.
const defaultWait = 10 * time.Minute

// Target implements deploy.Target and deploy.Promoter.
type Target struct {
	s    Settings
	c    *run.Service
	call *google.Caller
}

// New makes a target that calls with the tokens of ts, which is safe for concurrent use and caches. It contacts nobody.
func New(ctx context.Context, ts oauth2.TokenSource, s Settings) (*Target, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	t := &Target{s: s.filled()}
	t.call = google.New("Cloud Run", ts, t.s.Backoff, t.s.Log)
	c, err := run.NewService(ctx, t.call.Options(s.Endpoint)...)
	if err != nil {
		return nil, fmt.Errorf("Cloud Run: the client: %w", err)
	}
	t.c = c
	return t, nil
}

func (t *Target) parent() string { return "projects/" + t.s.Project + "/locations/" + t.s.Region }
func (t *Target) name() string   { return t.parent() + "/services/" + t.s.Service }

// short is the last part of a resource's name.
func short(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

// state is what Cloud Run has.
type state struct {
	svc  *run.GoogleCloudRunV2Service    // nil: none
	revs []*run.GoogleCloudRunV2Revision // newest first
}

// read asks for everything that moves are decided on.
func (t *Target) read(ctx context.Context) (*state, error) {
	st := &state{}
	var err error
	if st.svc, err = t.service(ctx); err != nil || st.svc == nil {
		return st, err
	}
	for page := ""; ; {
		var out *run.GoogleCloudRunV2ListRevisionsResponse
		err := t.call.Call(ctx, "list the revisions", func(ctx context.Context) (err error) {
			out, err = t.c.Projects.Locations.Services.Revisions.List(t.name()).PageSize(100).PageToken(page).Context(ctx).Do()
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, r := range out.Revisions {
			if r.DeleteTime == "" {
				st.revs = append(st.revs, r)
			}
		}
		if page = out.NextPageToken; page == "" {
			break
		}
	}
	slices.SortStableFunc(st.revs, func(a, b *run.GoogleCloudRunV2Revision) int { return since(b).Compare(since(a)) })
	return st, nil
}

// service is nil when there is none.
func (t *Target) service(ctx context.Context) (*run.GoogleCloudRunV2Service, error) {
	var out *run.GoogleCloudRunV2Service
	err := t.call.Call(ctx, "read the service", func(ctx context.Context) (err error) {
		out, err = t.c.Projects.Locations.Services.Get(t.name()).Context(ctx).Do()
		return err
	})
	if errors.Is(err, deploy.ErrGone) {
		return nil, nil
	}
	return out, err
}

func since(r *run.GoogleCloudRunV2Revision) time.Time {
	at, _ := time.Parse(time.RFC3339Nano, r.CreateTime)
	return at
}

// version is the token of a state: the generation counts what users change, where the etag may change with every status too.
func version(s *run.GoogleCloudRunV2Service) string {
	if s == nil {
		return "absent"
	}
	return fmt.Sprintf("%s/%d", s.Uid, s.Generation)
}

func (st *state) rev(name string) *run.GoogleCloudRunV2Revision {
	for _, r := range st.revs {
		if name != "" && short(r.Name) == short(name) {
			return r
		}
	}
	return nil
}

// digestOf is the artifact that r runs; empty when Waybill did not make r.
func digestOf(r *run.GoogleCloudRunV2Revision) artifact.Digest {
	if r == nil || !ours(r.Labels, short(r.Name)) {
		return ""
	}
	return google.Labelled(r.Labels, labelDigest)
}

// ours tells whether Waybill gave these labels to what has this name.
func ours(labels map[string]string, name string) bool {
	return labels[labelRevision] != "" && strings.HasSuffix(name, "-"+labels[labelRevision])
}

// ready is the condition that tells whether a revision can serve; nil while nothing is said.
func ready(r *run.GoogleCloudRunV2Revision) *run.GoogleCloudRunV2Condition {
	for _, c := range r.Conditions {
		if c.Type == "Ready" {
			return c
		}
	}
	return nil
}

func condition(r *run.GoogleCloudRunV2Revision) string {
	if c := ready(r); c != nil {
		return c.State
	}
	return ""
}

func failed(r *run.GoogleCloudRunV2Revision) bool  { return condition(r) == "CONDITION_FAILED" }
func healthy(r *run.GoogleCloudRunV2Revision) bool { return condition(r) == "CONDITION_SUCCEEDED" }

func imageOf(r *run.GoogleCloudRunV2Revision) string {
	if r == nil || len(r.Containers) == 0 {
		return ""
	}
	return r.Containers[0].Image
}

// shares are the percents of the revisions by name as the user asked for them; what follows the latest revision is resolved.
func shares(s *run.GoogleCloudRunV2Service) map[string]int {
	out := map[string]int{}
	if s == nil {
		return out
	}
	targets := s.Traffic
	if len(targets) == 0 {
		targets = []*run.GoogleCloudRunV2TrafficTarget{{Percent: 100}}
	}
	for _, x := range targets {
		name := x.Revision
		if x.Type != byRevision {
			name = short(s.LatestReadyRevision)
		}
		if name != "" && x.Percent > 0 {
			out[name] += int(x.Percent)
		}
	}
	return out
}

// pinned tells whether all traffic names its revision.
func pinned(s *run.GoogleCloudRunV2Service) bool {
	return len(s.Traffic) > 0 && !slices.ContainsFunc(s.Traffic, func(x *run.GoogleCloudRunV2TrafficTarget) bool { return x.Type != byRevision && x.Percent > 0 })
}

func tagged(s *run.GoogleCloudRunV2Service, tag string) string {
	for _, x := range s.Traffic {
		if x.Tag == tag && x.Type == byRevision {
			return x.Revision
		}
	}
	return ""
}

// canary is the revision that is tried beside the stable one; empty: none.
func (st *state) canary() string {
	if st.svc == nil {
		return ""
	}
	name := tagged(st.svc, tagCanary)
	if w := shares(st.svc)[name]; w == 0 || w == 100 {
		return ""
	}
	return name
}

// stable is the revision that serves and is no canary: the largest where several do.
func (st *state) stable() string {
	best, most, canary := "", 0, st.canary()
	for name, w := range shares(st.svc) {
		if name != canary && (w > most || w == most && name < best) {
			best, most = name, w
		}
	}
	return best
}

// traffic gives weight percent to the revision name, the rest to the stable one, and keeps the one that served before at hand. Tags of
// others stay, without traffic.
func (st *state) traffic(name string, weight int) []*run.GoogleCloudRunV2TrafficTarget {
	stable := st.stable()
	pin := func(rev string, percent int, tag string) *run.GoogleCloudRunV2TrafficTarget {
		return &run.GoogleCloudRunV2TrafficTarget{Type: byRevision, Revision: rev, Percent: int64(percent), Tag: tag}
	}
	var out []*run.GoogleCloudRunV2TrafficTarget
	prev := tagged(st.svc, tagPrevious)
	if whole := weight%100 == 0 || stable == "" || stable == name; whole {
		out = append(out, pin(name, 100, ""))
		if stable != "" && stable != name {
			prev = stable
		}
	} else {
		out = append(out, pin(stable, 100-weight, ""), pin(name, weight, tagCanary))
	}
	if prev != "" && prev != out[0].Revision && st.rev(prev) != nil {
		out = append(out, pin(prev, 0, tagPrevious))
	}
	for _, x := range st.svc.Traffic {
		if x.Tag == "" || x.Tag == tagPrevious || x.Tag == tagCanary || x.Type == byRevision && st.rev(x.Revision) == nil {
			continue
		}
		out = append(out, &run.GoogleCloudRunV2TrafficTarget{Type: x.Type, Revision: x.Revision, Tag: x.Tag})
	}
	return out
}

// show writes traffic as a text that is equal for equal traffic.
func show(targets []*run.GoogleCloudRunV2TrafficTarget) string {
	var out []string
	for _, x := range targets {
		name := x.Revision
		if x.Type != byRevision {
			name = "latest"
		}
		s := fmt.Sprintf("%s %d%%", name, x.Percent)
		if x.Tag != "" {
			s += " (" + x.Tag + ")"
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// served is what the platform says that it does, in the form of show.
func served(s *run.GoogleCloudRunV2Service) string {
	var out []*run.GoogleCloudRunV2TrafficTarget
	for _, x := range s.TrafficStatuses {
		out = append(out, &run.GoogleCloudRunV2TrafficTarget{Type: x.Type, Revision: short(x.Revision), Percent: x.Percent, Tag: x.Tag})
	}
	return show(out)
}

// Status implements deploy.Target.
func (t *Target) Status(ctx context.Context) (*deploy.Status, error) {
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	out := &deploy.Status{Revision: version(st.svc), Settled: true}
	if st.svc == nil {
		return out, nil
	}
	out.Exists, out.Settled, out.URL, out.Healthy = true, !st.svc.Reconciling, st.svc.Uri, true
	running := map[artifact.Digest]bool{}
	weights := shares(st.svc)
	for name, w := range weights {
		r := st.rev(name)
		x := share(r, name)
		x.Weight, x.Canary = w, name == st.canary()
		out.Shares = append(out.Shares, x)
		if x.Digest != "" {
			running[x.Digest] = true
		}
		if r == nil || !healthy(r) {
			out.Healthy, out.Reason = false, "revision "+name+" is not ready"
			if r != nil && ready(r) != nil && ready(r).Message != "" {
				out.Reason += ": " + t.call.Redact(ready(r).Message)
			}
		}
	}
	slices.SortFunc(out.Shares, func(a, b deploy.Share) int {
		return cmp.Or(cmp.Compare(b.Weight, a.Weight), cmp.Compare(a.ID, b.ID))
	})
	for _, r := range st.revs {
		if d := digestOf(r); d != "" && !running[d] && healthy(r) {
			out.Kept = append(out.Kept, share(r, short(r.Name)))
		}
	}
	if len(out.Shares) == 0 {
		out.Healthy = false
	}
	if c := st.svc.TerminalCondition; c != nil {
		out.State = c.State
		if out.Reason == "" && c.State == "CONDITION_FAILED" {
			out.Reason = t.call.Redact(c.Message)
		}
	}
	return out, nil
}

func share(r *run.GoogleCloudRunV2Revision, name string) deploy.Share {
	x := deploy.Share{Digest: digestOf(r), Image: imageOf(r), ID: name}
	if r != nil {
		x.Since, x.Labels = since(r), r.Labels
	}
	return x
}
