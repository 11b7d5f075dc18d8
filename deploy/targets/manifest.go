package targets

import (
	"fmt"

	"github.com/waybill-ml/waybill/deploy"
)

// Emitter is Settings whose target can also be written down for the tools of GitOps, which then bring the release there.
type Emitter interface {
	// Manifests describe the state that Apply of r to an empty target brings about, in one or more tools' words. It contacts nobody. The
	// same settings and release give the same documents. A release with a weight is refused with deploy.ErrRelease: what serves
	// beside it is known to the platform only.
	Manifests(r deploy.Release) ([]Manifest, error)
}

// Silent is Settings of a target whose state no tool's files can hold.
type Silent interface {
	Unwritten() string // why
}

// Tool applies manifests.
type Tool string

// Tools.
const (
	Kubectl        Tool = "kubernetes"     // kubectl apply, Argo CD, Flux: YAML documents
	SAM            Tool = "sam"            // sam deploy, CloudFormation: a template
	CloudFormation Tool = "cloudformation" // aws cloudformation deploy: a template without a transform
	Terraform      Tool = "terraform"      // terraform, tofu: a module in the JSON syntax
)

// Manifest is one file of a tool: objects of maps, slices, texts, numbers, booleans and, for Terraform, Expr.
type Manifest struct {
	Tool Tool
	Docs []map[string]any
}

// Expr is an expression of Terraform's language. Every other text is taken literally, whatever it looks like.
type Expr string

// Whole refuses a release that Manifests cannot express.
func Whole(r deploy.Release) error {
	if err := r.Check(true, false); err != nil {
		return err
	}
	if r.Weight != 0 && r.Weight != 100 {
		return fmt.Errorf("%w: a weight of %d%% cannot be written down: which revision has the rest is known to the platform only", deploy.ErrRelease, r.Weight)
	}
	return nil
}
