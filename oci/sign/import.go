package sign

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/youmark/pkcs8"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/trust"
)

// Import gives a private key that was made elsewhere its one role, and seals it anew with password. It reads cosign's key
// files, PKCS #8 and EC keys in PEM, and both kinds of PEM with a passphrase (PKCS #8's and OpenSSL's older one). old is
// asked for the passphrase of raw, and only when it has one. A key that has a role already keeps it: another is refused.
func Import(path string, raw []byte, old func() ([]byte, error), role trust.Role, name string, password []byte) (*KeyPair, error) {
	if err := checkNew(role, name); err != nil {
		return nil, err
	}
	priv, was, err := parseForeign(path, raw, old)
	if err != nil {
		return nil, err
	}
	if was != "" && was != role {
		return nil, diag.New(diag.Usage, "%s is %s key already and stays one", path, was.Article()).
			Line("one key has one role, so that a signature can mean one thing only").
			Hint("waybill keys generate --role %s --out %s.key", role, role)
	}
	if _, err := trust.KeyID(priv.Public()); err != nil {
		return nil, diag.Wrap(diag.Usage, err, "%s", path).Hint("waybill keys generate --role %s --type ed25519", role)
	}
	return seal(priv, role, name, password)
}

func parseForeign(path string, raw []byte, old func() ([]byte, error)) (crypto.Signer, trust.Role, error) {
	b, rest := pem.Decode(raw)
	for b != nil && b.Type == "EC PARAMETERS" { // openssl ecparam -genkey writes them in front
		b, rest = pem.Decode(rest)
	}
	if b == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, "", diag.New(diag.Usage, "%s is not one PEM block with a private key", path)
	}
	damaged := func(err error) error { return diag.Wrap(diag.Usage, err, "key file %s", path) }
	var key any
	var err error
	switch {
	case b.Type == cosign.SigstorePrivateKeyPemType || b.Type == cosign.CosignPrivateKeyPemType:
		pw, err := old()
		if err != nil {
			return nil, "", err
		}
		priv, der, err := unseal(b.Bytes, pw)
		if err != nil {
			return nil, "", unsealError(path, err)
		}
		return priv, sealedRole(der), nil
	case b.Type == "ENCRYPTED PRIVATE KEY":
		pw, err := old()
		if err != nil {
			return nil, "", err
		}
		if key, err = pkcs8.ParsePKCS8PrivateKey(b.Bytes, pw); err != nil {
			// The format has no check of its own: a wrong passphrase decrypts to something that is no key.
			return nil, "", diag.Wrap(diag.Failure, err, "key file %s: wrong passphrase, or not a key", path).Hint("set WAYBILL_IMPORT_PASSWORD to its passphrase")
		}
	case b.Headers["DEK-Info"] != "":
		pw, err := old()
		if err != nil {
			return nil, "", err
		}
		//lint:ignore SA1019 OpenSSL wrote such files for decades; only read here, and sealed properly on the way out
		der, err := x509.DecryptPEMBlock(b, pw)
		if err == nil {
			key, err = parseDER(b.Type, der)
		}
		if err != nil {
			return nil, "", diag.Wrap(diag.Failure, err, "key file %s: wrong passphrase, or not a key", path).Hint("set WAYBILL_IMPORT_PASSWORD to its passphrase")
		}
	default:
		if key, err = parseDER(b.Type, b.Bytes); err != nil {
			return nil, "", damaged(err)
		}
	}
	s, ok := key.(crypto.Signer)
	if !ok {
		return nil, "", damaged(fmt.Errorf("a key of type %T cannot sign", key))
	}
	return s, "", nil
}

func parseDER(typ string, der []byte) (any, error) {
	switch typ {
	case "PRIVATE KEY":
		return x509.ParsePKCS8PrivateKey(der)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(der)
	case "RSA PRIVATE KEY":
		return nil, errors.New("an RSA key; only ECDSA P-256 and Ed25519 are accepted")
	case "PUBLIC KEY":
		return nil, errors.New("a public key, not a private one")
	}
	return nil, fmt.Errorf("a PEM block of type %q is not a private key that can be imported", typ)
}
