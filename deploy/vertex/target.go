// Package vertex deploys to Vertex AI's online prediction: an endpoint is the place; what runs there are deployed models, each the
// deployment of one version of a model, which holds the image; the endpoint's traffic split is the traffic.
//
// What Waybill knows is read from Vertex AI: the digest of the artifact stands in labels of each model version, and the endpoint's labels
// tell which deployed model served before and which is a canary, written by the very call that moves the traffic, on condition of the
// endpoint's etag. Deploying, which has no such condition, never touches the traffic.
package vertex

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/oauth2"
	api "google.golang.org/api/aiplatform/v1"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/google"
	"github.com/waybill-ml/waybill/oci/artifact"
)

const platform = "Vertex AI"

type (
	endpoint  = api.GoogleCloudAiplatformV1Endpoint
	deployed  = api.GoogleCloudAiplatformV1DeployedModel
	model     = api.GoogleCloudAiplatformV1Model
	container = api.GoogleCloudAiplatformV1ModelContainerSpec
)

// Labels of a model version.
const (
	labelDigest = "waybill-digest" // see google.Label
	labelSpec   = "waybill-spec"   // of the container's specification
)

// Labels of an endpoint.
const (
	labelMove            = "waybill-move"             // counts what Waybill wrote
	labelPrevious        = "waybill-previous"         // deployed model that served before
	labelPreviousVersion = "waybill-previous-version" // its model version, by which it can be deployed again
	labelCanary          = "waybill-canary"           // deployed model
	labelScale           = "waybill-scale"            // replicas that were last asked for
)

// defaultWait is for a release without one: machines take minutes to come.
const defaultWait = 30 * time.Minute

// Target implements deploy.Target and deploy.Promoter.
type Target struct {
	s    Settings
	c    *api.Service
	call *google.Caller
}

// New makes a target that calls with the tokens of ts, which is safe for concurrent use and caches. It contacts nobody.
func New(ctx context.Context, ts oauth2.TokenSource, s Settings) (*Target, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	t := &Target{s: s.filled()}
	t.call = google.New(platform, ts, t.s.Backoff, t.s.Log)
	c, err := api.NewService(ctx, t.call.Options(t.s.API)...)
	if err != nil {
		return nil, fmt.Errorf("%s: the client: %w", platform, err)
	}
	t.c = c
	return t, nil
}

func (t *Target) parent() string { return "projects/" + t.s.Project + "/locations/" + t.s.Region }
func (t *Target) name() string   { return t.parent() + "/endpoints/" + t.s.Endpoint }
func (t *Target) model() string  { return t.parent() + "/models/" + t.s.Model }

// state is what Vertex AI has.
type state struct {
	ep   *endpoint           // nil: none
	vers map[string]*model   // of the target's model, by version id
	of   func(string) string // version id of the target's model that a resource name and version id mean; empty: another model
}

// read asks for everything that moves are decided on.
func (t *Target) read(ctx context.Context) (*state, error) {
	st := &state{vers: map[string]*model{}, of: t.versionIn}
	err := t.call.Call(ctx, "read the endpoint", func(ctx context.Context) (err error) {
		st.ep, err = t.c.Projects.Locations.Endpoints.Get(t.name()).Context(ctx).Do()
		return err
	})
	if errors.Is(err, deploy.ErrGone) {
		st.ep = nil
	} else if err != nil {
		return nil, err
	}
	return st, t.call.Call(ctx, "list the model versions", func(ctx context.Context) (err error) {
		st.vers, err = t.versions(ctx)
		return err
	})
}

// versions lists those of the model, once.
func (t *Target) versions(ctx context.Context) (map[string]*model, error) {
	out := map[string]*model{}
	for page := ""; ; {
		l, err := t.c.Projects.Locations.Models.ListVersions(t.model()).PageSize(100).PageToken(page).Context(ctx).Do()
		if google.Missing(err) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		for _, m := range l.Models {
			out[m.VersionId] = m
		}
		if page = l.NextPageToken; page == "" {
			return out, nil
		}
	}
}

// versionIn is empty when the resource is no version of the target's model. Names come with the project's number instead of its id.
func (t *Target) versionIn(name string) string {
	name, version, _ := strings.Cut(name, "@")
	if !strings.HasSuffix(name, "/locations/"+t.s.Region+"/models/"+t.s.Model) {
		return ""
	}
	return version
}

// dm is nil when there is none of the id.
func (st *state) dm(id string) *deployed {
	if st.ep == nil || id == "" {
		return nil
	}
	for _, d := range st.ep.DeployedModels {
		if d.Id == id {
			return d
		}
	}
	return nil
}

// ver is what d is the deployment of; nil when it is none of the target's model.
func (st *state) ver(d *deployed) *model {
	if d == nil {
		return nil
	}
	name, _, _ := strings.Cut(d.Model, "@")
	return st.vers[st.of(name+"@"+d.ModelVersionId)]
}

