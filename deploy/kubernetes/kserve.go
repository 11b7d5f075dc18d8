package kubernetes

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// KServe is the target of KServe in its serverless mode: one InferenceService (serving.kserve.io/v1beta1) whose predictor is the
// image's container. KServe makes Knative revisions of it, named by counting; what they run stands in their annotations. Its spec has
// one predictor and the percentage that the latest revision gets: the rest goes to the one that last had everything. What can be rolled
// back to are the revisions that Knative keeps; their predictor is written again, as KServe has no way to name one.
//
// All that stands in the annotations of the InferenceService itself goes into its revisions, so that a mark there would make a new one
// with each write: the marks stand in the predictor, and the generation tells whether somebody else wrote.
type KServe struct {
	t        *Target
	min, max int // instances; max 0: Knative's own default
}

const (
	annWrite  = "waybill.dev/write" // that the predictor comes from, so that its revision is found
	annMode   = "serving.kserve.io/deploymentMode"
	kserveAPI = "/apis/serving.kserve.io/v1beta1"

	serverless      = "Serverless"
	kserveContainer = "kserve-container" // KServe looks for this name

	// maxKServeName leaves room for "-predictor-00001" and what Knative has behind that for its own names.
	maxKServeName = 40
)

// NewKServe checks c, whose Replicas and Port are of no interest here, and the bounds of the instances. It contacts nobody.
func NewKServe(c Config, least, most int) (*KServe, error) {
	t, err := New(c)
	if err != nil {
		return nil, err
	}
	if len(c.Name) > maxKServeName {
		return nil, fmt.Errorf("name %q: at most %d characters, since revisions are named after it", c.Name, maxKServeName)
	}
	if least < 0 || most < 0 || most > 0 && least > most {
		return nil, fmt.Errorf("from %d to %d instances", least, most)
	}
	return &KServe{t: t, min: least, max: most}, nil
}

func (k *KServe) collection() string { return k.t.path(kserveAPI, "inferenceservices") }
func (k *KServe) path() string       { return k.collection() + "/" + k.t.c.Name }

// ksState is what was read.
type ksState struct {
	svc object // nil: absent
	revisions
}

func (k *KServe) read(ctx context.Context) (*ksState, error) {
	s := &ksState{}
	var err error
	if s.svc, err = k.t.get(ctx, k.path()); err != nil {
		if errors.Is(err, errAbsent) {
			return s, nil
		}
		return nil, err
	}
	s.revisions, err = k.t.readRevisions(ctx, "serving.kserve.io/inferenceservice", k.t.c.Name)
	return s, err
}

func (s *ksState) predictor() object { return s.svc.object("spec", "predictor") }
func (s *ksState) component() object { return s.svc.object("status", "components", "predictor") }
func (s *ksState) latest() string    { return s.component().text("latestReadyRevision") }

// percent is the share that the spec asks for the latest revision.
func (s *ksState) percent() int { return percentOf(s.predictor()) }

func percentOf(predictor object) int {
	if predictor.at("canaryTrafficPercent") == nil {
		return 100
	}
	return predictor.number("canaryTrafficPercent")
}

func setPercent(predictor object, n int) {
	if delete(predictor, "canaryTrafficPercent"); n != 100 {
		predictor["canaryTrafficPercent"] = float64(n)
	}
}

// current is the revision that was made of the predictor; empty: not yet, or no longer.
func (s *ksState) current() string {
	mark := s.predictor().text("annotations", annWrite)
	if mark == "" { // not ours
		return s.component().text("latestCreatedRevision")
	}
	for _, r := range s.revisions {
		if r.text("metadata", "annotations", annWrite) == mark {
			return r.text("metadata", "name")
		}
	}
	return ""
}

// given is the traffic that the routes give.
func (s *ksState) given() map[string]int { return givenBy(s.component().list("traffic")) }

// canary is the revision that is tried beside the stable one; empty: none.
func (s *ksState) canary() string {
	name := s.current()
	if n := s.given()[name]; s.percent() == 100 || n == 0 || n == 100 {
		return ""
	}
	return name
}

// stable is the revision that serves and is no canary: the largest where several do.
func (s *ksState) stable() string { return largest(s.given(), s.canary()) }

// revision names the state that a plan is made of.
func (s *ksState) revision() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", s.svc.text("metadata", "uid"), s.svc.number("metadata", "generation")))
	return hex.EncodeToString(sum[:12])
}

