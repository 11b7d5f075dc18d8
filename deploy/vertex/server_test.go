package vertex_test

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	api "google.golang.org/api/aiplatform/v1"
	"google.golang.org/api/googleapi"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/google/googletest"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Requests name the project by its id, answers by its number.
const (
	asked    = "projects/acme-ml/locations/europe-west4"
	answered = "projects/4711/locations/europe-west4"
)

var discovery = sync.OnceValues(func() (*googletest.Discovery, error) {
	return googletest.Load("aiplatform/v1/aiplatform-api.json")
})

func load(tb testing.TB) *googletest.Discovery {
	tb.Helper()
	d, err := discovery()
	if err != nil {
		tb.Fatal(err)
	}
	return d
}

// op is a change under way.
type op struct {
	name   string
	looks  int // reads that it has seen
	done   bool
	err    *api.GoogleRpcStatus
	answer any
	busy   string                              // id of the deployed model that it is about
	finish func() (bool, *api.GoogleRpcStatus) // false: not yet
}

// server stands for Vertex AI with one endpoint and one model. Time passes with reads. Bodies, parameters and answers are held against the
// discovery document.
type server struct {
	doc   *googletest.Discovery
	token string
	hide  bool // the container's specification is input only
	blind bool // to etags

	mu    sync.Mutex
	ep    *api.GoogleCloudAiplatformV1Endpoint
	vers  []*api.GoogleCloudAiplatformV1Model
	specs map[string]*api.GoogleCloudAiplatformV1ModelContainerSpec // by version
	next  int                                                       // version
	ops   []*op
	etags int
	clock int
	hand  int64            // times that somebody meddled
	sick  map[string]error // by image
	bad   []string         // what was against the discovery document
	calls []string         // ids of the methods called
}

func newServer(tb testing.TB, token string) *server {
	return &server{doc: load(tb), token: token, specs: map[string]*api.GoogleCloudAiplatformV1ModelContainerSpec{}, sick: map[string]error{}, next: 1}
}

// refusal is an answer that is no success.
type refusal struct {
	code    int
	status  string
	message string
}

func refuse(code int, status, format string, args ...any) *refusal {
	return &refusal{code, status, fmt.Sprintf(format, args...)}
}

// touch changes the fingerprint: with every status too.
func (s *server) touch() {
	if s.ep != nil {
		s.etags++
		s.ep.Etag = fmt.Sprintf("AMEw9y%d", s.etags)
	}
}

func (s *server) now() string {
	s.clock++
	return time.Date(2026, 1, 1, 0, 0, s.clock, 0, time.UTC).Format(time.RFC3339Nano)
}

// step lets time pass.
func (s *server) step() {
	if s.ep != nil {
		for _, d := range s.ep.DeployedModels {
			if d.Status == nil {
				d.Status = &api.GoogleCloudAiplatformV1DeployedModelStatus{AvailableReplicaCount: d.DedicatedResources.MinReplicaCount}
				s.touch()
			}
		}
	}
	for _, o := range s.ops {
		if o.looks++; o.done || o.looks < 2 {
			continue
		}
		if o.done, o.err = o.finish(); o.done {
			s.touch()
		}
	}
}

// begin starts an operation below a resource.
func (s *server) begin(under, busy string, answer any, finish func() (bool, *api.GoogleRpcStatus)) *op {
	o := &op{name: fmt.Sprintf("%s/%s/operations/%d", answered, under, len(s.ops)+1), busy: busy, answer: answer, finish: finish}
	s.ops = append(s.ops, o)
	return o
}

func (s *server) show(o *op) *api.GoogleLongrunningOperation {
	out := &api.GoogleLongrunningOperation{Name: o.name, Done: o.done, Error: o.err}
	if o.done && o.err == nil {
		raw, err := json.Marshal(o.answer)
		s.must(err)
		out.Response = googleapi.RawMessage(raw)
	}
	return out
}

func (s *server) dm(id string) *api.GoogleCloudAiplatformV1DeployedModel {
	for _, d := range s.ep.DeployedModels {
		if d.Id == id {
			return d
		}
	}
	return nil
}

func (s *server) busy(id string) bool {
	return slices.ContainsFunc(s.ops, func(o *op) bool { return !o.done && o.busy == id })
}

func (s *server) image(d *api.GoogleCloudAiplatformV1DeployedModel) string {
	if c := s.specs[d.ModelVersionId]; c != nil {
		return c.ImageUri
	}
	return ""
}

