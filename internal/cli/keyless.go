package cli

import (
	"fmt"
	"time"

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

type certificateJSON struct {
	Issuer  string     `json:"issuer"`
	Subject string     `json:"subject"`
	Times   []timeJSON `json:"times"`
	Logs    []string   `json:"logs"` // ids of the transparency logs that hold the signature
}

type timeJSON struct {
	At     time.Time         `json:"at"`
	Source verify.TimeSource `json:"source"`
	URI    string            `json:"uri"`
}

func certificateOf(e verify.Evidence) *certificateJSON {
	if e.Certified == nil {
		return nil
	}
	c := &certificateJSON{Issuer: e.Certified.Issuer, Subject: e.Certified.Subject, Times: []timeJSON{}, Logs: append([]string{}, e.Certified.Logs...)}
	for _, t := range e.Certified.Times {
		c.Times = append(c.Times, timeJSON{t.At, t.Source, t.URI})
	}
	return c
}

// who names the signer for people: "release team (publisher key 4f2a91c0d3e5)", or the certificate's subject.
func (v verifiedJSON) who() string {
	if c := v.Certificate; c != nil {
		return fmt.Sprintf("%s of %s (%s identity %s)", c.Subject, c.Issuer, v.Role, v.KeyID[:12])
	}
	return fmt.Sprintf("%s (%s key %s)", v.KeyName, v.Role, v.KeyID[:12])
}