// byAge gives the versions, newest first.
func (st *state) byAge() []*model {
	return slices.SortedFunc(maps.Values(st.vers), func(a, b *model) int { return cmp.Compare(number(b.VersionId), number(a.VersionId)) })
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// digestOf is the artifact that m runs; empty when Waybill did not make m: where the platform gives the container's specification back, it
// must be the one that the labels are about.
func digestOf(m *model) artifact.Digest {
	if m == nil || m.Labels[labelSpec] == "" {
		return ""
	}
	d := google.Labelled(m.Labels, labelDigest)
	if c := m.ContainerSpec; c != nil && (hash(c) != m.Labels[labelSpec] || !slices.ContainsFunc(c.Env, func(e *api.GoogleCloudAiplatformV1EnvVar) bool {
		return e.Name == DigestVariable && e.Value == string(d)
	})) {
		return ""
	}
	return d
}

// hash is of everything that the target sets of a container.
func hash(c *container) string {
	var env, ports []string
	for _, e := range c.Env {
		env = append(env, e.Name+"="+e.Value)
	}
	slices.Sort(env)
	for _, p := range c.Ports {
		ports = append(ports, fmt.Sprint(p.ContainerPort))
	}
	raw, _ := json.Marshal([]any{c.ImageUri, env, ports, c.PredictRoute, c.HealthRoute, c.Command, c.Args}) // of texts: it cannot fail
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:12])
}

// version is the token of a state. An etag may change with every status; this does with what users change.
func version(st *state) string {
	if st.ep == nil {
		return "absent"
	}
	var serving []string
	for _, d := range st.ep.DeployedModels {
		if st.ep.TrafficSplit[d.Id] > 0 {
			serving = append(serving, fmt.Sprint(d.Id, d.Model, d.ModelVersionId, machineOf(d), scaleOf(d), d.ServiceAccount))
		}
	}
	slices.Sort(serving)
	sum := sha256.Sum256([]byte(traffic(st) + strings.Join(serving, "\n")))
	return fmt.Sprintf("%s/%s", cmp.Or(st.ep.Labels[labelMove], "0"), hex.EncodeToString(sum[:8]))
}

// traffic is what a move changes, as a text.
func traffic(st *state) string {
	if st.ep == nil {
		return "absent"
	}
	l := st.ep.Labels
	return fmt.Sprint(st.ep.CreateTime, show(st.ep.TrafficSplit), l[labelMove], l[labelPrevious], l[labelPreviousVersion], l[labelCanary])
}

// show writes a split as a text that is equal for equal ones.
func show(split map[string]int64) string {
	var out []string
	for _, id := range slices.Sorted(maps.Keys(split)) {
		if split[id] > 0 {
			out = append(out, fmt.Sprintf("%s %d%%", id, split[id]))
		}
	}
	return strings.Join(out, ", ")
}

func machineOf(d *deployed) string {
	if d.DedicatedResources == nil || d.DedicatedResources.MachineSpec == nil {
		return ""
	}
	return d.DedicatedResources.MachineSpec.MachineType
}

func scale(least, most int64) string { return fmt.Sprintf("%d-%d", least, max(least, most)) }

func scaleOf(d *deployed) string {
	if d.DedicatedResources == nil {
		return ""
	}
	return scale(d.DedicatedResources.MinReplicaCount, d.DedicatedResources.MaxReplicaCount)
}

// canary is the deployed model that is tried beside the stable one; empty: none.
func (st *state) canary() string {
	if st.ep == nil {
		return ""
	}
	id := st.ep.Labels[labelCanary]
	if w := st.ep.TrafficSplit[id]; w <= 0 || w >= 100 {
		return ""
	}
	return id
}

// stable is the deployed model that serves and is no canary: the largest where several do.
func (st *state) stable() string {
	if st.ep == nil {
		return ""
	}
	best, most, canary := "", int64(0), st.canary()
	for id, w := range st.ep.TrafficSplit {
		if id != canary && (w > most || w == most && w > 0 && id < best) {
			best, most = id, w
		}
	}
	return best
}

// digest is what the deployed model of the id runs.
func (st *state) digest(id string) artifact.Digest { return digestOf(st.ver(st.dm(id))) }

