package cli

import (
	"os"
	"slices"

	"github.com/waybill-ml/waybill/deploy/awslambda"
	"github.com/waybill-ml/waybill/deploy/azureml"
	"github.com/waybill-ml/waybill/deploy/cloudflare"
	"github.com/waybill-ml/waybill/deploy/cloudrun"
	"github.com/waybill-ml/waybill/deploy/kubernetes"
	"github.com/waybill-ml/waybill/deploy/sagemaker"
	"github.com/waybill-ml/waybill/deploy/targets"
	"github.com/waybill-ml/waybill/deploy/vertex"
)

// targetKinds is the table of what `kind` of a target may be in environments.yaml.
func targetKinds() []targets.Kind {
	return slices.Concat(
		awslambda.Kinds(),
		sagemaker.Kinds(),
		[]targets.Kind{kubernetes.Kind(os.Getenv), kubernetes.KnativeKind(os.Getenv), kubernetes.KServeKind(os.Getenv)},
		[]targets.Kind{cloudrun.Kind(), vertex.Kind()},
		[]targets.Kind{azureml.Kind(), cloudflare.Kind(os.Getenv)},
	)
}
