// Package azureml deploys to Azure Machine Learning: a managed online endpoint is the place, its deployments are the revisions, its
// traffic map is the traffic. A deployment is never changed: other settings make another one, which gets no traffic before it is ready.
//
// What Waybill knows is read from Azure: a deployment's tags hold the artifact's digest and its own name, the endpoint's tags hold the
// deployments that served before, the canary, and a count of the moves, written by the very call that moves the traffic.
//
// Resource Manager has no If-Match for endpoints. Two deploys at once are told apart otherwise: before it moves traffic to its new
// deployment, a deploy deletes every deployment of Waybill's that never served, looks whether the endpoint is as planned, and then
// writes a traffic map, which the platform refuses when it names a deployment that is not there. So of two deploys at most one is
// left with a deployment that it can give traffic to. Between two moves to deployments that already served, the later call wins.
package azureml

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Tags of deployments.
const (
	tagDigest   = "waybill-digest"
	tagName     = "waybill-deployment"
	tagImage    = "waybill-image"
	tagSettings = "waybill-settings" // hash of what the target set
)

// Tags of the endpoint.
const (
	tagPrevious = "waybill-previous" // deployments that served before, newest first
	tagCanary   = "waybill-canary"
	tagMoves    = "waybill-moves"
)

// defaultWait is for a release without one.
const defaultWait = 30 * time.Minute

// Target implements deploy.Target and deploy.Promoter.
type Target struct {
	s Settings
	c *client
}

// New makes a target that calls with the tokens of cred. It contacts nobody.
func New(cred azcore.TokenCredential, s Settings) (*Target, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	t := &Target{s: s.filled()}
	c, err := newClient(cred, t.s)
	if err != nil {
		return nil, fmt.Errorf("Azure ML: the client: %w", err)
	}
	t.c = c
	return t, nil
}

func (t *Target) workspace() string {
	return "/subscriptions/" + t.s.Subscription + "/resourceGroups/" + t.s.ResourceGroup + "/providers/Microsoft.MachineLearningServices/workspaces/" + t.s.Workspace
}
func (t *Target) id() string               { return t.workspace() + "/onlineEndpoints/" + t.s.Endpoint }
func (t *Target) depID(name string) string { return t.id() + "/deployments/" + name }
func (t *Target) envID(version string) string {
	return t.workspace() + "/environments/waybill-" + t.s.Endpoint + "/versions/" + version
}

func at(id string) string { return id + "?api-version=" + apiVersion }

// endpoint is what the target reads of one; doc is all of it.
type endpoint struct {
	Tags       map[string]string
	Properties struct {
		ProvisioningState string
		ScoringURI        string
		Traffic           map[string]int
	}
	SystemData struct{ CreatedAt string }
	doc        map[string]any
}

type route struct {
	Path string `json:"path"`
	Port int64  `json:"port"`
}

type probe struct {
	InitialDelay     string `json:"initialDelay"`
	Period           string `json:"period"`
	Timeout          string `json:"timeout"`
	SuccessThreshold int    `json:"successThreshold"`
	FailureThreshold int    `json:"failureThreshold"`
}

// deployment is what the target sets, and the state.
type deployment struct {
	Name       string                      `json:"name,omitempty"`
	Location   string                      `json:"location"`
	Tags       map[string]string           `json:"tags"`
	SKU        sku                         `json:"sku"`
	Properties depProperties               `json:"properties"`
	SystemData *struct{ CreatedAt string } `json:"systemData,omitempty"`
}

type sku struct {
	Name     string `json:"name"`
	Capacity int64  `json:"capacity"`
}

type depProperties struct {
	EndpointComputeType  string            `json:"endpointComputeType"`
	EnvironmentID        string            `json:"environmentId"`
	EnvironmentVariables map[string]string `json:"environmentVariables"`
	InstanceType         string            `json:"instanceType"`
	LivenessProbe        *probe            `json:"livenessProbe,omitempty"`
	ReadinessProbe       *probe            `json:"readinessProbe,omitempty"`
	RequestSettings      *requests         `json:"requestSettings,omitempty"`
	ScaleSettings        *scale            `json:"scaleSettings,omitempty"`
	ProvisioningState    string            `json:"provisioningState,omitempty"`
}

type requests struct {
	MaxConcurrentRequestsPerInstance int64  `json:"maxConcurrentRequestsPerInstance"`
	RequestTimeout                   string `json:"requestTimeout"`
}