func labels(m map[string]string) *refusal {
	for k, v := range m {
		if len(k) > 63 || len(v) > 63 || strings.Trim(k+v, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
			return refuse(400, "INVALID_ARGUMENT", "labels: %s=%s is invalid", k, v)
		}
	}
	return nil
}

// split holds a traffic split against what is deployed; more is one that is being deployed.
func (s *server) split(m map[string]int64, more string) *refusal {
	sum := int64(0)
	for id, w := range m {
		if s.dm(id) == nil && id != more {
			return refuse(400, "INVALID_ARGUMENT", "Traffic split references deployed model %s, which does not exist in endpoint.", id)
		}
		if w < 0 {
			return refuse(400, "INVALID_ARGUMENT", "Traffic split has a negative value.")
		}
		sum += w
	}
	if len(m) > 0 && sum != 100 {
		return refuse(400, "INVALID_ARGUMENT", "Traffic split must sum to 100, is %d.", sum)
	}
	return nil
}

func status(code int64, format string, args ...any) *api.GoogleRpcStatus {
	return &api.GoogleRpcStatus{Code: code, Message: fmt.Sprintf(format, args...)}
}

func (s *server) create(in *api.GoogleCloudAiplatformV1Endpoint, id string) (*op, *refusal) {
	switch {
	case s.ep != nil || s.busy("endpoint"):
		return nil, refuse(409, "ALREADY_EXISTS", "Endpoint %s already exists.", id)
	case id != "churn" || in.DisplayName == "" || len(in.TrafficSplit) > 0:
		return nil, refuse(400, "INVALID_ARGUMENT", "endpoint")
	}
	if no := labels(in.Labels); no != nil {
		return nil, no
	}
	in.Name, in.CreateTime = answered+"/endpoints/churn", s.now()
	if in.DedicatedEndpointEnabled {
		in.DedicatedEndpointDns = "churn.europe-west4-4711.prediction.vertexai.goog"
	}
	return s.begin("endpoints/churn", "endpoint", in, func() (bool, *api.GoogleRpcStatus) { s.ep = in; return true, nil }), nil
}

func (s *server) upload(in *api.GoogleCloudAiplatformV1UploadModelRequest) (*op, *refusal) {
	m := in.Model
	switch {
	case m == nil || m.DisplayName == "" || m.ContainerSpec == nil || m.ContainerSpec.ImageUri == "":
		return nil, refuse(400, "INVALID_ARGUMENT", "model.container_spec.image_uri is required")
	case in.ParentModel != "" && (in.ParentModel != asked+"/models/churn" || len(s.vers) == 0):
		return nil, refuse(404, "NOT_FOUND", "The Model %s does not exist.", in.ParentModel)
	case in.ParentModel == "" && (len(s.vers) > 0 || s.busy("model")):
		return nil, refuse(409, "ALREADY_EXISTS", "Model %s already exists.", in.ModelId)
	case in.ParentModel == "" && in.ModelId != "churn":
		return nil, refuse(400, "INVALID_ARGUMENT", "model_id")
	}
	for _, e := range m.ContainerSpec.Env {
		if strings.HasPrefix(e.Name, "AIP_") {
			return nil, refuse(400, "INVALID_ARGUMENT", "env %s is reserved", e.Name)
		}
	}
	if no := labels(m.Labels); no != nil {
		return nil, no
	}
	spec := m.ContainerSpec
	answer := map[string]any{"@type": "type.googleapis.com/google.cloud.aiplatform.v1.UploadModelResponse", "model": answered + "/models/churn"}
	return s.begin("models/churn", "model", answer, func() (bool, *api.GoogleRpcStatus) {
		switch s.sick[spec.ImageUri] {
		case deploy.ErrTooLarge:
			return true, status(3, "The container image %s is too large to be served.", spec.ImageUri)
		case errMissing:
			return true, status(5, "Image %q cannot be found. Please create the repository and try again.", spec.ImageUri)
		}
		m.VersionId = strconv.Itoa(s.next)
		s.next++
		m.Name, m.VersionCreateTime, m.SupportedDeploymentResourcesTypes = answered+"/models/churn@"+m.VersionId, s.now(), []string{"DEDICATED_RESOURCES"}
		if len(s.vers) == 0 {
			m.VersionAliases = []string{"default"}
		}
		m.ContainerSpec = nil
		s.specs[m.VersionId] = spec
		s.vers = append(s.vers, m)
		answer["modelVersionId"] = m.VersionId
		return true, nil
	}), nil
}

var ids = regexp.MustCompile(`^[0-9]{1,10}$`)

