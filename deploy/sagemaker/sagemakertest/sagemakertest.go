// Package sagemakertest is a local server of Amazon SageMaker's API for tests: as much of it as deploys need. It recomputes each request's
// signature, validates bodies, and keeps the platform's state machine: a change of an endpoint is under way for a few looks at it, refuses
// all others, and ends with the new configuration or with the old one and a reason; one that never came up can only be deleted.
package sagemakertest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/service/sagemaker"

	"github.com/waybill-ml/waybill/deploy/awstest"
)

// Steps is for how many looks a change is under way, StuckLooks how long one that does not come to a good end.
const (
	Steps      = 1
	StuckLooks = 800
)

// LoadModel reads SageMaker's published model below dir; without dir bodies are checked by the SDK's types alone.
func LoadModel(dir string) (*awstest.Model, error) {
	return awstest.LoadModel(dir, "sagemaker-2017-07-24.hosting.json", "com.amazonaws.sagemaker", map[string]any{
		"CreateModel": sdk.CreateModelInput{}, "DescribeModel": sdk.DescribeModelInput{}, "DeleteModel": sdk.DeleteModelInput{},
		"CreateEndpointConfig": sdk.CreateEndpointConfigInput{}, "DescribeEndpointConfig": sdk.DescribeEndpointConfigInput{}, "DeleteEndpointConfig": sdk.DeleteEndpointConfigInput{},
		"ListEndpointConfigs": sdk.ListEndpointConfigsInput{}, "CreateEndpoint": sdk.CreateEndpointInput{}, "DescribeEndpoint": sdk.DescribeEndpointInput{},
		"UpdateEndpoint": sdk.UpdateEndpointInput{}, "DeleteEndpoint": sdk.DeleteEndpointInput{}, "UpdateEndpointWeightsAndCapacities": sdk.UpdateEndpointWeightsAndCapacitiesInput{},
	})
}

// Tag is one of a thing.
type Tag struct{ Key, Value string }

// Model is what SageMaker keeps of one.
type Model struct {
	ModelName, ExecutionRoleArn string
	PrimaryContainer            struct {
		Image       string
		Environment map[string]string
	}
	Tags []Tag
}

// Serverless is a variant's capacity without instances.
type Serverless struct {
	MemorySizeInMB, MaxConcurrency int
	ProvisionedConcurrency         int `json:",omitempty"`
}

// Variant is what a configuration says about one.
type Variant struct {
	VariantName, ModelName string
	InstanceType           string  `json:",omitempty"`
	InitialInstanceCount   int     `json:",omitempty"`
	InitialVariantWeight   float64 // 1 where none was given
	ServerlessConfig       *Serverless
}

// Config is an endpoint configuration.
type Config struct {
	EndpointConfigName string
	ProductionVariants []Variant
	Tags               []Tag
	created            int
}

// Live is a variant that serves.
type Live struct {
	Name, Image, Type string
	Count             int
	Weight            float64
	Serverless        *Serverless
}

// Endpoint is what SageMaker keeps of one.
type Endpoint struct {
	Name, Config, Status, Reason string
	Live                         []Live
	Pending                      string // configuration that a change leads to
	Deployment                   string // last DeploymentConfig, as it was asked for
	next                         []Live
	left, changed                int
	fail                         string // reason at the end
}

// Fate is what becomes of an image on the platform, by its digest.
type Fate struct {
	Reject string // message at CreateModel
	Limit  string // message of a ResourceLimitExceeded when an endpoint shall run it
	Fail   string // FailureReason at the end of the change
	Stuck  bool   // the change does not end for StuckLooks looks, then fails
}

// Server is one account in one region. It is safe for concurrent use.
type Server struct {
	Schema *awstest.Model
	Creds  awstest.Credentials

	mu        sync.Mutex
	clock     int
	models    map[string]*Model
	configs   map[string]*Config
	endpoints map[string]*Endpoint
	fates     map[string]Fate
}

// New makes an empty account whose requests m validates.
func New(m *awstest.Model) *Server {
	return &Server{Schema: m, Creds: awstest.Known("sagemaker"), models: map[string]*Model{}, configs: map[string]*Config{}, endpoints: map[string]*Endpoint{}, fates: map[string]Fate{}}
}

// Fate decides what becomes of an image with this digest from now on.
func (s *Server) Fate(digest string, f Fate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fates[digest] = f
}

func digestOf(image string) string {
	_, d, _ := strings.Cut(image, "@")
	return d
}

// Rest ends every change that is under way.
func (s *Server) Rest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.endpoints {
		if e.left > 0 {
			e.left = 0
			s.end(e)
		}
	}
}

// Shares is who gets the traffic of an endpoint, by the digest of the image.
func (s *Server) Shares(endpoint string) map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int{}
	e := s.endpoints[endpoint]
	if e == nil {
		return out
	}
	sum := 0.0
	for _, l := range e.Live {
		sum += l.Weight
	}
	for _, l := range e.Live {
		if l.Weight > 0 {
			out[digestOf(l.Image)] += int(l.Weight*100/sum + 0.5)
		}
	}
	return out
}

