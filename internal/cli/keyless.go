package cli

import (
	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/sigstore"
)

func trustedRootFlag() ucli.Flag {
	return &ucli.StringFlag{
		Name: "trusted-root", EnvVars: []string{"WAYBILL_TRUSTED_ROOT"},
		Usage: "sigstore trusted root `FILE`, if trust names its digest only",
	}
}

// certificates is what verifies bundles that were signed without a key. --trusted-root counts only where the trust
// document names its digest.
func (c *Call) certificates() (verify.Certificates, error) {
	name := c.String("trusted-root")
	if name == "" {
		return sigstore.With(), nil
	}
	raw, err := c.rootFile(name)
	if err != nil {
		return nil, err
	}
	return sigstore.With(raw), nil
}

func (c *Call) rootFile(name string) ([]byte, error) {
	raw, err := c.readFile(name, trust.MaxTrustedRoot)
	if err != nil {
		return nil, err
	}
	if _, err := sigstore.ParseRoot(raw); err != nil {
		return nil, diag.Wrap(diag.Usage, err, "--trusted-root %s", name).Hint("cosign trusted-root create --help")
	}
	return raw, nil
}
