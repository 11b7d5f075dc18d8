package trust

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

// Limits on a document.
const (
	MaxDocument = 512 << 10 // bytes of JSON
	MaxKeys     = 4096
)

// Roles lists every role.
func Roles() []Role {
	return []Role{RoleRoot, RolePublisher, RoleEvaluator, RoleApprover, RoleGate, RoleDeployer, RoleRefresher, RoleDevice, RolePolicy}
}

// Valid tells whether r is a role.
func (r Role) Valid() bool { return slices.Contains(Roles(), r) }

// Article writes the role for a sentence: "a gate", "an approver".
func (r Role) Article() string {
	if r == RoleEvaluator || r == RoleApprover {
		return "an " + string(r)
	}
	return "a " + string(r)
}

// RolesFor is the closed table of who may sign what; an unknown predicate type has no roles. Document.RolesFor adds the
// custom types that a document allows.
func RolesFor(predicateType string) []Role {
	switch predicateType {
	case evidence.TypeRelease, evidence.TypeProvenance, evidence.TypeCycloneDX, evidence.TypeSPDX, evidence.TypeSPDX23, evidence.TypeOMS:
		return []Role{RolePublisher}
	case evidence.TypeVulns: // a scanner runs where the model is built, or where it is judged
		return []Role{RoleEvaluator, RolePublisher}
	case evidence.TypeEvaluation, evidence.TypeDataset, evidence.TypeTestResult:
		return []Role{RoleEvaluator}
	case evidence.TypeApproval, evidence.TypeException:
		return []Role{RoleApprover}
	case evidence.TypeVSA, evidence.TypeDecision:
		return []Role{RoleGate}
	case evidence.TypeDeployment:
		return []Role{RoleDeployer}
	case evidence.TypeChannel:
		return []Role{RoleDeployer, RoleRefresher}
	case evidence.TypeStatus:
		return []Role{RoleDevice}
	case evidence.TypePolicy:
		return []Role{RolePolicy}
	case evidence.TypeTrust, evidence.TypeEnvironments:
		return []Role{RoleRoot}
	}
	return nil
}

// Dimensions tells which parts of a scope limit a predicate type.
func Dimensions(predicateType string) (model, env, channel bool) {
	switch predicateType {
	case evidence.TypeTrust, evidence.TypeEnvironments:
		return false, false, false
	case evidence.TypeApproval, evidence.TypeException, evidence.TypeVSA, evidence.TypeDecision, evidence.TypeDeployment:
		return true, true, false
	case evidence.TypeChannel:
		return true, true, true
	case evidence.TypeStatus:
		return true, false, true
	}
	return true, false, false
}

// Parse reads a document from JSON strictly and validates it. It does not look at the clock.
func Parse(raw []byte) (*Document, error) {
	if len(raw) > MaxDocument {
		return nil, diag.Errorf("trust document of %d bytes is larger than the limit of %d", len(raw), MaxDocument)
	}
	var d Document
	if err := strictjson.Decode(raw, &d); err != nil {
		return nil, diag.Errorf("parse trust document: %w", err)
	}
	if err := d.Validate(); err != nil {
		return nil, err
	}
	return &d, nil
}

// Encode gives the canonical JSON of d, which Digest hashes and signatures cover. Nil lists are written as [].
func (d *Document) Encode() ([]byte, error) {
	c := *d
	c.Issued, c.Expires = d.Issued.UTC(), d.Expires.UTC()
	c.Keys = nonNil(slices.Clone(d.Keys))
	for i := range c.Keys {
		s := &c.Keys[i].Scope
		s.Models, s.Envs, s.Channels = nonNil(s.Models), nonNil(s.Envs), nonNil(s.Channels)
		if u := c.Keys[i].Until; u != nil {
			utc := u.UTC()
			c.Keys[i].Until = &utc
		}
	}
	c.Identities = slices.Clone(d.Identities)
	for i := range c.Identities {
		s := &c.Identities[i].Scope
		s.Models, s.Envs, s.Channels = nonNil(s.Models), nonNil(s.Envs), nonNil(s.Channels)
	}
	c.Policies, c.Revoked, c.Denied = nonNil(d.Policies), nonNil(d.Revoked), nonNil(d.Denied)
	return artifact.Canonical(&c)
}

// Digest is the identity of the document: SHA-256 of Encode. It is what devices pin and records name.
func (d *Document) Digest() (artifact.Digest, error) {
	b, err := d.Encode()
	if err != nil {
		return "", err
	}
	return artifact.DigestOf(b), nil
}

