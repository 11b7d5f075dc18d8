package cli

import (
	"os"

	"github.com/waybill-ml/waybill/deploy/kubernetes"
	"github.com/waybill-ml/waybill/deploy/targets"
)

// targetKinds is the table of what `kind` of a target may be in environments.yaml.
func targetKinds() []targets.Kind {
	return []targets.Kind{
		kubernetes.Kind(os.Getenv),
	}
}