type scale struct {
	ScaleType string `json:"scaleType"`
}

func (d *deployment) healthy() bool { return d.Properties.ProvisioningState == "Succeeded" }
func (d *deployment) failed() bool {
	return slices.Contains([]string{"Failed", "Canceled", "Deleting"}, d.Properties.ProvisioningState)
}

// ours tells whether Waybill made d.
func (d *deployment) ours() bool { return d != nil && d.Tags[tagName] == d.Name && d.Name != "" }

// digest is the artifact that d runs; empty when Waybill did not make d.
func (d *deployment) digest() artifact.Digest {
	if !d.ours() {
		return ""
	}
	x, err := artifact.ParseDigest(d.Tags[tagDigest])
	if err != nil {
		return ""
	}
	return x
}

// image is empty where the environment is not the one that Waybill made for it.
func (d *deployment) image() string {
	if !d.ours() {
		return ""
	}
	img := d.Tags[tagImage]
	_, dg, err := deploy.SplitImage(img)
	if err != nil || !strings.Contains(d.Properties.EnvironmentID, "/versions/"+string(dg)[7:39]) {
		return ""
	}
	return img
}

func (d *deployment) since() time.Time {
	if d.SystemData == nil {
		return time.Time{}
	}
	at, _ := time.Parse(time.RFC3339Nano, d.SystemData.CreatedAt)
	return at
}

// state is what Azure has. The deployments are read before the endpoint: what is written after a read is decided on the youngest traffic.
type state struct {
	ep   *endpoint     // nil: none
	deps []*deployment // newest first
}

// read asks for everything that moves are decided on; also are deployments that matter too.
func (t *Target) read(ctx context.Context, also ...string) (*state, error) {
	st := &state{}
	for next := at(t.id() + "/deployments"); next != ""; {
		a, err := t.c.call(ctx, "list the deployments", "GET", next, nil)
		if errors.Is(err, deploy.ErrGone) {
			break // the endpoint is looked at next
		}
		if err != nil {
			return nil, err
		}
		var page struct {
			Value    []*deployment
			NextLink string
		}
		if err := json.Unmarshal(a.body, &page); err != nil {
			return nil, fmt.Errorf("%w: Azure ML: the list of deployments cannot be read: %w", deploy.ErrUnavailable, err)
		}
		st.deps = append(st.deps, page.Value...)
		next = page.NextLink
	}
	a, err := t.c.call(ctx, "read the endpoint", "GET", at(t.id()), nil)
	if errors.Is(err, deploy.ErrGone) {
		return &state{}, nil
	}
	if err != nil {
		return nil, err
	}
	st.ep = &endpoint{}
	if err := errors.Join(json.Unmarshal(a.body, st.ep), json.Unmarshal(a.body, &st.ep.doc)); err != nil {
		return nil, fmt.Errorf("%w: Azure ML: the endpoint cannot be read: %w", deploy.ErrUnavailable, err)
	}
	for _, name := range slices.Concat(slices.Sorted(maps.Keys(st.shares())), st.history(), also) {
		if err := t.find(ctx, st, name); err != nil {
			return nil, err
		}
	}
	slices.SortStableFunc(st.deps, func(a, b *deployment) int { return b.since().Compare(a.since()) })
	return st, nil
}