// Validate checks every rule that needs neither a clock nor another version.
func (d *Document) Validate() error {
	fail := func(format string, args ...any) error {
		return diag.Errorf("trust document: "+format, args...)
	}
	switch {
	case d.Schema != Schema:
		return fail("schema is %q, not %q", d.Schema, Schema)
	case d.Version < 1:
		return fail("version %d is below 1", d.Version)
	case d.Generation < 1:
		return fail("generation %d is below 1", d.Generation)
	case d.Issued.IsZero() || d.Expires.IsZero():
		return fail("issued or expires is missing")
	case !d.Expires.After(d.Issued):
		return fail("expires is not after issued")
	case d.Threshold < 1:
		return fail("threshold %d is below 1", d.Threshold)
	case len(d.Keys) > MaxKeys:
		return fail("%d keys are more than %d", len(d.Keys), MaxKeys)
	case len(d.Identities) > MaxIdentities:
		return fail("%d identities are more than %d", len(d.Identities), MaxIdentities)
	case d.Keyless == nil && len(d.Identities) > 0:
		return fail("identities need keyless: a trusted root")
	}
	seen := map[string]int{}
	roots := 0
	for i, k := range d.Keys {
		at := fmt.Sprintf("keys[%d]", i)
		if !k.Role.Valid() {
			return fail("%s: role %q is not one of %s", at, k.Role, roleNames())
		}
		if err := validName(k.Name); err != nil {
			return fail("%s: name %w", at, err)
		}
		_, id, err := ParsePublic([]byte(k.Public))
		if err != nil {
			return fail("%s (%s): %w", at, k.Name, err)
		}
		if id != k.ID {
			return fail("%s (%s): id %q is not that of the public key, %s", at, k.Name, k.ID, id)
		}
		if j, dup := seen[k.ID]; dup {
			return fail("%s (%s): same key as keys[%d]; one key has one role", at, k.Name, j)
		}
		seen[k.ID] = i
		if k.Role == RoleRoot && !slices.Contains(d.Revoked, k.ID) {
			roots++
		}
		if k.Role == RoleRoot && k.Until != nil {
			return fail("%s (%s): until on a root key; revoke it or leave it out", at, k.Name)
		}
		if k.Until != nil && k.Until.IsZero() {
			return fail("%s (%s): until is no time", at, k.Name)
		}
		if k.Role != RoleApprover && len(k.ApproverRoles) != 0 {
			return fail("%s (%s): approverRoles on a key of role %s", at, k.Name, k.Role)
		}
		if err := checkScope(k.Scope); err != nil {
			return fail("%s (%s): %w", at, k.Name, err)
		}
	}
	for i, id := range d.Identities {
		if err := id.check(); err != nil {
			return fail("identities[%d] (%s): %w", i, id.Name, err)
		}
		if _, dup := seen[id.ID]; dup {
			return fail("identities[%d] (%s): named twice; one identity has one role", i, id.Name)
		}
		seen[id.ID] = i
	}
	if d.Keyless != nil {
		if err := d.Keyless.check(); err != nil {
			return fail("keyless: %w", err)
		}
	}
	if roots < d.Threshold {
		return fail("%d root keys that are not revoked cannot meet the threshold of %d", roots, d.Threshold)
	}
	for _, p := range slices.Concat(d.Policies, d.Denied) {
		if _, err := artifact.ParseDigest(string(p)); err != nil {
			return fail("policies or denied: %w", err)
		}
	}
	for _, id := range d.Revoked {
		if _, err := artifact.ParseDigest("sha256:" + id); err != nil {
			return fail("revoked: %q is not a key id", id)
		}
	}
	if err := d.validateRules(); err != nil {
		return fail("%w", err)
	}
	return nil
}

func checkScope(s Scope) error {
	for _, p := range slices.Concat(s.Models, s.Envs, s.Channels) {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return diag.Errorf("scope pattern %q is malformed", p)
		}
	}
	return nil
}

// Lookup finds a key by id; a revoked key is found too (see IsRevoked).
func (d *Document) Lookup(keyID string) (Key, bool) {
	for _, k := range d.Keys {
		if k.ID == keyID {
			return k, true
		}
	}
	return Key{}, false
}

// IsRevoked tells whether the document revokes the key id.
func (d *Document) IsRevoked(keyID string) bool { return slices.Contains(d.Revoked, keyID) }

// IsDenied tells whether the document denies the artifact digest.
func (d *Document) IsDenied(digest artifact.Digest) bool { return slices.Contains(d.Denied, digest) }

// Expired tells whether the document is no longer valid at the given time.
func (d *Document) Expired(at time.Time) bool { return !at.Before(d.Expires) }

// Reasons why Allows refuses; errors.Is tells them apart.
var (
	ErrUnknownKey = errors.New("key is not in the trust document")
	ErrRevoked    = errors.New("key is revoked")
	ErrRole       = errors.New("key has another role")
	ErrScope      = errors.New("outside the scope of the key")
	ErrExpired    = errors.New("trust document has expired")
)

// Ask is one question to Allows. Empty Model, Env or Channel means that the dimension does not apply; the caller gets
// from Dimensions which do, and must not leave those empty.
type Ask struct {
	KeyID               string
	Role                Role
	Model, Env, Channel string
	At                  time.Time
}

