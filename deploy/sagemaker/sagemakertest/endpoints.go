package sagemakertest

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// request is the members of bodies about endpoints that the server understands.
type request struct {
	EndpointName, EndpointConfigName string
	RetainAllVariantProperties       bool
	ExcludeRetainedVariantProperties []struct{ VariantPropertyType string }
	DeploymentConfig                 json.RawMessage
	DesiredWeightsAndCapacities      []struct {
		VariantName            string
		DesiredWeight          *float64
		DesiredInstanceCount   *int
		ServerlessUpdateConfig *struct{ MaxConcurrency, ProvisionedConcurrency int }
	}
}

// endpoint reads a body and finds what it names.
func (s *Server) endpoint(body []byte) (*request, *Endpoint, error) {
	var d request
	if err := json.Unmarshal(body, &d); err != nil {
		return nil, nil, err
	}
	e := s.endpoints[d.EndpointName]
	if e == nil {
		return &d, nil, invalid("Could not find endpoint %q.", s.arn("endpoint", d.EndpointName))
	}
	return &d, e, nil
}

// free refuses a change while another is under way.
func (s *Server) free(e *Endpoint) error {
	if e.left > 0 {
		return invalid("Cannot update in-progress endpoint %q.", s.arn("endpoint", e.Name))
	}
	return nil
}

// launch is what a configuration starts, and how that ends. before is what serves now.
func (s *Server) launch(e *Endpoint, c *Config, before []Live, d *request) error {
	e.fail, e.left, e.next = "", Steps, nil
	for _, v := range c.ProductionVariants {
		m := s.models[v.ModelName]
		if m == nil {
			return invalid("Could not find model %q.", s.arn("model", v.ModelName))
		}
		f := s.fates[digestOf(m.PrimaryContainer.Image)]
		switch {
		case f.Limit != "":
			return &refusal{"ResourceLimitExceeded", f.Limit}
		case f.Fail != "":
			e.fail = f.Fail
		case f.Stuck:
			e.left, e.fail = StuckLooks, "The "+v.VariantName+" container for production variant "+v.VariantName+" did not pass the ping health check."
		}
		image := m.PrimaryContainer.Image
		if i := strings.LastIndexByte(image, ':'); !strings.Contains(image, "@") && i > 0 { // a tag is resolved
			image = fmt.Sprintf("%s@sha256:%x", image[:i], sha256.Sum256([]byte(image)))
		}
		l := Live{Name: v.VariantName, Image: image, Type: v.InstanceType, Count: v.InitialInstanceCount, Weight: v.InitialVariantWeight, Serverless: v.ServerlessConfig}
		if d.RetainAllVariantProperties {
			for _, b := range before {
				if b.Name != l.Name {
					continue
				}
				l.Count = b.Count
				weight := false
				for _, x := range d.ExcludeRetainedVariantProperties {
					weight = weight || x.VariantPropertyType == "DesiredWeight"
				}
				if !weight {
					l.Weight = b.Weight
				}
			}
		}
		e.next = append(e.next, l)
	}
	return nil
}

func (s *Server) createEndpoint(body []byte) (any, error) {
	d, e, _ := s.endpoint(body)
	if e != nil {
		return nil, invalid("Cannot create already existing endpoint %q.", s.arn("endpoint", e.Name))
	}
	c, err := s.config(body)
	if err != nil {
		return nil, err
	}
	e = &Endpoint{Name: d.EndpointName, Config: c.EndpointConfigName, Status: "Creating"}
	if err := s.launch(e, c, nil, d); err != nil {
		return nil, err
	}
	s.clock++
	e.changed = s.clock
	s.endpoints[e.Name] = e
	return map[string]any{"EndpointArn": s.arn("endpoint", e.Name)}, nil
}

func (s *Server) updateEndpoint(body []byte) (any, error) {
	d, e, err := s.endpoint(body)
	if err != nil {
		return nil, err
	}
	c, err := s.config(body)
	if err != nil {
		return nil, err
	}
	if err := s.free(e); err != nil {
		return nil, err
	}
	if e.Status == "Failed" {
		return nil, invalid("Cannot update a failed endpoint %q.", s.arn("endpoint", e.Name))
	}
	for _, l := range e.Live {
		if l.Serverless == nil && c.ProductionVariants[0].ServerlessConfig != nil {
			return nil, invalid("Endpoint %s is not serverless, and cannot be updated to a serverless configuration", e.Name)
		}
	}
	if d.DeploymentConfig != nil {
		kept := len(e.Live) == len(c.ProductionVariants)
		for _, v := range c.ProductionVariants {
			kept = kept && v.ServerlessConfig == nil && slices.ContainsFunc(e.Live, func(l Live) bool { return l.Name == v.VariantName && l.Serverless == nil })
		}
		if !kept {
			return nil, invalid("A deployment configuration needs variants of the same names with instances")
		}
	}
	n := *e
	n.Deployment = string(d.DeploymentConfig)
	if err := s.launch(&n, c, e.Live, d); err != nil {
		return nil, err
	}
	n.Status, n.Reason, n.Pending = "Updating", "", c.EndpointConfigName
	s.clock++
	n.changed = s.clock
	*e = n
	return map[string]any{"EndpointArn": s.arn("endpoint", e.Name)}, nil
}

