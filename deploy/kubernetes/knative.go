package kubernetes

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Knative is the target of Knative Serving: one Service (serving.knative.dev/v1), whose revisions are named after the artifact and
// what else of them the target sets, and whose traffic names revisions, never the latest one. A new revision comes up without traffic;
// only when it is ready does it get some. Revisions are what can be rolled back to, as long as Knative keeps them.
type Knative struct {
	t        *Target
	min, max int // instances; 0: Knative's own defaults
}

// Annotations of a Service besides those of a Deployment.
const (
	annCanary  = "waybill.dev/canary" // revision that is tried beside the other one
	annScale   = "autoscaling.knative.dev/"
	knativeAPI = "/apis/serving.knative.dev/v1"

	// maxKnativeName leaves room for what a revision's name has behind it.
	maxKnativeName = 63 - 1 - 12 - 1 - 8
)

// NewKnative checks c, whose Replicas and Port are of no interest here, and the bounds of the instances. It contacts nobody.
func NewKnative(c Config, least, most int) (*Knative, error) {
	t, err := New(c)
	if err != nil {
		return nil, err
	}
	if len(c.Name) > maxKnativeName {
		return nil, fmt.Errorf("name %q: at most %d characters, since revisions are named after it", c.Name, maxKnativeName)
	}
	if least < 0 || most < 0 || most > 0 && least > most {
		return nil, fmt.Errorf("from %d to %d instances", least, most)
	}
	return &Knative{t: t, min: least, max: most}, nil
}

func (k *Knative) services() string { return k.t.path(knativeAPI, "services") }
func (k *Knative) service() string  { return k.services() + "/" + k.t.c.Name }

// knState is what was read.
type knState struct {
	svc object // nil: absent
	revisions
}

// revisions are those of a Service, newest first.
type revisions []object

// readRevisions lists those that a label selects.
func (t *Target) readRevisions(ctx context.Context, label, value string) (revisions, error) {
	list, err := t.get(ctx, t.path(knativeAPI, "revisions")+"?labelSelector="+url.QueryEscape(label+"="+value))
	if err != nil {
		return nil, err
	}
	var out revisions
	for _, x := range list.list("items") {
		out = append(out, x)
	}
	slices.SortStableFunc(out, func(a, b object) int {
		return cmp.Or(strings.Compare(b.text("metadata", "creationTimestamp"), a.text("metadata", "creationTimestamp")), strings.Compare(b.text("metadata", "name"), a.text("metadata", "name")))
	})
	return out, nil
}

func (rs revisions) rev(name string) object {
	for _, r := range rs {
		if r.text("metadata", "name") == name && name != "" {
			return r
		}
	}
	return nil
}

func (rs revisions) digest(name string) artifact.Digest { return digestOf(rs.rev(name)) }

// ready is the state of a revision's condition of that name: True, False or Unknown; empty: there is none.
func (rs revisions) ready(name string) string {
	return conditionOf(rs.rev(name), "Ready").text("status")
}

// ofDigest are the names of the ready revisions of an artifact, those in first before the others.
func (rs revisions) ofDigest(d artifact.Digest, first ...string) (out []string) {
	for _, r := range rs {
		first = append(first, r.text("metadata", "name"))
	}
	for _, name := range first {
		if rs.digest(name) == d && rs.ready(name) == "True" {
			out = append(out, name)
		}
	}
	return out
}

// serving gives the shares of a traffic, in percent by revision, and the ready revisions of other artifacts.
func (rs revisions) serving(given map[string]int, canary string) (shares, kept []deploy.Share) {
	running := map[artifact.Digest]bool{}
	for name, n := range given {
		x := knShare(rs.rev(name), name)
		x.Weight, x.Canary = n, name == canary
		shares = append(shares, x)
		running[x.Digest] = true
	}
	slices.SortFunc(shares, func(a, b deploy.Share) int {
		return cmp.Or(cmp.Compare(b.Weight, a.Weight), cmp.Compare(a.ID, b.ID))
	})
	for _, r := range rs {
		if d, name := digestOf(r), r.text("metadata", "name"); d != "" && !running[d] && rs.ready(name) == "True" {
			running[d] = true
			kept = append(kept, knShare(r, name))
		}
	}
	return shares, kept
}

func (k *Knative) read(ctx context.Context) (*knState, error) {
	s := &knState{}
	var err error
	if s.svc, err = k.t.get(ctx, k.service()); err != nil {
		if errors.Is(err, errAbsent) {
			return s, nil
		}
		return nil, err
	}
	s.revisions, err = k.t.readRevisions(ctx, "serving.knative.dev/service", k.t.c.Name)
	return s, err
}

