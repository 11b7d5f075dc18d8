package awslambda

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// Manifests implements targets.Emitter for functions that run images: a SAM template and a module of Terraform, both with a published
// version behind the alias.
func (e *entry) Manifests(r deploy.Release) ([]targets.Manifest, error) {
	if r.Image == "" && r.Bundle != "" {
		return nil, fmt.Errorf("%w: a bundle is uploaded, and stands in no manifest; targets of kind lambda run images", deploy.ErrRelease)
	}
	if err := targets.Whole(r); err != nil {
		return nil, err
	}
	s, err := e.settings()
	if err != nil {
		return nil, err
	}
	t, err := New(aws.Config{Region: e.Region}, s)
	if err != nil {
		return nil, err
	}
	if _, err := t.code(r); err != nil {
		return nil, err
	}
	if t.s.Role == "" {
		return nil, &targets.Error{Path: "role", Err: fmt.Errorf("is missing: whoever creates the function needs the ARN of its execution role")}
	}
	vars := map[string]any{}
	for _, k := range slices.Sorted(maps.Keys(t.env(""))) {
		vars[k] = t.env(string(r.Digest))[k]
		if strings.Contains(vars[k].(string), "{{resolve:") {
			return nil, &targets.Error{Path: "env." + k, Err: fmt.Errorf("CloudFormation replaces {{resolve:...}}, which Lambda itself does not")}
		}
	}
	arch := []any{string(architecture(t.s.Arch))}
	seconds := int(t.s.Timeout.Seconds())
	about := strings.TrimSpace(r.Model + " " + r.Ver)
	sam := map[string]any{
		"AWSTemplateFormatVersion": "2010-09-09",
		"Transform":                "AWS::Serverless-2016-10-31",
		"Resources": map[string]any{"Function": map[string]any{
			"Type": "AWS::Serverless::Function",
			"Properties": map[string]any{
				"FunctionName": t.s.Function, "PackageType": "Image", "ImageUri": r.Image, "Architectures": arch, "Role": t.s.Role,
				"MemorySize": int(t.s.Memory), "Timeout": seconds, "EphemeralStorage": map[string]any{"Size": int(t.s.Ephemeral)},
				"Environment": map[string]any{"Variables": vars},
				// A version is published for changes of settings too, as Apply does.
				"AutoPublishAlias": t.s.Alias, "AutoPublishAliasAllProperties": true,
			},
		}},
		"Outputs": map[string]any{"Version": map[string]any{"Value": map[string]any{"Ref": "Function.Version"}}},
	}
	if about != "" {
		sam["Description"] = about
	}
	tf := map[string]any{
		"terraform": map[string]any{"required_providers": map[string]any{"aws": map[string]any{"source": "hashicorp/aws", "version": ">= 6.0.0"}}},
		"resource": map[string]any{
			"aws_lambda_function": map[string]any{"function": map[string]any{
				"region": e.Region, "function_name": t.s.Function, "package_type": "Image", "image_uri": r.Image, "architectures": arch, "role": t.s.Role,
				"memory_size": int(t.s.Memory), "timeout": seconds, "ephemeral_storage": map[string]any{"size": int(t.s.Ephemeral)},
				"environment": map[string]any{"variables": vars}, "publish": true,
			}},
			"aws_lambda_alias": map[string]any{"alias": map[string]any{
				"region": e.Region, "name": t.s.Alias,
				"function_name":    targets.Expr("aws_lambda_function.function.function_name"),
				"function_version": targets.Expr("aws_lambda_function.function.version"),
			}},
		},
		"output": map[string]any{"version": map[string]any{"value": targets.Expr("aws_lambda_function.function.version")}},
	}
	return []targets.Manifest{{Tool: targets.SAM, Docs: []map[string]any{sam}}, {Tool: targets.Terraform, Docs: []map[string]any{tf}}}, nil
}
