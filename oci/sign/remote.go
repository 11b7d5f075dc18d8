package sign

import (
	"context"
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/pkcs11"
	"github.com/waybill-ml/waybill/oci/trust"
)

// referenceType is the PEM type of a reference file: headers with role, name and URI, and the DER SubjectPublicKeyInfo.
const referenceType = "WAYBILL KEY REFERENCE"

// IsURI tells a key in a service ("awskms:///alias/release", "pkcs11:token=a;object=b") from the path of a file.
func IsURI(s string) bool {
	return strings.HasPrefix(s, pkcs11.Scheme) || strings.Contains(s, "://")
}

// Secrets are where the PIN of a token comes from. Clouds and Vault take their credentials as their own tools do.
type Secrets struct {
	Getenv func(string) string
	Ask    Prompt // nil: nobody can be asked
}

// remote is a key in a service.
type remote struct {
	public crypto.PublicKey
	signer messageSigner
}

// Public asks a service for the public key that a URI names.
func Public(ctx context.Context, uri string, sec Secrets) (pem []byte, id string, err error) {
	r, err := dial(ctx, uri, sec)
	if err != nil {
		return nil, "", err
	}
	if id, err = trust.KeyID(r.public); err != nil {
		return nil, "", diag.Wrap(diag.Usage, err, "%s", Redact(uri)).Line("make the key as ECDSA P-256 (for signing), or as Ed25519 where the service has it")
	}
	pem, err = trust.EncodePublic(r.public)
	return pem, id, err
}

// Reference writes the reference file of a key in a service. public is what Public gave: whoever signs compares it with
// what the service says then, so that a key that was changed behind its name is noticed.
func Reference(uri string, role trust.Role, name string, public []byte) ([]byte, error) {
	if err := checkNew(role, name); err != nil {
		return nil, err
	}
	if err := CheckURI(uri); err != nil {
		return nil, err
	}
	if _, _, err := trust.ParsePublic(public); err != nil {
		return nil, err
	}
	spki, _ := pem.Decode(public)
	b := &pem.Block{Type: referenceType, Headers: map[string]string{roleHeader: string(role), uriHeader: uri}, Bytes: spki.Bytes}
	if name != "" {
		b.Headers[nameHeader] = name
	}
	return pem.EncodeToMemory(b), nil
}

// CheckURI tells what Reference would refuse about a URI, before a service is asked.
func CheckURI(uri string) error {
	if !IsURI(uri) || strings.ContainsAny(uri, "\r\n") {
		return diag.New(diag.Usage, "%q is not the URI of a key", uri).Hint("waybill keys register awskms:///alias/release --role publisher")
	}
	if pkcs11.HasPIN(uri) {
		return diag.New(diag.Usage, "the URI holds a PIN, which does not belong in a file").
			Hint("leave pin-value out and set WAYBILL_PKCS11_PIN, or use pin-source=file:PATH")
	}
	if strings.HasPrefix(uri, pkcs11.Scheme) {
		if _, err := pkcs11.Parse(uri); err != nil {
			return diag.Wrap(diag.Usage, err, "%s", uri).Hint("waybill keys register 'pkcs11:token=T;object=K?module-path=/usr/lib/softhsm/libsofthsm2.so' --role publisher")
		}
	}
	return nil
}

func inspectReference(b *pem.Block) (Info, error) {
	in := Info{Role: trust.Role(b.Headers[roleHeader]), Name: b.Headers[nameHeader], URI: b.Headers[uriHeader]}
	in.Public = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: b.Bytes})
	var err error
	switch _, in.ID, err = trust.ParsePublic(in.Public); {
	case err != nil:
		return Info{}, fmt.Errorf("key reference: %w", err)
	case !in.Role.Valid():
		return Info{}, errors.New("the key reference carries no role")
	case !IsURI(in.URI):
		return Info{}, errors.New("the key reference names no URI")
	case pkcs11.HasPIN(in.URI):
		return Info{}, errors.New("the key reference holds a PIN")
	}
	return in, nil
}

// OpenReference opens the key that a reference file stands for. The service must have the very public key of the file.
func OpenReference(ctx context.Context, path string, sec Secrets, want ...trust.Role) (*Key, error) {
	raw, err := readKey(path)
	if err != nil {
		return nil, err
	}
	in, err := checkRole(path, raw, want)
	if err != nil {
		return nil, err
	}
	if in.URI == "" {
		return nil, diag.New(diag.Usage, "%s is not a key reference", path)
	}
	k, err := open(ctx, in, sec)
	if err != nil {
		return nil, err
	}
	if k.id != in.ID {
		return nil, diag.New(diag.Failure, "%s has key %s now, %s was written for key %s", Redact(in.URI), k.id[:12], path, in.ID[:12]).
			Line("the key was rotated, or the name points elsewhere").
			Hint("waybill keys register %q --role %s --out NEW.key", in.URI, in.Role)
	}
	return k, nil
}

// OpenURI opens a key by its URI alone. Its role is what the trust document says: one that it does not name is refused.
func OpenURI(ctx context.Context, uri string, doc *trust.Document, sec Secrets, want ...trust.Role) (*Key, error) {
	k, err := open(ctx, Info{URI: uri}, sec)
	if err != nil {
		return nil, err
	}
	known, ok := doc.Lookup(k.id)
	if !ok || doc.IsRevoked(k.id) {
		what := "does not name"
		if ok {
			what = "revokes"
		}
		e := diag.New(diag.Usage, "trust document version %d %s key %s of %s, so it has no role", doc.Version, what, k.id[:12], Redact(uri))
		return nil, e.Hint("waybill keys register %q --role %s --out FILE.key", Redact(uri), roleOr(want))
	}
	k.role, k.name = known.Role, known.Name
	return k, checkWanted(Redact(uri), known.Role, want)
}

func roleOr(want []trust.Role) trust.Role {
	if len(want) > 0 {
		return want[0]
	}
	return trust.RolePublisher
}

func open(ctx context.Context, in Info, sec Secrets) (*Key, error) {
	r, err := dial(ctx, in.URI, sec)
	if err != nil {
		return nil, err
	}
	k := &Key{name: in.Name, role: in.Role, key: r.public, signer: r.signer, where: Redact(in.URI)}
	if k.id, err = trust.KeyID(r.public); err != nil {
		return nil, diag.Wrap(diag.Usage, err, "%s", k.where).Line("make the key as ECDSA P-256 (for signing), or as Ed25519 where the service has it")
	}
	k.public, err = trust.EncodePublic(r.public)
	return k, err
}

func dial(ctx context.Context, uri string, sec Secrets) (*remote, error) {
	if strings.HasPrefix(uri, pkcs11.Scheme) {
		t, err := pkcs11.Open(ctx, uri, pkcs11.Secrets{Getenv: sec.Getenv, Ask: sec.Ask})
		if err != nil {
			return nil, err
		}
		return &remote{public: t.Public(), signer: tokenSigner{t}}, nil
	}
	return dialKMS(ctx, uri)
}

// tokenSigner is a key on a token, in sigstore's form.
type tokenSigner struct{ *pkcs11.Token }

// SignMessage implements messageSigner.
func (t tokenSigner) SignMessage(message io.Reader, _ ...signature.SignOption) ([]byte, error) {
	msg, err := io.ReadAll(message)
	if err != nil {
		return nil, err
	}
	return t.Sign(msg)
}

// Redact writes a URI without the secrets that may stand in it, for messages.
func Redact(uri string) string {
	uri = pkcs11.Redact(uri)
	if u, err := url.Parse(uri); err == nil && u.User != nil {
		return u.Redacted()
	}
	return uri
}