func (s *server) deploy(in *api.GoogleCloudAiplatformV1DeployModelRequest) (*op, *refusal) {
	d := in.DeployedModel
	if d == nil || d.DedicatedResources == nil || d.DedicatedResources.MachineSpec == nil || d.DedicatedResources.MachineSpec.MachineType == "" || d.DedicatedResources.MinReplicaCount < 1 || !ids.MatchString(d.Id) {
		return nil, refuse(400, "INVALID_ARGUMENT", "deployed_model")
	}
	name, version, _ := strings.Cut(d.Model, "@")
	if name != asked+"/models/churn" || s.specs[version] == nil {
		return nil, refuse(404, "NOT_FOUND", "The Model %s does not exist.", d.Model)
	}
	if s.dm(d.Id) != nil || s.busy(d.Id) {
		return nil, refuse(409, "ALREADY_EXISTS", "DeployedModel %s already exists.", d.Id)
	}
	split := maps.Clone(in.TrafficSplit)
	if w, ok := split["0"]; ok {
		delete(split, "0")
		split[d.Id] = w
	}
	if no := s.split(split, d.Id); no != nil {
		return nil, no
	}
	image := s.specs[version].ImageUri
	if s.sick[image] == deploy.ErrQuota {
		return nil, refuse(429, "RESOURCE_EXHAUSTED", "The following quotas are exceeded: CustomModelServingCPUsPerProjectPerRegion")
	}
	return s.begin("endpoints/churn", d.Id, map[string]any{"deployedModel": d}, func() (bool, *api.GoogleRpcStatus) {
		switch s.sick[image] {
		case deploy.ErrUnavailable:
			return false, nil
		case deploy.ErrUnhealthy:
			return true, status(3, "Failed to deploy model. Error: Model server never became ready. Please validate that your model file or container configuration are valid.")
		case deploy.ErrPlatform:
			return true, status(9, "Model server terminated: model server container terminated: exec /waybill-serve: exec format error.")
		}
		if s.specs[version] == nil {
			return true, status(5, "The Model was deleted.")
		}
		d.Model, d.ModelVersionId, d.CreateTime = answered+"/models/churn", version, s.now()
		if d.DedicatedResources.MaxReplicaCount == 0 {
			d.DedicatedResources.MaxReplicaCount = d.DedicatedResources.MinReplicaCount
		}
		s.ep.DeployedModels = append(s.ep.DeployedModels, d)
		if len(split) > 0 {
			s.ep.TrafficSplit = split
		}
		return true, nil
	}), nil
}

func (s *server) undeploy(in *api.GoogleCloudAiplatformV1UndeployModelRequest) (*op, *refusal) {
	id := in.DeployedModelId
	switch {
	case s.dm(id) == nil:
		return nil, refuse(404, "NOT_FOUND", "DeployedModel %s is not in the endpoint.", id)
	case s.busy(id):
		s.step() // who is told so comes back later
		return nil, refuse(400, "FAILED_PRECONDITION", "There are other operations running on the DeployedModel %s.", id)
	case len(in.TrafficSplit) > 0:
		return nil, refuse(501, "UNIMPLEMENTED", "traffic split in an undeploy")
	case s.ep.TrafficSplit[id] > 0:
		return nil, refuse(400, "FAILED_PRECONDITION", "DeployedModel %s has traffic assigned to it.", id)
	}
	return s.begin("endpoints/churn", id, map[string]any{}, func() (bool, *api.GoogleRpcStatus) {
		if s.ep.TrafficSplit[id] > 0 {
			return true, status(9, "DeployedModel %s has traffic assigned to it.", id)
		}
		s.ep.DeployedModels = slices.DeleteFunc(slices.Clone(s.ep.DeployedModels), func(d *api.GoogleCloudAiplatformV1DeployedModel) bool { return d.Id == id })
		return true, nil
	}), nil
}