// Dump is the state as text.
func (s *Server) Dump() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	put := func(v any) {
		raw, _ := json.Marshal(v)
		fmt.Fprintf(&b, "%s\n", raw)
	}
	for _, k := range slices.Sorted(maps.Keys(s.models)) {
		put(s.models[k])
	}
	for _, k := range slices.Sorted(maps.Keys(s.configs)) {
		put(s.configs[k])
	}
	for _, k := range slices.Sorted(maps.Keys(s.endpoints)) {
		put(s.endpoints[k])
	}
	return b.String()
}

// Delete removes the models of an image with this digest, and the configurations with them that no endpoint runs.
func (s *Server) Delete(digest string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, m := range s.models {
		if digestOf(m.PrimaryContainer.Image) != digest {
			continue
		}
		used := false
		for cn, c := range s.configs {
			if !slices.ContainsFunc(c.ProductionVariants, func(v Variant) bool { return v.ModelName == name }) {
				continue
			}
			runs := false
			for _, e := range s.endpoints {
				runs = runs || e.Config == cn || e.Pending == cn
			}
			if used = used || runs; !runs {
				delete(s.configs, cn)
			}
		}
		if !used {
			delete(s.models, name)
		}
	}
}

// Edit changes an endpoint by hand.
func (s *Server) Edit(endpoint string, f func(*Endpoint)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.endpoints[endpoint])
}

// Models changes the models by hand.
func (s *Server) Models(f func(map[string]*Model)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.models)
}

// Configs are the names of all endpoint configurations.
func (s *Server) Configs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.configs))
}

// end is the end of a change.
func (s *Server) end(e *Endpoint) {
	s.clock++
	e.changed = s.clock
	switch {
	case e.Status == "Deleting":
		delete(s.endpoints, e.Name)
	case e.Status == "Creating" && e.fail != "":
		e.Status, e.Reason = "Failed", e.fail
	case e.Status == "SystemUpdating":
		e.Status = "InService"
	case e.fail != "":
		e.Status, e.Reason = "InService", e.fail
	default:
		e.Status, e.Reason, e.Live = "InService", "", e.next
		if e.Pending != "" {
			e.Config = e.Pending
		}
	}
	e.Pending, e.next, e.fail = "", nil, ""
}

// refusal is an error that SageMaker gives.
type refusal struct{ code, message string }

func (r *refusal) Error() string { return r.code + ": " + r.message }

func invalid(format string, args ...any) error {
	return &refusal{"ValidationException", fmt.Sprintf(format, args...)}
}

