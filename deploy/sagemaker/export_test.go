package sagemaker

import "github.com/waybill-ml/waybill/deploy"

// SetNaming replaces the rule by which endpoint configurations are named.
func SetNaming(t deploy.Target, naming func(current string) string) {
	t.(*Realtime).naming = naming
}

// ModelName is the name of the model of a release.
func ModelName(t deploy.Target, r deploy.Release) string { return t.(*Realtime).modelName(r) }