// find looks for a deployment by its name that the list does not have: pages shift while a deployment goes.
func (t *Target) find(ctx context.Context, st *state, name string) error {
	if st.dep(name) != nil {
		return nil
	}
	a, err := t.c.call(ctx, "read deployment "+name, "GET", at(t.depID(name)), nil)
	if errors.Is(err, deploy.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	d := &deployment{}
	if err := json.Unmarshal(a.body, d); err != nil {
		return fmt.Errorf("%w: Azure ML: deployment %s cannot be read: %w", deploy.ErrUnavailable, name, err)
	}
	st.deps = append(st.deps, d)
	return nil
}

func (st *state) settled() bool {
	return st.ep == nil || slices.Contains([]string{"Succeeded", "Failed", "Canceled"}, st.ep.Properties.ProvisioningState)
}

// version is the token of a state.
func (st *state) version() string {
	if st.ep == nil {
		return "absent"
	}
	return fmt.Sprintf("%s/%s/%s", st.ep.SystemData.CreatedAt, cmp.Or(st.ep.Tags[tagMoves], "0"), show(st.ep.Properties.Traffic))
}

func (st *state) dep(name string) *deployment {
	for _, d := range st.deps {
		if d.Name == name && name != "" {
			return d
		}
	}
	return nil
}

// shares are the percents above 0.
func (st *state) shares() map[string]int {
	out := map[string]int{}
	if st.ep != nil {
		maps.Copy(out, st.ep.Properties.Traffic)
		maps.DeleteFunc(out, func(_ string, w int) bool { return w <= 0 })
	}
	return out
}

// canary is the deployment that is tried beside the stable one; empty: none.
func (st *state) canary() string {
	if st.ep == nil {
		return ""
	}
	name := st.ep.Tags[tagCanary]
	if w := st.shares()[name]; w == 0 || w == 100 {
		return ""
	}
	return name
}

// stable is the deployment that serves and is no canary: the largest where several do.
func (st *state) stable() string {
	best, most, canary := "", 0, st.canary()
	for name, w := range st.shares() {
		if name != canary && (w > most || w == most && name < best) {
			best, most = name, w
		}
	}
	return best
}

// history are the deployments that served before, newest first.
func (st *state) history() []string {
	if st.ep == nil || st.ep.Tags[tagPrevious] == "" {
		return nil
	}
	return strings.Split(st.ep.Tags[tagPrevious], ",")
}

// aim is the traffic and the marks that go with it.
type aim struct {
	traffic map[string]int
	history []string
	canary  string
}

// toward gives weight percent to the deployment name, the rest to the stable one, and remembers keep deployments that served before.
func (st *state) toward(name string, weight int, keep int) aim {
	stable := st.stable()
	out := aim{history: st.history()}
	if weight%100 == 0 || stable == "" || stable == name {
		out.traffic = map[string]int{name: 100}
		if stable != "" && stable != name {
			out.history = append([]string{stable}, out.history...)
		}
	} else {
		out.traffic, out.canary = map[string]int{stable: 100 - weight, name: weight}, name
	}
	var hist []string
	for _, h := range out.history {
		if out.traffic[h] != 100 && !slices.Contains(hist, h) && len(hist) < keep {
			hist = append(hist, h)
		}
	}
	out.history = hist
	return out
}

// is tells whether the endpoint is as a says.
func (st *state) is(a aim) bool {
	return st.ep != nil && maps.Equal(st.shares(), a.traffic) && st.ep.Tags[tagCanary] == a.canary && slices.Equal(st.history(), a.history)
}

// show writes traffic as a text that is equal for equal traffic.
func show(traffic map[string]int) string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(traffic)) {
		if traffic[name] > 0 {
			out = append(out, fmt.Sprintf("%s %d%%", name, traffic[name]))
		}
	}
	return strings.Join(out, ", ")
}

// Status implements deploy.Target.
func (t *Target) Status(ctx context.Context) (*deploy.Status, error) {
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	out := &deploy.Status{Revision: st.version(), Settled: st.settled()}
	if st.ep == nil {
		return out, nil
	}
	out.Exists, out.State, out.URL, out.Healthy = true, st.ep.Properties.ProvisioningState, st.ep.Properties.ScoringURI, true
	running := map[artifact.Digest]bool{}
	for name, w := range st.shares() {
		d := st.dep(name)
		x := share(d, name, w)
		x.Canary = name == st.canary()
		out.Shares = append(out.Shares, x)
		if d != nil {
			running[d.digest()] = true
		}
		if d == nil || !d.healthy() {
			out.Healthy, out.Reason = false, "deployment "+name+" is not ready"
		}
	}
	slices.SortFunc(out.Shares, func(a, b deploy.Share) int {
		return cmp.Or(cmp.Compare(b.Weight, a.Weight), cmp.Compare(a.ID, b.ID))
	})
	if len(out.Shares) == 0 {
		out.Healthy = false
	}
	for _, d := range st.deps {
		if x := d.digest(); x != "" && !running[x] && d.healthy() {
			out.Kept = append(out.Kept, share(d, d.Name, 0))
		}
	}
	return out, nil
}

func share(d *deployment, name string, weight int) deploy.Share {
	x := deploy.Share{ID: name, Weight: weight}
	if d != nil {
		x.Digest, x.Image, x.Since, x.Labels = d.digest(), d.image(), d.since(), d.Tags
	}
	return x
}

// moves is how often Waybill wrote the endpoint.
func (st *state) moves() int {
	if st.ep == nil {
		return 0
	}
	n, _ := strconv.Atoi(st.ep.Tags[tagMoves])
	return n
}