func (s *server) mutate(in *api.GoogleCloudAiplatformV1MutateDeployedModelRequest) (*op, *refusal) {
	x := in.DeployedModel
	if x == nil || x.DedicatedResources == nil || in.UpdateMask == "" {
		return nil, refuse(400, "INVALID_ARGUMENT", "deployed_model and update_mask")
	}
	d := s.dm(x.Id)
	switch {
	case d == nil:
		return nil, refuse(404, "NOT_FOUND", "DeployedModel %s is not in the endpoint.", x.Id)
	case s.busy(x.Id):
		s.step()
		return nil, refuse(400, "FAILED_PRECONDITION", "There are other operations running on the DeployedModel %s.", x.Id)
	}
	set := *d.DedicatedResources
	for _, f := range strings.Split(in.UpdateMask, ",") {
		switch f {
		case "dedicatedResources.minReplicaCount":
			set.MinReplicaCount = x.DedicatedResources.MinReplicaCount
		case "dedicatedResources.maxReplicaCount":
			set.MaxReplicaCount = x.DedicatedResources.MaxReplicaCount
		default:
			return nil, refuse(400, "INVALID_ARGUMENT", "update_mask: %s is immutable", f)
		}
	}
	if set.MinReplicaCount < 1 || set.MinReplicaCount > set.MaxReplicaCount {
		return nil, refuse(400, "INVALID_ARGUMENT", "replica counts")
	}
	return s.begin("endpoints/churn", x.Id, map[string]any{"deployedModel": d}, func() (bool, *api.GoogleRpcStatus) {
		d.DedicatedResources = &set
		return true, nil
	}), nil
}

func (s *server) patch(in *api.GoogleCloudAiplatformV1Endpoint, mask []string) *refusal {
	if in.Etag != "" && in.Etag != s.ep.Etag && !s.blind {
		return refuse(409, "ABORTED", "The etag %s is not that of the endpoint, %s.", in.Etag, s.ep.Etag)
	}
	next := *s.ep
	for _, f := range mask {
		var no *refusal
		switch f {
		case "trafficSplit":
			next.TrafficSplit, no = in.TrafficSplit, s.split(in.TrafficSplit, "")
		case "labels":
			next.Labels, no = in.Labels, labels(in.Labels)
		default:
			no = refuse(501, "UNIMPLEMENTED", "update_mask %s", f)
		}
		if no != nil {
			return no
		}
	}
	for id := range next.TrafficSplit {
		if s.busy(id) && s.ep.TrafficSplit[id] == 0 && s.dm(id).Status == nil {
			return refuse(400, "FAILED_PRECONDITION", "There are other operations running on the DeployedModel %s.", id)
		}
	}
	s.ep = &next
	s.touch()
	return nil
}

func (s *server) list() []*api.GoogleCloudAiplatformV1Model {
	var out []*api.GoogleCloudAiplatformV1Model
	for _, m := range s.vers {
		x := *m
		if !s.hide {
			x.ContainerSpec = s.specs[m.VersionId]
		}
		out = append(out, &x)
	}
	return out
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+s.token {
		googletest.Problem(w, 401, "UNAUTHENTICATED", "Request had invalid authentication credentials.", "ACCESS_TOKEN_EXPIRED")
		return
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		googletest.Problem(w, 400, "INVALID_ARGUMENT", err.Error())
		return
	}
	id, answer, err := s.doc.Request(r, raw)
	if err != nil {
		s.bad = append(s.bad, err.Error())
		googletest.Problem(w, 400, "INVALID_ARGUMENT", err.Error())
		return
	}
	id = strings.TrimPrefix(id, "aiplatform.projects.locations.")
	s.calls = append(s.calls, id)
	out, no := s.answer(id, strings.TrimPrefix(r.URL.Path, "/v1/"), r, raw)
	if no != nil {
		googletest.Problem(w, no.code, no.status, no.message)
		return
	}
	body, err := json.Marshal(out)
	s.must(err)
	if err := s.doc.Check(answer, body, true); err != nil {
		s.bad = append(s.bad, "the server's own answer: "+err.Error())
	}
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	_, _ = w.Write(body)
}

func into[T any](s *server, raw []byte) *T {
	var v T
	s.must(json.Unmarshal(raw, &v))
	return &v
}