// asked is the traffic that the spec asks for, in percent by revision.
func (s *knState) asked() map[string]int {
	out := map[string]int{}
	for _, x := range s.svc.list("spec", "traffic") {
		e := object(x)
		name := cmp.Or(e.text("revisionName"), s.svc.text("status", "latestReadyRevisionName"))
		if n := e.number("percent"); n > 0 && name != "" {
			out[name] += n
		}
	}
	return out
}

// given is the traffic that the routes give.
func (s *knState) given() map[string]int { return givenBy(s.svc.list("status", "traffic")) }

// pinned tells whether all traffic goes to revisions by name.
func (s *knState) pinned() bool {
	list := s.svc.list("spec", "traffic")
	return len(list) > 0 && !slices.ContainsFunc(list, func(x map[string]any) bool { return object(x).text("revisionName") == "" })
}

func (s *knState) note(name string) string { return s.svc.text("metadata", "annotations", name) }

// canary is the revision that is tried beside the stable one; empty: none.
func (s *knState) canary() string {
	name := s.note(annCanary)
	if n := s.asked()[name]; n == 0 || n == 100 {
		return ""
	}
	return name
}

// stable is the revision that serves and is no canary: the largest where several do.
func (s *knState) stable() string { return largest(s.asked(), s.canary()) }

// revision names the state that a plan is made of. The status is left out: controllers write it all the time.
func (s *knState) revision() string {
	raw, _ := json.Marshal([]any{s.svc.text("metadata", "uid"), s.svc.object("spec"), s.note(annAttempt), s.note(annPrevious), s.note(annCanary)})
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:12])
}

func conditionOf(o object, typ string) object {
	for _, x := range o.list("status", "conditions") {
		if object(x).text("type") == typ {
			return x
		}
	}
	return nil
}

func (s *knState) observed() bool {
	return s.svc.number("status", "observedGeneration") >= s.svc.number("metadata", "generation")
}

// settled tells whether the controllers have come to the end of what the spec asks for, well or not.
func (s *knState) settled() bool {
	ready := conditionOf(s.svc, "Ready").text("status")
	return s.observed() && (ready == "False" || ready == "True" && maps.Equal(s.asked(), s.given()))
}

// Status implements deploy.Target.
func (k *Knative) Status(ctx context.Context) (*deploy.Status, error) {
	s, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	if s.svc == nil {
		return &deploy.Status{Revision: s.revision(), State: "absent", Settled: true}, nil
	}
	out := &deploy.Status{Exists: true, Revision: s.revision(), Settled: s.settled(), Healthy: true, URL: s.svc.text("status", "url")}
	out.State = map[string]string{"True": "Ready", "False": "Failed"}[conditionOf(s.svc, "Ready").text("status")]
	if out.State == "" {
		out.State = "Deploying"
	}
	if c := conditionOf(s.svc, "Ready"); c.text("status") == "False" {
		out.Reason = strings.TrimSpace(c.text("reason") + " " + c.text("message"))
	}
	out.Shares, out.Kept = s.serving(s.given(), s.canary())
	for _, x := range out.Shares {
		if s.ready(x.ID) != "True" {
			out.Healthy, out.Reason = false, "revision "+x.ID+" is not ready"
		}
	}
	out.Healthy = out.Healthy && len(out.Shares) > 0
	return out, nil
}

func knShare(r object, name string) deploy.Share {
	x := deploy.Share{Digest: digestOf(r), ID: name}
	x.Since, _ = time.Parse(time.RFC3339, r.text("metadata", "creationTimestamp"))
	if c := r.list("spec", "containers"); len(c) > 0 {
		x.Image = object(c[0]).text("image")
	}
	return x
}

// bare is what of a revision's template follows from the settings alone.
func (k *Knative) bare() object {
	notes := map[string]any{}
	for name, n := range map[string]int{"min-scale": k.min, "max-scale": k.max} {
		if n > 0 {
			notes[annScale+name] = fmt.Sprint(n)
		}
	}
	return object{
		"metadata": map[string]any{"annotations": notes, "labels": map[string]any{labelApp: k.t.c.Name}},
		"spec": map[string]any{
			"enableServiceLinks": false, // Knative's default, but for new revisions of a Service that is there
			"containers":         []any{map[string]any(k.t.knContainer(container))},
		},
	}
}

