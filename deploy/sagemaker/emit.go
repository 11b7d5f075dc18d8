package sagemaker

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker/types"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// Manifests implements targets.Emitter: a template of CloudFormation.
func (e *realtime) Manifests(r deploy.Release) ([]targets.Manifest, error) {
	s, err := e.settings()
	return manifests(s, err, e.Region, r)
}

// Manifests implements targets.Emitter: a template of CloudFormation.
func (e *serverless) Manifests(r deploy.Release) ([]targets.Manifest, error) {
	s, err := e.settings()
	return manifests(s, err, e.Region, r)
}

func manifests(s Settings, err error, region string, r deploy.Release) ([]targets.Manifest, error) {
	if err != nil {
		return nil, err
	}
	if err := targets.Whole(r); err != nil {
		return nil, err
	}
	place, err := New(aws.Config{Region: region}, s)
	if err != nil {
		return nil, err
	}
	t, ok := place.(*Target)
	if !ok {
		t = place.(*Realtime).Target
	}
	if err := t.check(r); err != nil {
		return nil, err
	}
	vars := map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(t.env(r.Digest))) {
		v := t.env(r.Digest)[k]
		if strings.Contains(v, "{{resolve:") {
			return nil, &targets.Error{Path: "env." + k, Err: fmt.Errorf("CloudFormation replaces {{resolve:...}}, which SageMaker itself does not")}
		}
		vars[k] = v
	}
	tagged := []any{}
	for _, x := range tags(r) {
		tagged = append(tagged, map[string]any{"Key": *x.Key, "Value": *x.Value})
	}
	// Model and configuration have no names: both are replaced by each change, for which CloudFormation needs new ones, and what the
	// target made itself is not in the way. What runs is known by the model's variable.
	resources := map[string]any{
		"Model": resource("Model", map[string]any{
			"ExecutionRoleArn": t.s.Role, "Tags": tagged,
			"PrimaryContainer": map[string]any{"Image": r.Image, "Environment": vars},
		}),
		"EndpointConfig": resource("EndpointConfig", map[string]any{"ProductionVariants": []any{t.written(r)}, "Tags": tagged}),
	}
	endpoint := map[string]any{"EndpointName": t.s.Endpoint, "EndpointConfigName": attribute("EndpointConfig", "EndpointConfigName"), "Tags": tagged}
	if !t.s.Serverless {
		endpoint["DeploymentConfig"] = t.shift()
	}
	if t.s.Autoscaled {
		endpoint["RetainAllVariantProperties"] = true
		endpoint["ExcludeRetainedVariantProperties"] = []any{map[string]any{"VariantPropertyType": string(types.VariantPropertyTypeDesiredWeight)}}
	}
	resources["Endpoint"] = resource("Endpoint", endpoint)
	doc := map[string]any{
		"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources,
		"Outputs": map[string]any{"Endpoint": map[string]any{"Value": attribute("Endpoint", "EndpointName")}},
	}
	if about := strings.TrimSpace(r.Model + " " + r.Ver); about != "" {
		doc["Description"] = about
	}
	return []targets.Manifest{{Tool: targets.CloudFormation, Docs: []map[string]any{doc}}}, nil
}

func resource(name string, properties map[string]any) map[string]any {
	return map[string]any{"Type": "AWS::SageMaker::" + name, "Properties": properties}
}

func attribute(of, name string) map[string]any {
	return map[string]any{"Fn::GetAtt": []any{of, name}}
}

// written is the one variant of a release, as the template has it.
func (t *Target) written(r deploy.Release) map[string]any {
	v := (&state{}).toward(t.variant(r), 100)[0]
	out := map[string]any{"VariantName": *v.VariantName, "ModelName": attribute("Model", "ModelName"), "InitialVariantWeight": int(*v.InitialVariantWeight)}
	if c := v.ServerlessConfig; c != nil {
		config := map[string]any{"MemorySizeInMB": int(*c.MemorySizeInMB), "MaxConcurrency": int(*c.MaxConcurrency)}
		if c.ProvisionedConcurrency != nil {
			config["ProvisionedConcurrency"] = int(*c.ProvisionedConcurrency)
		}
		out["ServerlessConfig"] = config
		return out
	}
	out["InstanceType"], out["InitialInstanceCount"] = string(v.InstanceType), int(*v.InitialInstanceCount)
	return out
}

// shift is how CloudFormation has the traffic go over.
func (t *Target) shift() map[string]any {
	c := t.shifting(time.Now())
	routing := c.BlueGreenUpdatePolicy.TrafficRoutingConfiguration
	to := map[string]any{"Type": string(routing.Type), "WaitIntervalInSeconds": int(*routing.WaitIntervalInSeconds)}
	for name, step := range map[string]*types.CapacitySize{"CanarySize": routing.CanarySize, "LinearStepSize": routing.LinearStepSize} {
		if step != nil {
			to[name] = map[string]any{"Type": string(step.Type), "Value": int(*step.Value)}
		}
	}
	out := map[string]any{"BlueGreenUpdatePolicy": map[string]any{"TrafficRoutingConfiguration": to}}
	if len(t.s.Alarms) > 0 {
		alarms := []any{}
		for _, a := range t.s.Alarms {
			alarms = append(alarms, map[string]any{"AlarmName": a})
		}
		out["AutoRollbackConfiguration"] = map[string]any{"Alarms": alarms}
	}
	return out
}

var _, _ targets.Emitter = (*realtime)(nil), (*serverless)(nil)
