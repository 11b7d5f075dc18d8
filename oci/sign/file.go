package sign

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/encrypted"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/trust"
)

// Type is the algorithm of a new key.
type Type string

// Types. Everything else is refused as a signer: RSA and the larger curves too.
const (
	ECDSA   Type = "ecdsa"   // P-256 with SHA-256
	Ed25519 Type = "ed25519" // plain Ed25519 (RFC 8032), not Ed25519ph
)

// KeyPair is a new key: the encrypted private PEM file and the public one.
type KeyPair struct {
	ID      string
	Role    trust.Role
	Name    string
	Private []byte
	Public  []byte
}

// Generate makes a key of a role, encrypted with password (scrypt and NaCl secretbox, as cosign does). name is for
// people and may be empty. Device keys are made on the device, by oci/devicekey.
func Generate(typ Type, role trust.Role, name string, password []byte) (*KeyPair, error) {
	if err := CheckNew(typ, role, name); err != nil {
		return nil, err
	}
	var priv crypto.Signer
	var err error
	if typ == Ed25519 {
		_, priv, err = ed25519.GenerateKey(rand.Reader)
	} else {
		priv, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return seal(priv, role, name, password)
}

// CheckNew tells what Generate would refuse, before anybody is asked for a password.
func CheckNew(typ Type, role trust.Role, name string) error {
	if typ != ECDSA && typ != Ed25519 {
		return diag.New(diag.Usage, "key type %q is neither %s nor %s", typ, ECDSA, Ed25519).Hint("waybill keys generate --role %s --type %s", role, Ed25519)
	}
	return checkNew(role, name)
}

func checkNew(role trust.Role, name string) error {
	switch {
	case !role.Valid():
		return diag.New(diag.Usage, "role %q is not one of %s", role, roleList()).Hint("waybill keys generate --role publisher")
	case role == trust.RoleDevice:
		return diag.New(diag.Usage, "device keys are made on the device").Hint("waybill-edge enroll")
	case strings.ContainsAny(name, "\r\n:"):
		return diag.New(diag.Usage, "key name %q holds a line break or a colon", name)
	}
	return nil
}

// seal writes the key file.
func seal(priv crypto.Signer, role trust.Role, name string, password []byte) (*KeyPair, error) {
	id, err := trust.KeyID(priv.Public())
	if err != nil {
		return nil, err
	}
	public, err := trust.EncodePublic(priv.Public())
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	if der, err = withRole(der, role); err != nil {
		return nil, err
	}
	sealed, err := encrypted.Encrypt(der, password)
	if err != nil {
		return nil, fmt.Errorf("encrypt private key: %w", err)
	}
	b := &pem.Block{Type: cosign.SigstorePrivateKeyPemType, Headers: map[string]string{roleHeader: string(role)}, Bytes: sealed}
	if name != "" {
		b.Headers[nameHeader] = name
	}
	return &KeyPair{ID: id, Role: role, Name: name, Private: pem.EncodeToMemory(b), Public: public}, nil
}

// keyInfo is PrivateKeyInfo of RFC 5208. The role stands in its attributes, as X.520's role attribute (2.5.4.72): inside
// what the passphrase seals, where cosign's parser (crypto/x509) reads over it.
type keyInfo struct {
	Version    int
	Algorithm  asn1.RawValue
	PrivateKey []byte
	Attributes []keyAttribute `asn1:"optional,set,tag:0"`
}

type keyAttribute struct {
	Type   asn1.ObjectIdentifier
	Values []string `asn1:"set"`
}

func roleOID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{2, 5, 4, 72} }

func withRole(der []byte, role trust.Role) ([]byte, error) {
	var k keyInfo
	if rest, err := asn1.Unmarshal(der, &k); err != nil || len(rest) > 0 {
		return nil, fmt.Errorf("encode private key: not PKCS #8 (%w)", err)
	}
	k.Attributes = []keyAttribute{{Type: roleOID(), Values: []string{string(role)}}}
	return asn1.Marshal(k)
}

// sealedRole reads the role that withRole wrote; empty when there is none.
func sealedRole(der []byte) trust.Role {
	var k keyInfo
	if rest, err := asn1.Unmarshal(der, &k); err != nil || len(rest) > 0 {
		return ""
	}
	for _, a := range k.Attributes {
		if a.Type.Equal(roleOID()) && len(a.Values) == 1 {
			return trust.Role(a.Values[0])
		}
	}
	return ""
}

// Info is what a key file tells without its password.
type Info struct {
	Role   trust.Role
	Name   string
	URI    string // of the service that holds the key; empty for a key in the file itself
	ID     string // of a reference, which carries its public key; empty otherwise
	Public []byte // PEM, of a reference
}

// Inspect reads a private key file or a reference without a passphrase; nothing of it is authenticated.
func Inspect(pemBytes []byte) (Info, error) {
	b, rest := pem.Decode(pemBytes)
	switch {
	case b == nil && bytes.Contains(pemBytes, []byte("-----BEGIN ")):
		return Info{}, errors.New("the PEM block is damaged or cut short")
	case b == nil || strings.TrimSpace(string(rest)) != "":
		return Info{}, errors.New("not one PEM block")
	case b.Type == referenceType:
		return inspectReference(b)
	case b.Type == cosign.CosignPrivateKeyPemType || b.Type == cosign.SigstorePrivateKeyPemType && b.Headers[roleHeader] == "":
		return Info{}, errNoRole
	case b.Type != cosign.SigstorePrivateKeyPemType:
		return Info{}, fmt.Errorf("a PEM block of type %q, not %q", b.Type, cosign.SigstorePrivateKeyPemType)
	}
	r := trust.Role(b.Headers[roleHeader])
	if !r.Valid() {
		return Info{}, fmt.Errorf("the file says role %q, which is none", r)
	}
	return Info{Role: r, Name: b.Headers[nameHeader]}, nil
}