// Allows tells whether the key may say something in that role about that model, environment and channel at that time.
// A nil error is the only yes.
func (d *Document) Allows(a Ask) error {
	k, ok := d.Signer(a.KeyID)
	switch {
	case a.At.IsZero() || d.Expired(a.At):
		return diag.Errorf("%w: version %d was valid until %s", ErrExpired, d.Version, d.Expires.Format(time.RFC3339))
	case !ok:
		return diag.Errorf("%w: key %s, version %d", ErrUnknownKey, short(a.KeyID), d.Version)
	case d.IsRevoked(a.KeyID):
		return diag.Errorf("%w: key %s (%s), version %d", ErrRevoked, short(a.KeyID), k.Name, d.Version)
	case k.Role != a.Role:
		return diag.Errorf("%w: key %s (%s) is %s key, not %s key", ErrRole, short(a.KeyID), k.Name, k.Role.Article(), a.Role.Article())
	}
	return k.InScope(a.Model, a.Env, a.Channel)
}

// InScope checks the dimensions that are not empty against the key's scope.
func (k Key) InScope(model, env, channel string) error {
	for _, dim := range []struct {
		name, value string
		patterns    []string
	}{
		{"model", model, k.Scope.Models}, {"environment", env, k.Scope.Envs}, {"channel", channel, k.Scope.Channels},
	} {
		if dim.value != "" && !match(dim.patterns, dim.value) {
			return diag.Errorf("%w: key %s (%s) covers %s %s, not %q", ErrScope, short(k.ID), k.Name, dim.name, list(dim.patterns), dim.value)
		}
	}
	return nil
}

// match treats "*" as everything, also names with a slash; other patterns are path.Match's.
func match(patterns []string, s string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		ok, err := path.Match(p, s)
		return p == "*" || err == nil && ok
	})
}

// KeysOf lists the keys of a role that are not revoked.
func (d *Document) KeysOf(r Role) []Key {
	var ks []Key
	for _, k := range d.Keys {
		if k.Role == r && !d.IsRevoked(k.ID) {
			ks = append(ks, k)
		}
	}
	return ks
}

// ParsePublic reads one PEM SubjectPublicKeyInfo and gives the key with its id. Only ECDSA P-256 and Ed25519 exist.
func ParsePublic(pemBytes []byte) (crypto.PublicKey, string, error) {
	b, rest := pem.Decode(pemBytes)
	if b == nil || b.Type != "PUBLIC KEY" || strings.TrimSpace(string(rest)) != "" {
		return nil, "", errors.New("not one PEM block of type PUBLIC KEY")
	}
	key, err := x509.ParsePKIXPublicKey(b.Bytes)
	if err != nil {
		return nil, "", diag.Errorf("parse public key: %w", err)
	}
	id, err := KeyID(key)
	if err != nil {
		return nil, "", err
	}
	return key, id, nil
}

// KeyID is the lower-case hex SHA-256 of the DER SubjectPublicKeyInfo. Keys of other kinds than ECDSA P-256 and Ed25519
// are refused.
func KeyID(pub crypto.PublicKey) (string, error) {
	switch k := pub.(type) {
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return "", diag.Errorf("ECDSA key on curve %s; only P-256 is accepted", k.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return "", diag.Errorf("key of type %T; only ECDSA P-256 and Ed25519 are accepted", pub)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", diag.Errorf("encode public key: %w", err)
	}
	h := sha256.Sum256(der)
	return hex.EncodeToString(h[:]), nil
}

// EncodePublic writes a public key as PEM SubjectPublicKeyInfo.
func EncodePublic(pub crypto.PublicKey) ([]byte, error) {
	if _, err := KeyID(pub); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, diag.Errorf("encode public key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

func nonNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

func list(p []string) string {
	if len(p) == 0 {
		return "none"
	}
	return strings.Join(p, ", ")
}

func roleNames() string {
	var s []string
	for _, r := range Roles() {
		s = append(s, string(r))
	}
	return strings.Join(s, ", ")
}

// Follows checks the rule between versions: N to N + 1, issued no earlier, generation kept or raised by one, and no key
// id that was revoked comes back. Signatures are the verifier's.
func (d *Document) Follows(current *Document) error {
	fail := func(format string, args ...any) error {
		return diag.Errorf("trust document version %d: "+format, append([]any{d.Version}, args...)...)
	}
	switch {
	case d.Version != current.Version+1:
		return fail("it does not follow version %d", current.Version)
	case d.Generation != current.Generation && d.Generation != current.Generation+1:
		return fail("generation %d does not follow %d", d.Generation, current.Generation)
	case d.Issued.Before(current.Issued):
		return fail("issued before version %d", current.Version)
	}
	for _, id := range current.Revoked {
		if k, ok := d.Signer(id); ok && !d.IsRevoked(id) {
			return fail("key %s (%s) was revoked and is trusted again", short(id), k.Name)
		}
	}
	for _, was := range current.Keys {
		k, ok := d.Lookup(was.ID)
		if was.Until == nil || !ok || d.IsRevoked(was.ID) {
			continue
		}
		if k.Until == nil || k.Until.After(*was.Until) {
			return fail("key %s (%s) was retired and is trusted for longer", short(k.ID), k.Name)
		}
	}
	if p, n := current.Environments, d.Environments; p != nil && (n == nil || n.Version < p.Version) {
		return fail("the pinned version of the environments, %d, is lowered", p.Version)
	}
	return nil
}