// settled tells whether the controllers have come to the end of what the spec asks for, well or not. KServe's observedGeneration is
// of no help: it is that of the Knative Service.
func (s *ksState) settled() bool {
	now := s.current()
	switch s.ready(now) {
	case "False":
		return s.given()[now] == 0
	case "True":
		return s.given()[now] == s.percent() || s.percent() < 100 && s.given()[now] == 100 // there is nothing else
	}
	return false
}

// Status implements deploy.Target.
func (k *KServe) Status(ctx context.Context) (*deploy.Status, error) {
	s, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	if s.svc == nil {
		return &deploy.Status{Revision: s.revision(), State: "absent", Settled: true}, nil
	}
	out := &deploy.Status{Exists: true, Revision: s.revision(), Settled: s.settled(), Healthy: true, State: "Deploying", URL: s.svc.text("status", "url")}
	if now := s.current(); out.Settled {
		out.State = "Ready"
		if c := conditionOf(s.rev(now), "Ready"); c.text("status") == "False" {
			out.State, out.Reason = "Failed", strings.TrimSpace(c.text("reason")+" "+c.text("message"))
		}
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

// bare is what of a predictor follows from the settings alone.
func (k *KServe) bare() object {
	o := object{
		"labels":      map[string]any{labelApp: k.t.c.Name},
		"minReplicas": k.min, // KServe's default is one
		"containers":  []any{map[string]any(k.t.knContainer(kserveContainer))},
	}
	if k.max > 0 {
		o["maxReplicas"] = k.max
	}
	return o
}

// template is the predictor of a release, but for the percentage and the marks of a write.
func (k *KServe) template(r deploy.Release) object {
	notes := map[string]any{annDigest: string(r.Digest), annSettings: hashed(k.bare(), 24)}
	if r.Model != "" {
		notes[annModel] = r.Model + " " + r.Ver
	}
	o := k.bare()
	o["annotations"] = notes
	o.list("containers")[0]["image"] = r.Image
	return clone(o)
}

// predictorOf brings back the predictor that a revision was made of, with the defaults that its container has got since.
func predictorOf(rev object) object {
	from := rev.object("metadata", "annotations")
	notes := map[string]any{}
	for name, v := range from {
		if strings.HasPrefix(name, "waybill.dev/") && name != annPrevious {
			notes[name] = v
		}
	}
	o := object{"annotations": notes, "containers": rev.at("spec", "containers")}
	if app := rev.text("metadata", "labels", labelApp); app != "" {
		o["labels"] = map[string]any{labelApp: app}
	}
	for key, name := range map[string]string{"minReplicas": "min-scale", "maxReplicas": "max-scale"} {
		if n, err := strconv.Atoi(from.text(annScale + name)); err == nil {
			o[key] = n
		}
	}
	return clone(o)
}

// sameAs tells whether the predictor is that of a template.
func (s *ksState) sameAs(template object) bool {
	live := s.predictor()
	return live != nil && len(diff(template, live, "")) == 0 && (template.at("maxReplicas") != nil || live.at("maxReplicas") == nil)
}

// weight of a release: all where nothing else of another artifact serves.
func (s *ksState) weight(r deploy.Release) int {
	stable := s.stable()
	if r.Weight%100 == 0 || stable == "" || s.digest(stable) == r.Digest {
		return 100
	}
	return r.Weight
}

// serverless refuses an InferenceService that KServe does not run on Knative: it has no revisions.
func (s *ksState) serverless() error {
	if mode := s.svc.text("metadata", "annotations", annMode); mode != "" && mode != serverless && mode != "Knative" {
		return fmt.Errorf("%w: inference service %s has the deployment mode %s; only %s has revisions to move between", deploy.ErrRelease, s.svc.text("metadata", "name"), mode, serverless)
	}
	return nil
}

// Plan implements deploy.Target.
func (k *KServe) Plan(ctx context.Context, r deploy.Release) (*deploy.Plan, error) {
	if err := k.t.checkImage(r); err != nil {
		return nil, err
	}
	s, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.serverless(); err != nil {
		return nil, err
	}
	want := k.template(r)
	p := &deploy.Plan{Release: r, From: s.digest(s.stable()), Revision: s.revision(), Create: s.svc == nil}
	if s.svc == nil {
		p.Changes = []deploy.Change{{Field: "inferenceservice", New: k.t.c.Namespace + "/" + k.t.c.Name}, {Field: "image", New: r.Image}}
		return p, nil
	}
	live := s.predictor()
	settings := live.text("annotations", annSettings) == want.text("annotations", annSettings)
	changes := diff(want, live, "predictor.")
	if want.at("maxReplicas") == nil && live.at("maxReplicas") != nil {
		changes = append(changes, deploy.Change{Field: "predictor.maxReplicas", Old: word(live.at("maxReplicas"))})
	}
	for _, ch := range changes {
		if ch.Field == "predictor.annotations."+annSettings {
			continue
		}
		p.Changes = append(p.Changes, ch)
		if settings && !ofRelease(ch.Field) {
			p.Drift = append(p.Drift, ch)
		}
	}
	if from, to := s.percent(), s.weight(r); from != to {
		p.Changes = append(p.Changes, deploy.Change{Field: "traffic", Old: fmt.Sprintf("%d%% for the latest revision", from), New: fmt.Sprintf("%d%% for the latest revision", to)})
	}
	if len(p.Changes) == 0 && !(s.settled() && s.given()[s.current()] > 0) {
		p.Changes = append(p.Changes, deploy.Change{Field: "rollout", Old: "not finished", New: "finished"})
	}
	return p, nil
}

// Apply implements deploy.Target.
func (k *KServe) Apply(ctx context.Context, p *deploy.Plan) (*deploy.Outcome, error) {
	if err := k.t.checkImage(p.Release); err != nil {
		return nil, err
	}
	s, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	if s.revision() != p.Revision {
		return nil, fmt.Errorf("%w: inference service %s/%s", deploy.ErrConflict, k.t.c.Namespace, k.t.c.Name)
	}
	weight := s.weight(p.Release)
	if len(p.Changes) == 0 {
		return k.outcome(s, s.current(), weight, p.From), nil
	}
	return k.move(ctx, s, k.template(p.Release), weight, p.Release.Wait)
}

// Rollback implements deploy.Target.
func (k *KServe) Rollback(ctx context.Context, to artifact.Digest, wait time.Duration) (*deploy.Outcome, error) {
	s, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	if s.svc == nil {
		return nil, fmt.Errorf("%w: there is no inference service %s/%s", deploy.ErrNotFound, k.t.c.Namespace, k.t.c.Name)
	}
	if err := s.serverless(); err != nil {
		return nil, err
	}
	if to == "" && s.canary() != "" {
		return k.all(ctx, s, s.stable(), wait)
	}
	cause := deploy.ErrNotFound
	if to == "" {
		if to = artifact.Digest(s.rev(s.stable()).text("metadata", "annotations", annPrevious)); to == "" {
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
func (k *KServe) Promote(ctx context.Context, wait time.Duration) (*deploy.Outcome, error) {
	s, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	name := cmp.Or(s.canary(), s.stable())
	if name == "" {
		return nil, fmt.Errorf("%w: inference service %s/%s serves nothing", deploy.ErrNotFound, k.t.c.Namespace, k.t.c.Name)
	}
	return k.all(ctx, s, name, wait)
}

// all gives all traffic to what a revision that exists is.
func (k *KServe) all(ctx context.Context, s *ksState, name string, wait time.Duration) (*deploy.Outcome, error) {
	rev := s.rev(name)
	if rev == nil {
		return nil, fmt.Errorf("%w: revision %s was deleted", deploy.ErrGone, name)
	}
	if s.current() == name && s.percent() == 100 && s.given()[name] == 100 {
		return k.outcome(s, name, 100, s.digest(s.stable())), nil
	}
	template := predictorOf(rev)
	if s.current() == name { // without the defaults that the revision has got
		template = clone(s.predictor())
		delete(template, "canaryTrafficPercent")
	}
	return k.move(ctx, s, template, 100, wait)
}

func (k *KServe) outcome(s *ksState, name string, weight int, before artifact.Digest) *deploy.Outcome {
	x := knShare(s.rev(name), name)
	return &deploy.Outcome{
		Digest: x.Digest, Previous: before, Image: x.Image, Weight: weight, URL: s.svc.text("status", "url"),
		IDs: map[string]string{"namespace": k.t.c.Namespace, "inferenceservice": k.t.c.Name, "revision": name, "uid": s.svc.text("metadata", "uid"), "generation": fmt.Sprint(s.svc.number("metadata", "generation"))},
	}
}

// givenBy sums the shares of a status by revision.
func givenBy(traffic []map[string]any) map[string]int {
	out := map[string]int{}
	for _, x := range traffic {
		if n := object(x).number("percent"); n > 0 {
			out[object(x).text("revisionName")] += n
		}
	}
	return out
}

// largest is the name with the most percent that is not but.
func largest(shares map[string]int, but string) string {
	best, most := "", 0
	for _, name := range slices.Sorted(maps.Keys(shares)) {
		if n := shares[name]; name != but && n > most {
			best, most = name, n
		}
	}
	return best
}

var _ deploy.Promoter = (*KServe)(nil)
