package azureml_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

const (
	group    = "/subscriptions/00000000-1111-2222-3333-444444444444/resourceGroups/acme-rg/providers/Microsoft.MachineLearningServices/workspaces/acme-ml"
	endpoint = group + "/onlineEndpoints/churn"
	audience = "https://management.azure.com"
	version  = "2025-12-01"
)

// token is what the server takes: it is for an audience.
func token(aud string) string {
	claims, _ := json.Marshal(map[string]string{"aud": aud, "sub": "waybill"})
	return "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString(claims) + ".c2VjcmV0LW9mLWF6dXJl"
}

type object = map[string]any

// resource is an endpoint or a deployment.
type resource struct {
	doc  object
	age  int // reads since the last change began
	goal string
}

func (r *resource) props() object { return r.doc["properties"].(object) }
func (r *resource) state() string { return r.props()["provisioningState"].(string) }
func (r *resource) begin(state, goal string) {
	r.props()["provisioningState"], r.goal, r.age = state, goal, 0
}

type operation struct {
	of *resource
}

// server stands for Resource Manager with one workspace. Time passes with reads.
type server struct {
	tb     testing.TB
	url    string
	mu     sync.Mutex
	ep     *resource
	deps   map[string]*resource
	envs   map[string]object
	ops    []*operation
	routed map[string]int
	clock  int
	edits  int
	sick   map[string]error // by image
	bad    []string
	check  map[string]*jsonschema.Schema // nil where the schemas are not there
	failed map[*resource]object
	away   string // when set, where operations are said to be
}

func newServer(tb testing.TB) *server {
	return &server{tb: tb, deps: map[string]*resource{}, envs: map[string]object{}, sick: map[string]error{}, failed: map[*resource]object{}, check: schemas(tb)}
}

var compiled = sync.OnceValues(func() (map[string]*jsonschema.Schema, error) {
	dir := os.Getenv("WAYBILL_SCHEMAS")
	if dir == "" {
		return nil, nil
	}
	c := jsonschema.NewCompiler()
	for url, file := range map[string]string{
		"https://schema.management.azure.com/schemas/" + version + "/Microsoft.MachineLearningServices.json": version + "/Microsoft.MachineLearningServices.json",
		"https://schema.management.azure.com/schemas/common/definitions.json":                                "common/definitions.json",
	} {
		raw, err := os.ReadFile(filepath.Join(dir, "azure-arm-schemas", file))
		if err != nil {
			return nil, err
		}
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
		if err != nil {
			return nil, err
		}
		plain(doc)
		if err := c.AddResource(url, doc); err != nil {
			return nil, err
		}
	}
	out := map[string]*jsonschema.Schema{}
	for _, kind := range []string{"onlineEndpoints", "onlineEndpoints_deployments", "environments_versions"} {
		s, err := c.Compile("https://schema.management.azure.com/schemas/" + version + "/Microsoft.MachineLearningServices.json#/resourceDefinitions/workspaces_" + kind)
		if err != nil {
			return nil, err
		}
		out[strings.ReplaceAll(kind, "_", "/")] = s
	}
	return out, nil
})

// plain takes out patterns (of names of other resources) that Go's regular expressions do not have.
func plain(v any) {
	switch x := v.(type) {
	case object:
		if p, ok := x["pattern"].(string); ok {
			if _, err := regexp.Compile(p); err != nil {
				delete(x, "pattern")
			}
		}
		for _, y := range x {
			plain(y)
		}
	case []any:
		for _, y := range x {
			plain(y)
		}
	}
}