// moved is the split, and the labels without the count, when the deployed model id, of digest d, has weight percent and the stable one the
// rest. What served before is remembered; another deployment of the same artifact is not before it.
func (st *state) moved(id string, d artifact.Digest, weight int) (map[string]int64, map[string]string) {
	stable := st.stable()
	labels := maps.Clone(st.ep.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	for _, k := range []string{labelPrevious, labelPreviousVersion, labelCanary, labelMove} {
		delete(labels, k)
	}
	prev, prevVersion := st.ep.Labels[labelPrevious], st.ep.Labels[labelPreviousVersion]
	split, main := map[string]int64{id: 100}, d
	if weight%100 == 0 || stable == "" || stable == id {
		if stable != "" && stable != id && (st.digest(stable) == "" || st.digest(stable) != d) {
			prev, prevVersion = stable, ""
			if st.digest(stable) != "" {
				prevVersion = st.dm(stable).ModelVersionId
			}
		}
	} else {
		split = map[string]int64{stable: int64(100 - weight), id: int64(weight)}
		labels[labelCanary], main = id, st.digest(stable)
	}
	before := digestOf(st.vers[prevVersion])
	if d := st.digest(prev); d != "" {
		before = d
	}
	switch {
	case prev == "" || split[prev] > 0 || before != "" && before == main || st.dm(prev) == nil && before == "":
	default:
		labels[labelPrevious] = prev
		if prevVersion != "" {
			labels[labelPreviousVersion] = prevVersion
		}
	}
	return split, labels
}

// unwanted are those of Waybill's deployed models among ds that neither get traffic nor served before.
func (st *state) unwanted(ds []*deployed, split map[string]int64, labels map[string]string) []*deployed {
	var out []*deployed
	for _, d := range ds {
		if digestOf(st.ver(d)) != "" && split[d.Id] == 0 && labels[labelPrevious] != d.Id {
			out = append(out, d)
		}
	}
	return out
}

// Status implements deploy.Target.
func (t *Target) Status(ctx context.Context) (*deploy.Status, error) {
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	out := &deploy.Status{Revision: version(st), Settled: true}
	if st.ep == nil {
		return out, nil
	}
	if out.Settled, err = t.idle(ctx); err != nil {
		return nil, err
	}
	out.Exists, out.URL, out.Healthy = true, t.url(st.ep), true // Vertex AI has no word for the state of an endpoint
	seen := map[artifact.Digest]bool{}
	at := map[string]*deployed{} // by version
	for _, d := range st.ep.DeployedModels {
		at[d.ModelVersionId] = d
	}
	for id, w := range st.ep.TrafficSplit {
		if w <= 0 {
			continue
		}
		x := deploy.Share{ID: id, Weight: int(w)}
		d := st.dm(id)
		if m := st.ver(d); m != nil {
			x = share(m, id)
			x.Weight = int(w)
		}
		if d == nil {
			out.Healthy, out.Reason = false, "deployed model "+id+" is not there"
		} else {
			x.Since, _ = time.Parse(time.RFC3339Nano, d.CreateTime)
			if s := d.Status; s != nil && s.AvailableReplicaCount == 0 && s.Message != "" {
				out.Healthy, out.Reason = false, t.call.Redact(s.Message)
			}
		}
		x.Canary = id == st.canary()
		seen[x.Digest] = true
		out.Shares = append(out.Shares, x)
	}
	slices.SortFunc(out.Shares, func(a, b deploy.Share) int {
		return cmp.Or(cmp.Compare(b.Weight, a.Weight), cmp.Compare(a.ID, b.ID))
	})
	for _, m := range st.byAge() {
		if d := digestOf(m); d != "" && !seen[d] {
			seen[d] = true
			id := t.s.Model + "@" + m.VersionId
			if x := at[m.VersionId]; st.ver(x) == m {
				id = x.Id
			}
			out.Kept = append(out.Kept, share(m, id))
		}
	}
	if len(out.Shares) == 0 {
		out.Healthy = false
	}
	return out, nil
}

func share(m *model, id string) deploy.Share {
	x := deploy.Share{Digest: digestOf(m), ID: id, Labels: m.Labels}
	if m.ContainerSpec != nil {
		x.Image = m.ContainerSpec.ImageUri
	}
	x.Since, _ = time.Parse(time.RFC3339Nano, m.VersionCreateTime)
	return x
}

// idle tells whether no operation of the endpoint is under way.
func (t *Target) idle(ctx context.Context) (bool, error) {
	for page := ""; ; {
		var l *api.GoogleLongrunningListOperationsResponse
		err := t.call.Call(ctx, "list the operations", func(ctx context.Context) (err error) {
			l, err = t.c.Projects.Locations.Endpoints.Operations.List(t.name()).PageSize(100).PageToken(page).Context(ctx).Do()
			return err
		})
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(l.Operations, func(o *api.GoogleLongrunningOperation) bool { return !o.Done }) {
			return false, nil
		}
		if page = l.NextPageToken; page == "" {
			return true, nil
		}
	}
}

func (t *Target) url(ep *endpoint) string {
	base := t.s.API
	if ep.DedicatedEndpointDns != "" {
		base = "https://" + strings.TrimPrefix(ep.DedicatedEndpointDns, "https://")
	}
	return strings.TrimSuffix(base, "/") + "/v1/" + t.name() + ":predict"
}
