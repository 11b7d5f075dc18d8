package sign

import (
	"context"
	"slices"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/oms"
	"github.com/waybill-ml/waybill/oci/trust"
)

// CheckOMS tells whether SignOMS would sign with this key.
func (k *Key) CheckOMS() error {
	if roles := trust.MaySign(evidence.TypeOMS); !slices.Contains(roles, k.role) {
		return diag.New(diag.Usage, "%s key can't sign a list of files; only %v keys can", k.role.Article(), roles)
	}
	b, err := oms.Hint(k.key)
	if err == nil {
		_, err = oms.ParsePublic(k.public)
	}
	if err != nil || b == "" {
		return diag.Wrap(diag.Usage, err, "OpenSSF Model Signing cannot be done with this key").
			Hint("waybill keys generate --role publisher --type ecdsa --out oms.key")
	}
	return nil
}

// SignOMS signs a statement of oms.New, with the hint that OMS's own verifier compares: the hash of the PEM key.
func (k *Key) SignOMS(ctx context.Context, s *evidence.Statement) ([]byte, error) {
	if err := k.CheckOMS(); err != nil {
		return nil, err
	}
	if _, err := oms.Check(s); err != nil {
		return nil, err
	}
	payload, sig, err := k.sign(ctx, s)
	if err != nil {
		return nil, err
	}
	hint, err := oms.Hint(k.key)
	if err != nil {
		return nil, err
	}
	return evidence.EncodeHinted(hint, payload, sig)
}