// knContainer is the container of a revision, but for its image.
func (t *Target) knContainer(name string) object {
	probe := func(path string, failures int) map[string]any {
		return map[string]any{"httpGet": map[string]any{"path": path, "port": servePort, "scheme": "HTTP"}, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": failures}
	}
	readiness := probe("/v2/health/ready", 3)
	readiness["successThreshold"] = 1
	return object{
		"name":           name,
		"image":          "",
		"ports":          []any{map[string]any{"name": "http1", "containerPort": servePort, "protocol": "TCP"}}, // Knative sets PORT to it
		"resources":      map[string]any{"requests": map[string]any{"cpu": t.c.CPU, "memory": t.c.Memory}, "limits": map[string]any{"memory": t.c.Memory}},
		"readinessProbe": readiness,
		"livenessProbe":  probe("/v2/health/live", 6),
		"securityContext": map[string]any{
			"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "runAsNonRoot": true,
			"capabilities": map[string]any{"drop": []any{"ALL"}}, "seccompProfile": map[string]any{"type": "RuntimeDefault"},
		},
	}
}

func hashed(v any, n int) string {
	raw, _ := json.Marshal(v)
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])[:n]
}

// template is that of a release; its name is the revision's, and another template has another one.
func (k *Knative) template(r deploy.Release) object {
	o := k.bare()
	notes := map[string]any{annDigest: string(r.Digest), annSettings: hashed(k.bare(), 24)}
	if r.Model != "" {
		notes[annModel] = r.Model + " " + r.Ver
	}
	merge(o, object{"metadata": map[string]any{"annotations": notes}})
	o.list("spec", "containers")[0]["image"] = r.Image
	o = clone(o)
	merge(o, object{"metadata": map[string]any{"name": fmt.Sprintf("%s-%s-%s", k.t.c.Name, r.Digest.Hex()[:12], hashed(o, 8))}})
	return o
}

// templateOf is the template that a revision was made of, as far as it counts: Knative's own notes are made anew.
func templateOf(rev object) object {
	notes := map[string]any{}
	for name, v := range rev.object("metadata", "annotations") {
		if strings.HasPrefix(name, "waybill.dev/") || strings.HasPrefix(name, annScale) {
			notes[name] = v
		}
	}
	labels := map[string]any{}
	if app := rev.text("metadata", "labels", labelApp); app != "" {
		labels[labelApp] = app
	}
	return clone(object{
		"metadata": map[string]any{"name": rev.text("metadata", "name"), "annotations": notes, "labels": labels},
		"spec":     map[string]any(rev.object("spec")),
	})
}

func traffic(name string, weight int, stable string) []any {
	entry := func(name string, n int) map[string]any {
		return map[string]any{"revisionName": name, "latestRevision": false, "percent": float64(n)}
	}
	if weight == 100 {
		return []any{entry(name, 100)}
	}
	return []any{entry(stable, 100-weight), entry(name, weight)}
}

// weight of a release that becomes revision name: all where nothing else of another artifact serves.
func (s *knState) weight(r deploy.Release, name string) int {
	stable := s.stable()
	if r.Weight%100 == 0 || stable == "" || stable == name || s.digest(stable) == r.Digest {
		return 100
	}
	return r.Weight
}

func (t *Target) checkImage(r deploy.Release) error {
	if err := r.Check(true, false); err != nil {
		return err
	}
	if len(r.Arches) > 0 && !slices.Contains(r.Arches, t.c.Arch) {
		return fmt.Errorf("%w: the image is for %s, the nodes are %s", deploy.ErrPlatform, strings.Join(r.Arches, ", "), t.c.Arch)
	}
	return nil
}

