// Package sign makes and uses the keys of people and CI: ECDSA P-256, encrypted in cosign's own format, so that stock
// cosign reads the files. A PEM header carries the key's one role, and Load refuses another use; the header is
// unauthenticated, and what really limits a key is the trust document. Heavy: it links cosign.
package sign

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
)

const (
	roleHeader = "Waybill-Role"
	nameHeader = "Waybill-Name"
	maxKeyFile = 64 << 10
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
func Generate(role trust.Role, name string, password []byte) (*KeyPair, error) {
	if !role.Valid() {
		return nil, diag.New(diag.Usage, "role %q is not one of %s", role, roleList()).Hint("waybill keys generate --role publisher")
	}
	if role == trust.RoleDevice {
		return nil, diag.New(diag.Usage, "device keys are made on the device").Hint("waybill-edge enroll")
	}
	if strings.ContainsAny(name, "\r\n:") {
		return nil, diag.New(diag.Usage, "key name %q holds a line break or a colon", name)
	}
	kb, err := cosign.GenerateKeyPair(func(bool) ([]byte, error) { return password, nil })
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	b, _ := pem.Decode(kb.PrivateBytes)
	if b == nil {
		return nil, errors.New("generate key: cosign gave no PEM block")
	}
	b.Headers = map[string]string{roleHeader: string(role)}
	if name != "" {
		b.Headers[nameHeader] = name
	}
	_, id, err := trust.ParsePublic(kb.PublicBytes)
	if err != nil {
		return nil, fmt.Errorf("generate key: %w", err)
	}
	return &KeyPair{ID: id, Role: role, Name: name, Private: pem.EncodeToMemory(b), Public: kb.PublicBytes}, nil
}

// Info is what a key file tells without its password.
type Info struct {
	Role trust.Role
	Name string
}

// Inspect reads role and name of a private key file; nothing of it is authenticated.
func Inspect(pemBytes []byte) (Info, error) {
	b, rest := pem.Decode(pemBytes)
	if b == nil || strings.TrimSpace(string(rest)) != "" {
		return Info{}, errors.New("not one PEM block")
	}
	if b.Type != cosign.SigstorePrivateKeyPemType {
		return Info{}, fmt.Errorf("a PEM block of type %q, not %q", b.Type, cosign.SigstorePrivateKeyPemType)
	}
	r := trust.Role(b.Headers[roleHeader])
	if !r.Valid() {
		return Info{}, errors.New("the file carries no role")
	}
	return Info{Role: r, Name: b.Headers[nameHeader]}, nil
}

// Key is a loaded private key. Loading costs about 0.2 s of scrypt, signing nothing: keep it. Safe for concurrent use.
type Key struct {
	id, name string
	role     trust.Role
	public   []byte
	signer   signature.SignerVerifier
}

// Load reads and decrypts a private key file. Exit codes: a file that does not exist is NotFound, one that is no key or
// has a role other than want (empty: any) is Usage, a wrong password is Failure.
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
	return raw, nil
}

func checkRole(path string, raw []byte, want []trust.Role) (Info, error) {
	in, err := Inspect(raw)
	if err != nil {
		e := diag.Wrap(diag.Usage, err, "%s is not a private key of Waybill", path)
		if bytes.Contains(raw, []byte("PUBLIC KEY")) {
			return Info{}, e.Hint("this is a public key; pass the private one, which keys generate wrote beside it")
		}
		return Info{}, e.Hint("waybill keys generate --role ROLE --out FILE.key")
	}
	if len(want) > 0 && !slices.Contains(want, in.Role) {
		var names []string
		for _, w := range want {
			names = append(names, string(w))
		}
		return Info{}, diag.New(diag.Usage, "%s is %s key; this needs %s key", path, in.Role.Article(), want[0].Article()+orRest(names)).
			Line("one key has one role, so that a signature can mean one thing only").
			Hint("waybill keys generate --role %s --out %s.key", names[0], names[0])
	}
	return in, nil
}

// Parse is Load for bytes already read; path stands in messages only.
func Parse(path string, raw, password []byte, want ...trust.Role) (*Key, error) {
	in, err := checkRole(path, raw, want)
	if err != nil {
		return nil, err
	}
	sv, err := cosign.LoadPrivateKey(raw, password, nil)
	if err != nil {
		if strings.Contains(err.Error(), "decrypt") {
			return nil, diag.Wrap(diag.Failure, errors.New("wrong passphrase"), "key file %s", path).
				Hint("set WAYBILL_PASSWORD to the passphrase that the key was made with")
		}
		return nil, diag.Wrap(diag.Usage, err, "key file %s", path)
	}
	pub, err := sv.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	id, err := trust.KeyID(pub)
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "key file %s", path)
	}
	pubPEM, err := trust.EncodePublic(pub)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}
	return &Key{id: id, name: in.Name, role: in.Role, public: pubPEM, signer: sv}, nil
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
func (k *Key) Sign(s *evidence.Statement) ([]byte, error) {
	if roles := trust.MaySign(s.PredicateType); !slices.Contains(roles, k.role) {
		return nil, diag.New(diag.Usage, "%s key can't sign a %s statement; only %v keys can", k.role.Article(), evidence.NameOf(s.PredicateType), roles)
	}
	payload, err := s.Encode()
	if err != nil {
		return nil, err
	}
	sig, err := k.signer.SignMessage(bytes.NewReader(evidence.PAE(evidence.PayloadType, payload)))
	if err != nil {
		return nil, fmt.Errorf("sign with key %s: %w", k.id[:12], err)
	}
	return evidence.EncodeBundle(k.id, payload, sig)
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