func (s *Server) deleteEndpoint(body []byte) (any, error) {
	_, e, err := s.endpoint(body)
	if err != nil {
		return nil, err
	}
	if err := s.free(e); err != nil {
		return nil, err
	}
	e.Status, e.Live, e.left = "Deleting", nil, Steps
	return map[string]any{}, nil
}

// weigh is UpdateEndpointWeightsAndCapacities.
func (s *Server) weigh(body []byte) (any, error) {
	d, e, err := s.endpoint(body)
	if err != nil {
		return nil, err
	}
	if err := s.free(e); err != nil {
		return nil, err
	}
	next := slices.Clone(e.Live)
	for _, x := range d.DesiredWeightsAndCapacities {
		i := slices.IndexFunc(next, func(l Live) bool { return l.Name == x.VariantName })
		if i < 0 {
			return nil, invalid("Could not find variant %s.", x.VariantName)
		}
		if x.DesiredWeight != nil {
			next[i].Weight = *x.DesiredWeight
		}
		if x.DesiredInstanceCount != nil {
			next[i].Count = *x.DesiredInstanceCount
		}
		if u := x.ServerlessUpdateConfig; u != nil && next[i].Serverless != nil {
			n := *next[i].Serverless
			if u.MaxConcurrency > 0 {
				n.MaxConcurrency = u.MaxConcurrency
			}
			if u.ProvisionedConcurrency > 0 {
				n.ProvisionedConcurrency = u.ProvisionedConcurrency
			}
			next[i].Serverless = &n
		}
	}
	e.Status, e.Reason, e.next, e.left, e.fail = "Updating", "", next, Steps, ""
	s.clock++
	e.changed = s.clock
	return map[string]any{"EndpointArn": s.arn("endpoint", e.Name)}, nil
}

// Maintain begins the platform's own maintenance, which no one asked for.
func (s *Server) Maintain(endpoint string) {
	s.Edit(endpoint, func(e *Endpoint) { e.Status, e.left, e.fail = "SystemUpdating", Steps, "" })
}

// describeEndpoint is one look: it shows what is, then time passes.
func (s *Server) describeEndpoint(body []byte) (any, error) {
	_, e, err := s.endpoint(body)
	if err != nil {
		return nil, err
	}
	out := map[string]any{
		"EndpointName": e.Name, "EndpointArn": s.arn("endpoint", e.Name), "EndpointConfigName": e.Config, "EndpointStatus": e.Status,
		"CreationTime": stamp(0), "LastModifiedTime": stamp(e.changed),
	}
	if e.Reason != "" {
		out["FailureReason"] = e.Reason
	}
	show := func(l Live) map[string]any {
		v := map[string]any{"VariantName": l.Name, "CurrentWeight": l.Weight, "DesiredWeight": l.Weight, "DeployedImages": []any{map[string]any{"SpecifiedImage": l.Image, "ResolvedImage": l.Image}}}
		if l.Serverless != nil {
			v["CurrentServerlessConfig"], v["DesiredServerlessConfig"] = l.Serverless, l.Serverless
			v["CurrentInstanceCount"] = 0
		} else {
			v["CurrentInstanceCount"], v["DesiredInstanceCount"] = l.Count, l.Count
		}
		return v
	}
	var live []any
	for _, l := range e.Live {
		live = append(live, show(l))
	}
	if live != nil {
		out["ProductionVariants"] = live
	}
	if e.Pending != "" || e.Status == "Creating" {
		var next []any
		for _, l := range e.next {
			v := show(l)
			if l.Serverless == nil {
				v["InstanceType"] = l.Type
			}
			next = append(next, v)
		}
		name := e.Pending
		if name == "" {
			name = e.Config
		}
		out["PendingDeploymentSummary"] = map[string]any{"EndpointConfigName": name, "ProductionVariants": next, "StartTime": stamp(e.changed)}
	}
	if e.left > 0 {
		if e.left--; e.left == 0 {
			s.end(e)
		}
	}
	return out, nil
}
