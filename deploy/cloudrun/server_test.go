package cloudrun_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	run "google.golang.org/api/run/v2"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/google/googletest"
	"github.com/waybill-ml/waybill/oci/artifact"
)

const (
	parent  = "projects/acme-ml/locations/europe-west4"
	service = parent + "/services/churn"
	latest  = "TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST"
	pin     = "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION"
)

// server stands for Cloud Run with one service. Time passes with reads. Bodies, parameters and answers are held against the discovery
// document.
type server struct {
	tb    testing.TB
	doc   *googletest.Discovery
	token string

	mu    sync.Mutex
	svc   *run.GoogleCloudRunV2Service
	revs  []*run.GoogleCloudRunV2Revision
	age   map[string]int   // reads that a pending revision has seen
	ops   map[string]int64 // operation to the generation that it is about
	etags int
	// routed is where requests go. It changes with the very call that moves the traffic when all its revisions are ready; the status
	// says so some reads later. (On the platform it takes some seconds too.)
	routed []*run.GoogleCloudRunV2TrafficTargetStatus
	clock  int
	autos  int
	sick   map[string]error // by image
	bad    []string         // what was against the discovery document
}

func newServer(tb testing.TB, token string) *server {
	return &server{tb: tb, doc: load(tb), token: token, age: map[string]int{}, ops: map[string]int64{}, sick: map[string]error{}}
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

func last(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

func (s *server) rev(name string) *run.GoogleCloudRunV2Revision {
	for _, r := range s.revs {
		if name != "" && last(r.Name) == last(name) {
			return r
		}
	}
	return nil
}

func ready(r *run.GoogleCloudRunV2Revision) *run.GoogleCloudRunV2Condition { return r.Conditions[0] }

// touch changes the fingerprint: with every status too.
func (s *server) touch() { s.etags++; s.svc.Etag = fmt.Sprintf("\"e%d\"", s.etags) }

// step lets time pass.
func (s *server) step() {
	if s.svc == nil {
		return
	}
	for _, r := range s.revs {
		c := ready(r)
		if c.State != "CONDITION_RECONCILING" {
			continue
		}
		if s.age[r.Name]++; s.age[r.Name] < 3 {
			continue
		}
		switch s.sick[r.Containers[0].Image] {
		case nil:
			c.State = "CONDITION_SUCCEEDED"
		case deploy.ErrUnhealthy:
			c.State, c.RevisionReason, c.Message = "CONDITION_FAILED", "HEALTH_CHECK_CONTAINER_ERROR", "The user-provided container failed to start and listen on the port defined provided by the PORT=8080 environment variable."
		case deploy.ErrPlatform:
			c.State, c.Reason, c.Message = "CONDITION_FAILED", "REVISION_FAILED", "Cloud Run does not support image 'x': Container manifest type 'application/vnd.oci.image.manifest.v1+json' must support amd64/linux."
		case errMissing:
			c.State, c.Reason, c.Message = "CONDITION_FAILED", "CONTAINER_MISSING", "Image 'x' not found."
		default:
			continue
		}
		r.Reconciling = false
		s.touch()
	}
	created := s.rev(s.svc.LatestCreatedRevision)
	if created != nil && ready(created).State == "CONDITION_SUCCEEDED" && s.svc.LatestReadyRevision != created.Name {
		s.svc.LatestReadyRevision = created.Name
		s.touch()
	}
	ok := s.route()
	if ok && !reflect.DeepEqual(s.routed, s.svc.TrafficStatuses) {
		s.svc.TrafficStatuses = s.routed
		s.touch()
		return // the status follows at the next look
	}
	if !s.svc.Reconciling {
		return
	}
	switch {
	case created != nil && ready(created).State == "CONDITION_FAILED":
		s.svc.TerminalCondition = &run.GoogleCloudRunV2Condition{Type: "Ready", State: "CONDITION_FAILED", Reason: "REVISION_FAILED", Message: ready(created).Message}
	case ok && created != nil && ready(created).State == "CONDITION_SUCCEEDED":
		s.svc.TerminalCondition = &run.GoogleCloudRunV2Condition{Type: "Ready", State: "CONDITION_SUCCEEDED"}
	default:
		return
	}
	s.svc.Reconciling, s.svc.ObservedGeneration = false, s.svc.Generation
	s.touch()
}

// route lets requests go where the user wants them as soon as everything that is named there is ready.
func (s *server) route() bool {
	var routes []*run.GoogleCloudRunV2TrafficTargetStatus
	for _, x := range s.svc.Traffic {
		r := s.rev(x.Revision)
		if x.Type != pin {
			r = s.rev(s.svc.LatestReadyRevision)
		}
		if r == nil || ready(r).State != "CONDITION_SUCCEEDED" {
			return false
		}
		routes = append(routes, &run.GoogleCloudRunV2TrafficTargetStatus{Type: x.Type, Revision: x.Revision, Percent: x.Percent, Tag: x.Tag})
	}
	s.routed = routes
	return true
}

var errMissing = fmt.Errorf("the image is not there")

// revise gives the revision that a template asks for, new ones not yet kept; nil and false when it is there already.
func (s *server) revise(t *run.GoogleCloudRunV2RevisionTemplate) (*run.GoogleCloudRunV2Revision, bool, *refusal) {
	if t == nil || len(t.Containers) == 0 || t.Containers[0].Image == "" {
		return nil, false, refuse(400, "INVALID_ARGUMENT", "template.containers[0].image: Required field not provided.")
	}
	for k, v := range t.Labels {
		if len(k) > 63 || len(v) > 63 || strings.Trim(v, "abcdefghijklmnopqrstuvwxyz0123456789_-") != "" {
			return nil, false, refuse(400, "INVALID_ARGUMENT", "template.labels: %s=%s is invalid", k, v)
		}
	}
	switch s.sick[t.Containers[0].Image] {
	case deploy.ErrTooLarge:
		return nil, false, refuse(400, "INVALID_ARGUMENT", "Container image is too large.")
	case deploy.ErrQuota:
		return nil, false, refuse(429, "RESOURCE_EXHAUSTED", "Quota exceeded for total allowable CPU per project per region.")
	}
	name := t.Revision
	if name == "" {
		s.autos++
		name = fmt.Sprintf("churn-%05d-xyz", s.autos)
	}
	if !strings.HasPrefix(name, "churn-") || len(name) > 63 {
		return nil, false, refuse(400, "INVALID_ARGUMENT", "template.revision: %s must begin with the name of the service", name)
	}
	account := cmp.Or(t.ServiceAccount, "1234-compute@developer.gserviceaccount.com")
	s.clock++
	made := time.Date(2026, 1, 1, 0, 0, s.clock, 0, time.UTC).Format(time.RFC3339Nano)
	r := &run.GoogleCloudRunV2Revision{
		Name: service + "/revisions/" + name, Service: "churn", Labels: t.Labels, Containers: t.Containers, MaxInstanceRequestConcurrency: t.MaxInstanceRequestConcurrency, Timeout: t.Timeout,
		Scaling: t.Scaling, ServiceAccount: account, CreateTime: made, Reconciling: true, Conditions: []*run.GoogleCloudRunV2Condition{{Type: "Ready", State: "CONDITION_RECONCILING"}},
	}
	if old := s.rev(name); old != nil {
		if !reflect.DeepEqual(old.Containers, r.Containers) || old.MaxInstanceRequestConcurrency != r.MaxInstanceRequestConcurrency || old.Timeout != r.Timeout ||
			!reflect.DeepEqual(old.Scaling, r.Scaling) || old.ServiceAccount != r.ServiceAccount {
			return nil, false, refuse(409, "ALREADY_EXISTS", "Revision named '%s' with different configuration already exists.", name)
		}
		return old, false, nil
	}
	return r, true, nil
}

func (s *server) checkTraffic(list []*run.GoogleCloudRunV2TrafficTarget) *refusal {
	sum, tags := int64(0), map[string]bool{}
	for i, x := range list {
		sum += x.Percent
		switch {
		case x.Type == pin && s.rev(x.Revision) == nil:
			return refuse(400, "INVALID_ARGUMENT", "traffic[%d].revision: Revision %s does not exist.", i, x.Revision)
		case x.Type == latest && x.Revision != "", x.Type != pin && x.Type != latest, strings.Contains(x.Revision, "/"):
			return refuse(400, "INVALID_ARGUMENT", "traffic[%d] is invalid", i)
		case x.Tag != "" && tags[x.Tag]:
			return refuse(400, "INVALID_ARGUMENT", "traffic[%d].tag: %s is there twice", i, x.Tag)
		}
		tags[x.Tag] = true
	}
	if len(list) > 0 && sum != 100 {
		return refuse(400, "INVALID_ARGUMENT", "traffic: the percents sum up to %d", sum)
	}
	return nil
}

// change acts on what the user wants now.
func (s *server) change(in *run.GoogleCloudRunV2Service, mask []string, dry bool) *refusal {
	if in.Etag != "" && in.Etag != s.svc.Etag {
		return refuse(409, "ABORTED", "Conflict for resource 'churn': etag %s was specified but current etag is %s.", in.Etag, s.svc.Etag)
	}
	var r *run.GoogleCloudRunV2Revision
	var isNew bool
	if slices.Contains(mask, "template") {
		var no *refusal
		if r, isNew, no = s.revise(in.Template); no != nil {
			return no
		}
	}
	if slices.Contains(mask, "traffic") {
		if no := s.checkTraffic(in.Traffic); no != nil {
			return no
		}
	}
	if dry {
		return nil
	}
	if r != nil {
		if s.svc.Template = in.Template; isNew {
			s.revs = append(s.revs, r)
		}
		s.svc.LatestCreatedRevision = r.Name
	}
	if slices.Contains(mask, "traffic") {
		s.svc.Traffic = in.Traffic
	}
	s.svc.Generation++
	s.svc.Reconciling = true
	s.svc.TerminalCondition = &run.GoogleCloudRunV2Condition{Type: "Ready", State: "CONDITION_RECONCILING"}
	s.touch()
	s.route()
	return nil
}

// operation begins one about the present generation.
func (s *server) operation(dry bool) *run.GoogleLongrunningOperation {
	if dry {
		return &run.GoogleLongrunningOperation{Name: parent + "/operations/dry", Done: true}
	}
	name := fmt.Sprintf("%s/operations/op-%d", parent, len(s.ops)+1)
	s.ops[name] = s.svc.Generation
	return &run.GoogleLongrunningOperation{Name: name}
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
	q := r.URL.Query()
	dry := q.Get("validateOnly") == "true"
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	var out any
	no := (*refusal)(nil)
	switch id {
	case "run.projects.locations.services.get":
		s.step()
		if out = s.svc; s.svc == nil || path != service {
			no = refuse(404, "NOT_FOUND", "Resource '%s' of kind 'SERVICE' does not exist.", last(path))
		}
	case "run.projects.locations.services.revisions.list":
		s.step()
		from := 0 // pages of two, whatever was asked for
		_, _ = fmt.Sscan(q.Get("pageToken"), &from)
		l := &run.GoogleCloudRunV2ListRevisionsResponse{Revisions: s.revs[min(from, len(s.revs)):min(from+2, len(s.revs))]}
		if from+2 < len(s.revs) {
			l.NextPageToken = fmt.Sprint(from + 2)
		}
		out = l
	case "run.projects.locations.operations.get":
		s.step()
		gen, ok := s.ops[path]
		if !ok {
			no = refuse(404, "NOT_FOUND", "no operation %s", path)
			break
		}
		op := &run.GoogleLongrunningOperation{Name: path, Done: s.svc.ObservedGeneration >= gen || s.svc.Generation > gen}
		switch {
		case s.svc.Generation > gen:
			op.Error = &run.GoogleRpcStatus{Code: 10, Message: "superseded"}
		case op.Done && s.svc.TerminalCondition.State == "CONDITION_FAILED":
			op.Error = &run.GoogleRpcStatus{Code: 9, Message: s.svc.TerminalCondition.Message}
		}
		out = op
	case "run.projects.locations.services.create":
		var in run.GoogleCloudRunV2Service
		s.must(json.Unmarshal(raw, &in))
		switch {
		case s.svc != nil:
			no = refuse(409, "ALREADY_EXISTS", "Resource 'churn' already exists.")
		case path != parent+"/services" || q.Get("serviceId") != "churn" || in.Name != "":
			no = refuse(400, "INVALID_ARGUMENT", "service_id")
		default:
			if len(in.Traffic) == 0 {
				in.Traffic = []*run.GoogleCloudRunV2TrafficTarget{{Type: latest, Percent: 100}}
			}
			s.svc = &run.GoogleCloudRunV2Service{Name: service, Uid: "5e4f0001-0000-4000-8000-000000000001", Uri: "https://churn-abc-ez.a.run.app", Ingress: in.Ingress}
			if no = s.change(&in, []string{"template", "traffic"}, dry); no != nil || dry {
				s.svc = nil
			}
			if no == nil {
				out = s.operation(dry)
			}
		}
	case "run.projects.locations.services.patch":
		var in run.GoogleCloudRunV2Service
		s.must(json.Unmarshal(raw, &in))
		if s.svc == nil || path != service {
			no = refuse(404, "NOT_FOUND", "no service %s", path)
		} else if no = s.change(&in, strings.Split(q.Get("updateMask"), ","), dry); no == nil {
			out = s.operation(dry)
		}
	default:
		no = refuse(501, "UNIMPLEMENTED", "%s", id)
	}
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

func (s *server) must(err error) {
	if err != nil {
		s.bad = append(s.bad, err.Error())
	}
}

// serving is who gets traffic, by the image.
func (s *server) serving(of map[string]artifact.Digest) map[artifact.Digest]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[artifact.Digest]int{}
	if s.svc == nil {
		return out
	}
	for _, x := range s.routed {
		r := s.rev(x.Revision)
		if x.Type != pin {
			r = s.rev(s.svc.LatestReadyRevision)
		}
		if x.Percent > 0 && r != nil {
			out[of[r.Containers[0].Image]] += int(x.Percent)
		}
	}
	return out
}

func (s *server) dump() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var x run.GoogleCloudRunV2Service
	if s.svc != nil {
		x = *s.svc
		x.Etag = ""
	}
	raw, err := json.MarshalIndent([]any{x, s.revs}, "", " ")
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

// meddle is somebody who edits the service in a console.
func (s *server) meddle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	raw, err := json.Marshal(s.svc.Template)
	s.must(err)
	var t run.GoogleCloudRunV2RevisionTemplate
	s.must(json.Unmarshal(raw, &t))
	t.Revision = ""
	t.Containers[0].Resources.Limits["memory"] = fmt.Sprintf("%dMi", 1024+s.autos)
	if no := s.change(&run.GoogleCloudRunV2Service{Template: &t}, []string{"template"}, false); no != nil {
		s.bad = append(s.bad, no.message)
	}
}

// forget deletes revisions of an image that get no traffic, and their tags.
func (s *server) forget(image string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := map[string]bool{}
	for _, r := range s.revs {
		if r.Containers[0].Image == image {
			gone[last(r.Name)] = true
		}
	}
	for _, x := range s.svc.Traffic {
		if x.Percent > 0 {
			delete(gone, x.Revision)
		}
	}
	s.svc.Traffic = slices.DeleteFunc(slices.Clone(s.svc.Traffic), func(x *run.GoogleCloudRunV2TrafficTarget) bool { return gone[x.Revision] })
	s.revs = slices.DeleteFunc(s.revs, func(r *run.GoogleCloudRunV2Revision) bool { return gone[last(r.Name)] })
	s.svc.Generation++
	s.svc.Reconciling = true
	s.touch()
}
