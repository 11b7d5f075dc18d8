// Package sign makes and uses the keys of people and CI. Key files are ECDSA P-256 or Ed25519, encrypted in cosign's own
// format, so that stock cosign reads them. A key has one role: it stands in a PEM header for everyone to read, and again
// inside what the passphrase seals, and Load refuses a file whose header says something else. Keys that never leave a
// service (a cloud's KMS, Vault, a PKCS#11 token) are used through a reference file, which carries role, URI and public
// key. What really limits a key is the trust document. Heavy: it links cosign.
package sign

import (
	"bytes"
	"context"
	"crypto"
	"io"
	"slices"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/options"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

const (
	roleHeader = "Waybill-Role"
	nameHeader = "Waybill-Name"
	uriHeader  = "Waybill-Key-URI"
	maxKeyFile = 64 << 10
)

// Key is a private key that is ready to sign. Loading a file costs about 0.2 s of scrypt, signing nothing: keep it. Safe
// for concurrent use.
type Key struct {
	id, name string
	role     trust.Role
	public   []byte
	key      crypto.PublicKey
	signer   messageSigner
	where    string // of a key that is not in a file; empty otherwise
}

// messageSigner signs bytes with an algorithm that verify.Signature knows. sigstore's signers are such.
type messageSigner interface {
	SignMessage(message io.Reader, opts ...signature.SignOption) ([]byte, error)
}

// KeyID is the hex SHA-256 of the DER SubjectPublicKeyInfo.
func (k *Key) KeyID() string { return k.id }

// Role is the key's one role.
func (k *Key) Role() trust.Role { return k.role }

// Name is the name in the key file; may be empty.
func (k *Key) Name() string { return k.name }

// Public gives the public key as PEM SubjectPublicKeyInfo.
func (k *Key) Public() []byte { return bytes.Clone(k.public) }

// Sign signs a statement and gives the sigstore bundle v0.3. The predicate type must be one that the key's role may sign.
func (k *Key) Sign(ctx context.Context, s *evidence.Statement) ([]byte, error) {
	if roles := trust.MaySign(s.PredicateType); !slices.Contains(roles, k.role) {
		return nil, diag.New(diag.Usage, "%s key can't sign a %s statement; only %v keys can", k.role.Article(), evidence.NameOf(s.PredicateType), roles)
	}
	payload, sig, err := k.sign(ctx, s)
	if err != nil {
		return nil, err
	}
	return evidence.EncodeBundle(k.id, payload, sig)
}

func (k *Key) sign(ctx context.Context, s *evidence.Statement) (payload, sig []byte, err error) {
	if payload, err = s.Encode(); err != nil {
		return nil, nil, err
	}
	if sig, err = k.raw(ctx, evidence.PAE(evidence.PayloadType, payload)); err != nil {
		return nil, nil, err
	}
	// A service that signed with another version of the key, or in another algorithm, is found here and not by those who verify.
	if !verify.Signature(k.key, evidence.PayloadType, payload, sig) {
		return nil, nil, diag.New(diag.Failure, "the signature that %s made does not fit public key %s", k.place(), k.id[:12]).
			Line("the service may have changed the key, or signs in another algorithm than ECDSA P-256 with SHA-256 or Ed25519")
	}
	return payload, sig, nil
}

// raw signs bytes. Services that do not look at ctx are left behind when it ends.
func (k *Key) raw(ctx context.Context, message []byte) ([]byte, error) {
	sig, err := waitFor(ctx, func() ([]byte, error) {
		return k.signer.SignMessage(bytes.NewReader(message), options.WithContext(ctx))
	})
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "sign with %s", k.place())
	}
	return sig, nil
}

func (k *Key) place() string {
	if k.where != "" {
		return k.where
	}
	return "key " + k.id[:12]
}

// waitFor runs f, but not longer than ctx lasts.
func waitFor[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type answer struct {
		v   T
		err error
	}
	c := make(chan answer, 1)
	go func() {
		v, err := f()
		c <- answer{v, err}
	}()
	select {
	case a := <-c:
		return a.v, a.err
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}

func orRest(names []string) string {
	if len(names) < 2 {
		return ""
	}
	return " or " + strings.Join(names[1:], " or ")
}

func roleList() string {
	var s []string
	for _, r := range trust.Roles() {
		if r != trust.RoleDevice {
			s = append(s, string(r))
		}
	}
	return strings.Join(s, ", ")
}
