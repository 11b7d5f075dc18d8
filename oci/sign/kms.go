package sign

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"errors"
	"os/exec"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature/kms"
	"github.com/sigstore/sigstore/pkg/signature/options"

	// The providers register themselves under awskms://, azurekms://, gcpkms:// and hashivault:// (openbao:// too). Any
	// other scheme is a program sigstore-kms-SCHEME in PATH, sigstore's plugin protocol.
	_ "github.com/sigstore/sigstore/pkg/signature/kms/aws"
	_ "github.com/sigstore/sigstore/pkg/signature/kms/azure"
	_ "github.com/sigstore/sigstore/pkg/signature/kms/gcp"
	_ "github.com/sigstore/sigstore/pkg/signature/kms/hashivault"

	"github.com/waybill-ml/waybill/internal/diag"
)

func dialKMS(ctx context.Context, uri string) (*remote, error) {
	r, err := waitFor(ctx, func() (*remote, error) {
		r, err := getKMS(ctx, uri, crypto.SHA256)
		if err != nil {
			return nil, err
		}
		if _, ok := r.public.(ed25519.PublicKey); ok { // it hashes itself: what it gets must be the message
			return getKMS(ctx, uri, crypto.Hash(0))
		}
		return r, nil
	})
	if err == nil {
		return r, nil
	}
	var unknown *kms.ProviderNotFoundError
	scheme, _, _ := strings.Cut(uri, "://")
	if errors.As(err, &unknown) {
		e := diag.New(diag.Usage, "no key service for %s", Redact(uri)).Line("built in: awskms, azurekms, gcpkms, hashivault, openbao and pkcs11:")
		if errors.Is(err, exec.ErrNotFound) {
			e.Line("another scheme needs sigstore's plugin program sigstore-kms-%s in PATH", scheme)
		}
		return nil, e
	}
	return nil, diag.Wrap(diag.Failure, err, "key %s", Redact(uri)).Hint("waybill keys show %q", Redact(uri))
}

func getKMS(ctx context.Context, uri string, hash crypto.Hash) (*remote, error) {
	sv, err := kms.Get(ctx, uri, hash)
	if err != nil {
		return nil, err
	}
	pub, err := sv.PublicKey(options.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	return &remote{public: pub, signer: sv}, nil
}