// Plan implements deploy.Target.
func (k *Knative) Plan(ctx context.Context, r deploy.Release) (*deploy.Plan, error) {
	if err := k.t.checkImage(r); err != nil {
		return nil, err
	}
	s, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	want := k.template(r)
	name := want.text("metadata", "name")
	p := &deploy.Plan{Release: r, From: s.digest(s.stable()), Revision: s.revision(), Create: s.svc == nil}
	if s.svc == nil {
		p.Changes = []deploy.Change{{Field: "service", New: k.t.c.Namespace + "/" + k.t.c.Name}, {Field: "image", New: r.Image}}
		return p, nil
	}
	live := s.svc.object("spec", "template")
	settings := live.text("metadata", "annotations", annSettings) == want.text("metadata", "annotations", annSettings)
	for _, ch := range diff(want, live, "template.") {
		if ch.Field == "template.metadata.annotations."+annSettings {
			continue
		}
		p.Changes = append(p.Changes, ch)
		if settings && !ofRelease(ch.Field) && ch.Field != "template.metadata.name" {
			p.Drift = append(p.Drift, ch)
		}
	}
	to := map[string]int{}
	for _, x := range traffic(name, s.weight(r, name), s.stable()) {
		to[object(x.(map[string]any)).text("revisionName")] = object(x.(map[string]any)).number("percent")
	}
	if from := s.asked(); !maps.Equal(from, to) || !s.pinned() {
		p.Changes = append(p.Changes, deploy.Change{Field: "traffic", Old: sharesOf(from), New: sharesOf(to)})
	}
	if len(p.Changes) == 0 && !(s.observed() && maps.Equal(s.asked(), s.given())) {
		p.Changes = append(p.Changes, deploy.Change{Field: "rollout", Old: "not finished", New: "finished"})
	}
	return p, nil
}

func sharesOf(m map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s %d%%", name, m[name]))
	}
	return strings.Join(parts, ", ")
}

// Apply implements deploy.Target.
func (k *Knative) Apply(ctx context.Context, p *deploy.Plan) (*deploy.Outcome, error) {
	if err := k.t.checkImage(p.Release); err != nil {
		return nil, err
	}
	s, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	if s.revision() != p.Revision {
		return nil, fmt.Errorf("%w: service %s/%s", deploy.ErrConflict, k.t.c.Namespace, k.t.c.Name)
	}
	want := k.template(p.Release)
	name := want.text("metadata", "name")
	if len(p.Changes) == 0 {
		return k.outcome(s, name, s.weight(p.Release, name), p.From), nil
	}
	return k.move(ctx, s, want, s.weight(p.Release, name), p.Release.Wait)
}

// Rollback implements deploy.Target.
func (k *Knative) Rollback(ctx context.Context, to artifact.Digest, wait time.Duration) (*deploy.Outcome, error) {
	s, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	if s.svc == nil {
		return nil, fmt.Errorf("%w: there is no service %s/%s", deploy.ErrNotFound, k.t.c.Namespace, k.t.c.Name)
	}
	if to == "" && s.canary() != "" {
		return k.all(ctx, s, s.stable(), wait)
	}
	cause := deploy.ErrNotFound
	if to == "" {
		if to = artifact.Digest(s.note(annPrevious)); to == "" {
			return nil, fmt.Errorf("%w: nothing served before", deploy.ErrNotFound)
		}
		cause = deploy.ErrGone
	}
	if names := s.ofDigest(to, s.stable(), s.canary()); len(names) > 0 {
		return k.all(ctx, s, names[0], wait)
	}
	return nil, fmt.Errorf("%w: no ready revision of %s is kept", cause, to)
}

// Promote implements deploy.Promoter.
func (k *Knative) Promote(ctx context.Context, wait time.Duration) (*deploy.Outcome, error) {
	s, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	name := cmp.Or(s.canary(), s.stable())
	if name == "" {
		return nil, fmt.Errorf("%w: service %s/%s serves nothing", deploy.ErrNotFound, k.t.c.Namespace, k.t.c.Name)
	}
	return k.all(ctx, s, name, wait)
}

// all gives all traffic to a revision that exists.
func (k *Knative) all(ctx context.Context, s *knState, name string, wait time.Duration) (*deploy.Outcome, error) {
	rev := s.rev(name)
	if rev == nil {
		return nil, fmt.Errorf("%w: revision %s was deleted", deploy.ErrGone, name)
	}
	if s.asked()[name] == 100 && s.pinned() && s.given()[name] == 100 && s.svc.text("spec", "template", "metadata", "name") == name {
		return k.outcome(s, name, 100, s.digest(s.stable())), nil
	}
	return k.move(ctx, s, templateOf(rev), 100, wait)
}

func (k *Knative) outcome(s *knState, name string, weight int, before artifact.Digest) *deploy.Outcome {
	x := knShare(s.rev(name), name)
	return &deploy.Outcome{
		Digest: x.Digest, Previous: before, Image: x.Image, Weight: weight, URL: s.svc.text("status", "url"),
		IDs: map[string]string{"namespace": k.t.c.Namespace, "service": k.t.c.Name, "revision": name, "uid": s.svc.text("metadata", "uid"), "generation": fmt.Sprint(s.svc.number("metadata", "generation"))},
	}
}