var errNoRole = errors.New("the file carries no role")

// Load reads and decrypts a private key file. Exit codes: a file that does not exist is NotFound, one that is no key, that
// others may read, or that has a role other than want (empty: any) is Usage, a wrong password is Failure.
func Load(path string, password []byte, want ...trust.Role) (*Key, error) {
	raw, err := readKey(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, raw, password, want...)
}

// CheckRole reads a key file and checks its role before anybody is asked for a password.
func CheckRole(path string, want ...trust.Role) (Info, error) {
	raw, err := readKey(path)
	if err != nil {
		return Info{}, err
	}
	return checkRole(path, raw, want)
}

func readKey(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, diag.Wrap(diag.NotFound, fs.ErrNotExist, "key file %s", path).Hint("waybill keys generate --role ROLE --out %s", path)
	}
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "key file %s", path)
	}
	if !st.Mode().IsRegular() || st.Size() > maxKeyFile {
		return nil, diag.New(diag.Usage, "%s is not a key file", path)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "key file %s", path)
	}
	// Windows has no such bits. A reference and a public key hold no secret.
	if runtime.GOOS != "windows" && st.Mode().Perm()&0o077 != 0 && bytes.Contains(raw, []byte("PRIVATE KEY-----")) {
		return nil, diag.New(diag.Usage, "key file %s may be read by others (mode %04o)", path, st.Mode().Perm()).
			Line("the passphrase can then be guessed by whoever copies the file").
			Hint("chmod 600 %s", path)
	}
	return raw, nil
}

func checkRole(path string, raw []byte, want []trust.Role) (Info, error) {
	in, err := Inspect(raw)
	if err != nil {
		e := diag.Wrap(diag.Usage, err, "%s is not a private key of Waybill", path)
		switch {
		case bytes.Contains(raw, []byte("PUBLIC KEY")):
			return Info{}, e.Hint("this is a public key; pass the private one, which keys generate wrote beside it")
		case errors.Is(err, errNoRole), bytes.Contains(raw, []byte("PRIVATE KEY-----\n")):
			return Info{}, e.Hint("waybill keys import %s --role ROLE --out FILE.key", path)
		}
		return Info{}, e.Hint("waybill keys generate --role ROLE --out FILE.key")
	}
	return in, checkWanted(path, in.Role, want)
}

func checkWanted(what string, role trust.Role, want []trust.Role) error {
	if len(want) == 0 || slices.Contains(want, role) {
		return nil
	}
	var names []string
	for _, w := range want {
		names = append(names, string(w))
	}
	return diag.New(diag.Usage, "%s is %s key; this needs %s key", what, role.Article(), want[0].Article()+orRest(names)).
		Line("one key has one role, so that a signature can mean one thing only").
		Hint("waybill keys generate --role %s --out %s.key", names[0], names[0])
}

// Parse is Load for bytes already read; path stands in messages only.
func Parse(path string, raw, password []byte, want ...trust.Role) (*Key, error) {
	in, err := checkRole(path, raw, want)
	if err != nil {
		return nil, err
	}
	if in.URI != "" {
		return nil, diag.New(diag.Usage, "%s refers to a key in a service, it is no key itself", path)
	}
	b, _ := pem.Decode(raw)
	priv, der, err := unseal(b.Bytes, password)
	if err != nil {
		return nil, unsealError(path, err)
	}
	switch role := sealedRole(der); {
	case role == "":
		return nil, diag.New(diag.Usage, "key file %s: no role is sealed in it, only a header names one", path).
			Line("such a header can be changed without the passphrase").
			Hint("waybill keys import %s --role %s --out NEW.key", path, in.Role)
	case role != in.Role:
		return nil, diag.New(diag.Usage, "key file %s was made for the role %s, and its header was changed to %s", path, role, in.Role).
			Line("a key keeps its role for life").
			Hint("waybill keys generate --role %s --out %s.key", in.Role, in.Role)
	}
	return newKey(path, in, priv)
}

func newKey(path string, in Info, priv crypto.Signer) (*Key, error) {
	id, err := trust.KeyID(priv.Public())
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "key file %s", path)
	}
	pubPEM, err := trust.EncodePublic(priv.Public())
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	// No option: plain Ed25519. cosign's own loader asks for Ed25519ph, which neither its verifier nor ours accepts in a bundle.
	sv, err := signature.LoadDefaultSignerVerifier(priv)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return &Key{id: id, name: in.Name, role: in.Role, public: pubPEM, key: priv.Public(), signer: sv}, nil
}

var errPassphrase = errors.New("wrong passphrase")

// unseal opens cosign's encryption and gives the key with its PKCS #8 form.
func unseal(sealed, password []byte) (crypto.Signer, []byte, error) {
	if !json.Valid(sealed) {
		return nil, nil, errors.New("the encrypted part is damaged or cut short")
	}
	der, err := encrypted.Decrypt(sealed, password)
	if err != nil {
		if strings.Contains(err.Error(), "decryption failed") {
			return nil, nil, errPassphrase
		}
		return nil, nil, err
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, nil, err
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("a key of type %T cannot sign", k)
	}
	return s, der, nil
}

func unsealError(path string, err error) error {
	if errors.Is(err, errPassphrase) {
		return diag.Wrap(diag.Failure, err, "key file %s", path).
			Hint("set WAYBILL_PASSWORD to the passphrase that the key was made with")
	}
	return diag.Wrap(diag.Usage, err, "key file %s", path)
}