func (s *server) answer(id, path string, r *http.Request, raw []byte) (any, *refusal) {
	q := r.URL.Query()
	missing := s.ep == nil || !strings.HasPrefix(path, asked+"/endpoints/churn")
	begun := func(o *op, no *refusal) (any, *refusal) {
		if no != nil {
			return nil, no
		}
		return s.show(o), nil
	}
	if missing && strings.HasPrefix(id, "endpoints.") && id != "endpoints.create" && !strings.Contains(id, "operations.") {
		s.step()
		if s.ep == nil {
			return nil, refuse(404, "NOT_FOUND", "The Endpoint does not exist.")
		}
	}
	switch id {
	case "endpoints.get":
		s.step()
		return s.ep, nil
	case "endpoints.create":
		return begun(s.create(into[api.GoogleCloudAiplatformV1Endpoint](s, raw), q.Get("endpointId")))
	case "endpoints.patch":
		if no := s.patch(into[api.GoogleCloudAiplatformV1Endpoint](s, raw), strings.Split(q.Get("updateMask"), ",")); no != nil {
			return nil, no
		}
		return s.ep, nil
	case "endpoints.deployModel":
		return begun(s.deploy(into[api.GoogleCloudAiplatformV1DeployModelRequest](s, raw)))
	case "endpoints.undeployModel":
		return begun(s.undeploy(into[api.GoogleCloudAiplatformV1UndeployModelRequest](s, raw)))
	case "endpoints.mutateDeployedModel":
		return begun(s.mutate(into[api.GoogleCloudAiplatformV1MutateDeployedModelRequest](s, raw)))
	case "models.upload":
		return begun(s.upload(into[api.GoogleCloudAiplatformV1UploadModelRequest](s, raw)))
	case "models.listVersions":
		s.step()
		all := s.list()
		if len(all) == 0 {
			return nil, refuse(404, "NOT_FOUND", "The Model does not exist.")
		}
		from, _ := strconv.Atoi(q.Get("pageToken")) // pages of two, whatever was asked for
		l := &api.GoogleCloudAiplatformV1ListModelVersionsResponse{Models: all[min(from, len(all)):min(from+2, len(all))]}
		if from+2 < len(all) {
			l.NextPageToken = fmt.Sprint(from + 2)
		}
		return l, nil
	case "endpoints.operations.list":
		l := &api.GoogleLongrunningListOperationsResponse{}
		for _, o := range s.ops {
			if strings.Contains(o.name, "/endpoints/") {
				l.Operations = append(l.Operations, s.show(o))
			}
		}
		return l, nil
	case "endpoints.operations.get", "models.operations.get", "endpoints.operations.cancel":
		s.step()
		name, cancel := strings.CutSuffix(path, ":cancel")
		i := slices.IndexFunc(s.ops, func(o *op) bool { return o.name == name })
		if i < 0 {
			return nil, refuse(404, "NOT_FOUND", "no operation %s", name)
		}
		if cancel {
			if o := s.ops[i]; !o.done {
				o.done, o.err = true, status(1, "cancelled")
			}
			return struct{}{}, nil
		}
		return s.show(s.ops[i]), nil
	}
	return nil, refuse(501, "UNIMPLEMENTED", "%s", id)
}

func (s *server) must(err error) {
	if err != nil {
		s.bad = append(s.bad, err.Error())
	}
}

var errMissing = fmt.Errorf("the image is not there")

// serving is who gets traffic, by the image.
func (s *server) serving(of map[string]artifact.Digest) map[artifact.Digest]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[artifact.Digest]int{}
	if s.ep == nil {
		return out
	}
	for id, w := range s.ep.TrafficSplit {
		if d := s.dm(id); w > 0 && d != nil {
			out[of[s.image(d)]] += int(w)
		}
	}
	return out
}

func (s *server) dump() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var x api.GoogleCloudAiplatformV1Endpoint
	if s.ep != nil {
		x = *s.ep
		x.Etag = ""
	}
	raw, err := json.MarshalIndent([]any{x, s.vers, s.specs}, "", " ")
	s.must(err)
	return string(raw)
}

func (s *server) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 12 {
		s.step()
	}
}

// meddle is somebody who changes the replicas of what serves.
func (s *server) meddle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hand++
	for _, d := range s.ep.DeployedModels {
		if s.ep.TrafficSplit[d.Id] > 0 {
			x := *d.DedicatedResources
			x.MaxReplicaCount = 5 + s.hand
			d.DedicatedResources = &x
		}
	}
	s.touch()
}

// forget undeploys what gets no traffic, and deletes versions that are not deployed.
func (s *server) forget(image string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	used := map[string]bool{}
	s.ep.DeployedModels = slices.DeleteFunc(slices.Clone(s.ep.DeployedModels), func(d *api.GoogleCloudAiplatformV1DeployedModel) bool {
		gone := s.image(d) == image && s.ep.TrafficSplit[d.Id] == 0
		used[d.ModelVersionId] = used[d.ModelVersionId] || !gone
		return gone
	})
	s.vers = slices.DeleteFunc(slices.Clone(s.vers), func(m *api.GoogleCloudAiplatformV1Model) bool {
		gone := s.specs[m.VersionId].ImageUri == image && !used[m.VersionId]
		if gone {
			delete(s.specs, m.VersionId)
		}
		return gone
	})
	s.touch()
}