// Problem answers with an error as SageMaker does.
func Problem(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-Requestid", "b0e91dc8-3807-11e2-83c6-5912bf8ad066")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		Problem(w, 400, "SerializationException", err.Error())
		return
	}
	if code, message := s.Creds.Verify(r, body, time.Now()); code != "" {
		Problem(w, 400, code, message)
		return
	}
	op, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "SageMaker.")
	f := s.operations()[op]
	if !ok || f == nil || r.Method != http.MethodPost || r.URL.Path != "/" || r.Header.Get("Content-Type") != "application/x-amz-json-1.1" {
		Problem(w, 400, "UnknownOperationException", "no such operation: "+op)
		return
	}
	if err := s.Schema.Check(op, body, nil); err != nil {
		Problem(w, 400, "ValidationException", err.Error())
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out, err := f(body)
	if r, ok := err.(*refusal); ok {
		Problem(w, 400, r.code, r.message)
		return
	}
	if err != nil {
		Problem(w, 400, "SerializationException", err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-Requestid", "b0e91dc8-3807-11e2-83c6-5912bf8ad066")
	_ = json.NewEncoder(w).Encode(out)
}

func (s *Server) operations() map[string]func(body []byte) (any, error) {
	return map[string]func(body []byte) (any, error){
		"CreateModel": s.createModel, "DescribeModel": s.describeModel, "CreateEndpointConfig": s.createConfig, "DescribeEndpointConfig": s.describeConfig,
		"DeleteEndpointConfig": s.deleteConfig, "ListEndpointConfigs": s.listConfigs, "CreateEndpoint": s.createEndpoint, "DescribeEndpoint": s.describeEndpoint,
		"UpdateEndpoint": s.updateEndpoint, "DeleteEndpoint": s.deleteEndpoint, "UpdateEndpointWeightsAndCapacities": s.weigh,
	}
}

func (s *Server) arn(kind, name string) string {
	return "arn:aws:sagemaker:" + s.Creds.Region + ":123456789012:" + kind + "/" + strings.ToLower(name)
}

func stamp(n int) float64 { return 1767323045 + float64(n) }

var byDigest = regexp.MustCompile(`^[0-9]{12}\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com/[a-z0-9/._-]+(:[a-zA-Z0-9._-]+|@sha256:[0-9a-f]{64})$`)

func (s *Server) createModel(body []byte) (any, error) {
	var m Model
	if err := json.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	image := m.PrimaryContainer.Image
	switch {
	case s.models[m.ModelName] != nil:
		return nil, invalid("Cannot create already existing model %q.", s.arn("model", m.ModelName))
	case m.ExecutionRoleArn == "":
		return nil, invalid("ExecutionRoleArn is required")
	case !byDigest.MatchString(image):
		return nil, invalid("Using non-ECR image %q without Vpc repository access mode is not supported.", image)
	case s.fates[digestOf(image)].Reject != "":
		return nil, invalid("%s", s.fates[digestOf(image)].Reject)
	}
	s.models[m.ModelName] = &m
	return map[string]any{"ModelArn": s.arn("model", m.ModelName)}, nil
}

func (s *Server) describeModel(body []byte) (any, error) {
	var d struct{ ModelName string }
	if err := json.Unmarshal(body, &d); err != nil {
		return nil, err
	}
	m := s.models[d.ModelName]
	if m == nil {
		return nil, invalid("Could not find model %q.", s.arn("model", d.ModelName))
	}
	return map[string]any{"ModelName": m.ModelName, "ModelArn": s.arn("model", m.ModelName), "ExecutionRoleArn": m.ExecutionRoleArn, "PrimaryContainer": m.PrimaryContainer, "CreationTime": stamp(0)}, nil
}

func (s *Server) createConfig(body []byte) (any, error) {
	var c Config
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, err
	}
	if s.configs[c.EndpointConfigName] != nil {
		return nil, invalid("Cannot create already existing endpoint configuration %q.", s.arn("endpoint-config", c.EndpointConfigName))
	}
	seen := map[string]bool{}
	for i := range c.ProductionVariants {
		v := &c.ProductionVariants[i]
		switch {
		case seen[v.VariantName]:
			return nil, invalid("Duplicate variant name %s", v.VariantName)
		case s.models[v.ModelName] == nil:
			return nil, invalid("Could not find model %q.", s.arn("model", v.ModelName))
		case (v.ServerlessConfig == nil) == (v.InstanceType == "") || v.InstanceType != "" && v.InitialInstanceCount == 0:
			return nil, invalid("Variant %s must have either a serverless configuration, or an instance type and count", v.VariantName)
		case v.ServerlessConfig != nil && len(c.ProductionVariants) > 1:
			return nil, invalid("Multiple variants are not supported with serverless inference")
		case v.ServerlessConfig != nil && v.ServerlessConfig.MemorySizeInMB%1024 != 0:
			return nil, invalid("MemorySizeInMB must be one of 1024, 2048, 3072, 4096, 5120, 6144")
		}
		seen[v.VariantName] = true
		if !strings.Contains(string(body), "InitialVariantWeight") {
			v.InitialVariantWeight = 1
		}
	}
	s.clock++
	c.created = s.clock
	s.configs[c.EndpointConfigName] = &c
	return map[string]any{"EndpointConfigArn": s.arn("endpoint-config", c.EndpointConfigName)}, nil
}

func (s *Server) describeConfig(body []byte) (any, error) {
	c, err := s.config(body)
	if err != nil {
		return nil, err
	}
	return map[string]any{
		"EndpointConfigName": c.EndpointConfigName, "EndpointConfigArn": s.arn("endpoint-config", c.EndpointConfigName), "ProductionVariants": c.ProductionVariants, "CreationTime": stamp(c.created),
	}, nil
}

// config is the one that a body names.
func (s *Server) config(body []byte) (*Config, error) {
	var d struct{ EndpointConfigName string }
	if err := json.Unmarshal(body, &d); err != nil {
		return nil, err
	}
	c := s.configs[d.EndpointConfigName]
	if c == nil {
		return nil, invalid("Could not find endpoint configuration %q.", s.arn("endpoint-config", d.EndpointConfigName))
	}
	return c, nil
}

// deleteConfig takes away one that is in use too, as SageMaker does.
func (s *Server) deleteConfig(body []byte) (any, error) {
	c, err := s.config(body)
	if err != nil {
		return nil, err
	}
	delete(s.configs, c.EndpointConfigName)
	return map[string]any{}, nil
}

// listConfigs gives two a page.
func (s *Server) listConfigs(body []byte) (any, error) {
	var d struct{ NameContains, SortBy, SortOrder, NextToken string }
	if err := json.Unmarshal(body, &d); err != nil {
		return nil, err
	}
	var all []*Config
	for _, c := range s.configs {
		if strings.Contains(c.EndpointConfigName, d.NameContains) {
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b *Config) int {
		if d.SortOrder == "Ascending" {
			a, b = b, a
		}
		return b.created - a.created
	})
	at := 0
	_, _ = fmt.Sscan(d.NextToken, &at)
	var page []any
	for i := at; i < len(all) && i < at+2; i++ {
		page = append(page, map[string]any{"EndpointConfigName": all[i].EndpointConfigName, "EndpointConfigArn": s.arn("endpoint-config", all[i].EndpointConfigName), "CreationTime": stamp(all[i].created)})
	}
	out := map[string]any{"EndpointConfigs": page}
	if at+2 < len(all) {
		out["NextToken"] = fmt.Sprint(at + 2)
	}
	return out, nil
}