func schemas(tb testing.TB) map[string]*jsonschema.Schema {
	tb.Helper()
	s, err := compiled()
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// shape holds a body against the published schema, and its required and read-only members without it too.
func (s *server) shape(kind string, body object) error {
	props, _ := body["properties"].(object)
	need := map[string][]string{
		"onlineEndpoints": {"authMode"}, "onlineEndpoints/deployments": {"endpointComputeType", "environmentId", "instanceType"}, "environments/versions": {"image", "inferenceConfig"},
	}[kind]
	for _, k := range need {
		if props[k] == nil {
			return fmt.Errorf("properties.%s is missing", k)
		}
	}
	if kind != "environments/versions" && body["location"] != "westeurope" {
		return fmt.Errorf("location is %v", body["location"])
	}
	for _, k := range []string{"id", "name", "type", "systemData"} {
		if body[k] != nil {
			return fmt.Errorf("%s is read-only", k)
		}
	}
	for _, k := range []string{"provisioningState", "scoringUri", "swaggerUri"} {
		if props[k] != nil {
			return fmt.Errorf("properties.%s is read-only", k)
		}
	}
	if s.check == nil {
		return nil
	}
	full := maps.Clone(body)
	full["name"], full["apiVersion"], full["type"] = "n", version, "Microsoft.MachineLearningServices/workspaces/"+kind
	return s.check[kind].Validate(full)
}

func problem(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("x-ms-request-id", "11111111-2222-3333-4444-555555555555")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(object{"error": object{"code": code, "message": message}})
}

// imageOf is what the environment of d says.
func (s *server) imageOf(d *resource) string {
	env, _ := s.envs[d.props()["environmentId"].(string)]["properties"].(object)
	img, _ := env["image"].(string)
	return img
}

// step lets time pass.
func (s *server) step() {
	if s.ep == nil {
		return
	}
	all := []*resource{s.ep}
	for _, k := range slices.Sorted(maps.Keys(s.deps)) {
		all = append(all, s.deps[k])
	}
	for _, r := range all {
		if r.goal == "" {
			continue
		}
		if r.age++; r.age < 2 {
			continue
		}
		goal := r.goal
		if r != s.ep && goal == "Succeeded" {
			var fail object
			switch cause := s.sick[s.imageOf(r)]; {
			case cause == nil:
			case errors.Is(cause, deploy.ErrUnavailable):
				continue
			case errors.Is(cause, deploy.ErrUnhealthy):
				fail = object{"code": "ResourceNotReady", "message": "User container has crashed or terminated. Please see troubleshooting guide."}
			case errors.Is(cause, deploy.ErrPlatform):
				fail = object{"code": "ResourceNotReady", "message": "User container has crashed: exec /usr/bin/waybill-serve: exec format error"}
			case errors.Is(cause, deploy.ErrTooLarge):
				fail = object{"code": "OutOfQuota", "message": "Not enough disk space: the image is too large for the instance"}
			case errors.Is(cause, deploy.ErrQuota):
				fail = object{"code": "BadRequest", "message": "The request is invalid.", "details": []object{{"code": "OutOfCapacity", "message": "The specified VM size is out of capacity in the region."}}}
			case errors.Is(cause, errMissing):
				fail = object{"code": "BadArgument", "message": "Unable to download user container image"}
			}
			if fail != nil {
				goal, s.failed[r] = "Failed", fail
			}
		}
		r.goal = ""
		if goal == "gone" {
			maps.DeleteFunc(s.deps, func(_ string, d *resource) bool { return d == r })
			continue
		}
		r.props()["provisioningState"] = goal
		if r == s.ep {
			s.routed = s.traffic()
		}
	}
}

var errMissing = errors.New("the image is not there")

func (s *server) traffic() map[string]int {
	out := map[string]int{}
	t, _ := s.ep.props()["traffic"].(object)
	for k, v := range t {
		out[k] = int(v.(float64))
	}
	return out
}

func (s *server) start(w http.ResponseWriter, r *resource, async bool) {
	s.ops = append(s.ops, &operation{of: r})
	base := s.url
	if s.away != "" {
		base = s.away
	}
	at := fmt.Sprintf("%s/subscriptions/x/providers/Microsoft.MachineLearningServices/locations/westeurope/mfeOperationsStatus/%d?api-version=%s", base, len(s.ops)-1, version)
	if async {
		w.Header().Set("Azure-AsyncOperation", at)
	} else {
		w.Header().Set("Location", at)
	}
}

func (s *server) made() object {
	s.clock++
	return object{"createdAt": fmt.Sprintf("2026-01-01T00:%02d:%02d.000Z", s.clock/60, s.clock%60), "createdByType": "Application"}
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+token(audience) {
		problem(w, 401, "InvalidAuthenticationToken", "The access token is for the wrong audience or invalid.")
		return
	}
	if r.URL.Query().Get("api-version") != version {
		problem(w, 400, "MissingApiVersionParameter", "api-version")
		return
	}
	var body object
	raw, err := io.ReadAll(r.Body)
	if err == nil && r.Method == "PUT" {
		err = json.Unmarshal(raw, &body)
	}
	if err != nil {
		problem(w, 400, "BadRequest", err.Error())
		return
	}
	write := func(code int, v any) {
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	valid := func(kind string) bool {
		err := s.shape(kind, body)
		if err != nil {
			s.bad = append(s.bad, kind+": "+err.Error())
			problem(w, 400, "InvalidRequestContent", err.Error())
		}
		return err == nil
	}
	if r.Method == "GET" {
		s.step()
	}
	path := r.URL.Path
	name, isDep := strings.CutPrefix(path, endpoint+"/deployments/")
	switch {
	case strings.Contains(path, "/mfeOperationsStatus/"):
		n := 0
		_, _ = fmt.Sscan(path[strings.LastIndexByte(path, '/')+1:], &n)
		op := s.ops[n].of
		switch {
		case op.goal == "gone":
			w.Header().Set("Location", s.url+r.URL.String())
			w.WriteHeader(202)
		case op.goal != "":
			write(200, object{"status": "InProgress"})
		case s.failed[op] != nil:
			write(200, object{"status": "Failed", "error": s.failed[op]})
		default:
			write(200, object{"status": "Succeeded"})
		}
	case strings.HasPrefix(path, group+"/environments/waybill-churn/versions/"):
		old := s.envs[path]
		switch {
		case r.Method == "PUT" && !valid("environments/versions"):
		case r.Method == "PUT" && old != nil && !reflect.DeepEqual(old["properties"], body["properties"]):
			problem(w, 409, "UserError", "A version with other content exists already.")
		case r.Method == "PUT":
			s.envs[path] = body
			write(201, body)
		case old == nil:
			problem(w, 404, "NotFound", "no such version")
		default:
			write(200, old)
		}
	case path == endpoint && r.Method == "GET" && s.ep != nil:
		write(200, s.ep.doc)
	case path == endpoint && r.Method == "PUT":
		s.putEndpoint(w, body, valid, write)
	case path == endpoint+"/deployments" && r.Method == "GET" && s.ep != nil:
		from := 0 // pages of two
		_, _ = fmt.Sscan(r.URL.Query().Get("$skip"), &from)
		names := slices.Sorted(maps.Keys(s.deps))
		page := object{}
		list := []object{}
		for _, k := range names[min(from, len(names)):min(from+2, len(names))] {
			list = append(list, s.deps[k].doc)
		}
		page["value"] = list
		if from+2 < len(names) {
			page["nextLink"] = fmt.Sprintf("%s%s?api-version=%s&$skip=%d", s.url, path, version, from+2)
		}
		write(200, page)
	case isDep && r.Method == "GET" && s.deps[name] != nil:
		write(200, s.deps[name].doc)
	case isDep && s.ep != nil && r.Method == "PUT":
		s.putDeployment(w, name, body, valid, write)
	case isDep && r.Method == "DELETE":
		d := s.deps[name]
		switch {
		case d == nil:
			w.WriteHeader(204)
		case s.traffic()[name] > 0 || s.routed[name] > 0:
			problem(w, 409, "Conflict", "Deployment with traffic cannot be deleted.")
		case d.goal != "":
			problem(w, 409, "Conflict", "Another operation is in progress.")
		default:
			d.begin("Deleting", "gone")
			s.start(w, d, false)
			w.WriteHeader(202)
		}
	default:
		problem(w, 404, "ResourceNotFound", "The Resource was not found.")
	}
}

func (s *server) putEndpoint(w http.ResponseWriter, body object, valid func(string) bool, write func(int, any)) {
	if s.ep != nil && s.ep.goal != "" {
		problem(w, 409, "Conflict", "The endpoint is in a non-terminal state.")
		return
	}
	if !valid("onlineEndpoints") {
		return
	}
	props, sum := body["properties"].(object), 0
	traffic, _ := props["traffic"].(object)
	for k, v := range traffic {
		d := s.deps[k]
		if d == nil || d.state() != "Succeeded" {
			problem(w, 400, "BadArgument", "Traffic is given to deployment "+k+", which does not exist or is not ready.")
			return
		}
		sum += int(v.(float64))
	}
	if sum != 0 && sum != 100 {
		problem(w, 400, "BadArgument", "The traffic must sum up to 100.")
		return
	}
	code := 200
	if s.ep == nil {
		s.ep, code = &resource{doc: object{"systemData": s.made()}}, 201
	}
	made := s.ep.doc["systemData"]
	body["id"], body["name"], body["type"], body["systemData"] = endpoint, "churn", "Microsoft.MachineLearningServices/workspaces/onlineEndpoints", made
	props["scoringUri"] = "https://churn.westeurope.inference.ml.azure.com/v2"
	props["description"] = nil
	s.ep.doc = body
	s.ep.begin("Updating", "Succeeded")
	s.start(w, s.ep, true)
	write(code, body)
}

func (s *server) putDeployment(w http.ResponseWriter, name string, body object, valid func(string) bool, write func(int, any)) {
	switch {
	case s.ep.goal != "" || s.deps[name] != nil:
		problem(w, 409, "Conflict", "The endpoint or the deployment is being changed.")
		return
	case !valid("onlineEndpoints/deployments"):
		return
	case s.envs[body["properties"].(object)["environmentId"].(string)] == nil:
		problem(w, 400, "BadArgument", "The environment does not exist.")
		return
	}
	d := &resource{doc: body}
	body["name"], body["systemData"] = name, s.made()
	s.deps[name] = d
	d.begin("Creating", "Succeeded")
	s.start(w, d, true)
	write(201, body)
}

// serving is who gets traffic, by the image.
func (s *server) serving(of map[string]artifact.Digest) map[artifact.Digest]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[artifact.Digest]int{}
	for k, w := range s.routed {
		if d := s.deps[k]; d != nil && w > 0 && d.state() == "Succeeded" {
			out[of[s.imageOf(d)]] += w
		}
	}
	return out
}

func (s *server) dump() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := object{"envs": s.envs}
	if s.ep != nil {
		all["endpoint"] = s.ep.doc
	}
	for k, d := range s.deps {
		all[k] = d.doc
	}
	raw, _ := json.MarshalIndent(all, "", " ")
	return string(raw)
}

func (s *server) rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 12 {
		s.step()
	}
}

// meddle is somebody who edits the deployment that serves in the studio.
func (s *server) meddle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.edits++
	for k, w := range s.routed {
		if w > 0 {
			s.deps[k].props()["instanceType"] = fmt.Sprintf("Standard_F%ds_v2", 2<<s.edits)
		}
	}
}

// forget deletes deployments of an image that get no traffic.
func (s *server) forget(image string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.deps, func(k string, d *resource) bool { return s.imageOf(d) == image && s.routed[k] == 0 })
}
