package trust

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/url"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Limits on what identities may name.
const (
	MaxIdentities  = 1024
	maxSubject     = 1024
	MaxTrustedRoot = 256 << 10 // bytes of a trusted root
)

// MediaTypeTrustedRoot is the type of a sigstore trusted root that travels as an artifact of its own.
const MediaTypeTrustedRoot = "application/vnd.waybill.trusted-root.v1+json"

// Identity is a signer without a key of its own: whoever a certificate authority of the trusted root has named in a
// short-lived certificate. Like a key it has one role, a scope and an id that can be revoked.
type Identity struct {
	ID     string `json:"id" yaml:"id"`         // IdentityID of issuer and subject
	Name   string `json:"name" yaml:"name"`     // for people: "release workflow"
	Role   Role   `json:"role" yaml:"role"`     // one of IdentityRoles
	Issuer string `json:"issuer" yaml:"issuer"` // the OIDC issuer, compared exactly
	// Exactly one of the two is set. A pattern covers the whole subject, * stands for any characters but "/" and "@".
	Subject        string `json:"subject,omitempty" yaml:"subject,omitempty"`
	SubjectPattern string `json:"subjectPattern,omitempty" yaml:"subjectPattern,omitempty"`
	Scope          Scope  `json:"scope" yaml:"scope"`
	// ApproverRoles are the approval roles that an identity of role approver may fill.
	ApproverRoles []string `json:"approverRoles,omitempty" yaml:"approverRoles,omitempty"`
}

// Keyless says what a certificate-signed bundle must bring along.
type Keyless struct {
	TrustedRoot artifact.Digest `json:"trustedRoot" yaml:"trustedRoot"` // of the bytes of a sigstore trusted_root.json
	// TrustedRootJSON is the file itself. Without it the file must be at hand wherever something is verified.
	TrustedRootJSON string `json:"trustedRootJSON,omitempty" yaml:"trustedRootJSON,omitempty"`
	Logs            int    `json:"logs" yaml:"logs"`             // transparency logs that must hold the signature; 0: entries are not read
	SCTs            int    `json:"scts" yaml:"scts"`             // certificate transparency logs that must know the certificate
	Timestamps      int    `json:"timestamps" yaml:"timestamps"` // RFC 3161 authorities; 0: one, or the time that a log of Rekor v1 signed
}

// IdentityRoles lists the roles that an identity may have. The root and devices have keys: the root because nothing
// above it names an authority, devices because they sign without a network.
func IdentityRoles() []Role {
	return []Role{RolePublisher, RoleEvaluator, RoleApprover, RoleGate, RolePolicy}
}

// IdentityID is the id of the identity with that issuer and that subject, or pattern of subjects: lower-case hex of a SHA-256.
func IdentityID(issuer, subject string, pattern bool) string {
	kind := "subject"
	if pattern {
		kind = "pattern"
	}
	h := sha256.Sum256([]byte("waybill identity v1\n" + issuer + "\n" + kind + "\n" + subject))
	return hex.EncodeToString(h[:])
}

// Matches tells whether a certificate with that issuer and subject is this identity.
func (i Identity) Matches(issuer, subject string) bool {
	switch {
	case issuer == "" || subject == "" || i.Issuer != issuer:
		return false
	case i.SubjectPattern != "":
		return matchSubject(i.SubjectPattern, subject)
	}
	return i.Subject == subject
}

// Key shows the identity as a key without a public part: name, role and scope.
func (i Identity) Key() Key {
	return Key{ID: i.ID, Name: i.Name, Role: i.Role, Scope: i.Scope, ApproverRoles: i.ApproverRoles}
}

// IdentitiesOf lists the identities that a certificate with that issuer and subject is, revoked ones too.
func (d *Document) IdentitiesOf(issuer, subject string) []Identity {
	var out []Identity
	for _, i := range d.Identities {
		if i.Matches(issuer, subject) {
			out = append(out, i)
		}
	}
	return out
}

// Signer finds a key or an identity by its id, an identity in the form that Identity.Key gives.
func (d *Document) Signer(id string) (Key, bool) {
	if k, ok := d.Lookup(id); ok {
		return k, true
	}
	for _, i := range d.Identities {
		if i.ID == id {
			return i.Key(), true
		}
	}
	return Key{}, false
}

// matchSubject compares the whole of s with a pattern in which * stands for a run, maybe empty, of characters other
// than "/" and "@". Neither can leave a path element, and the domain of an address cannot be pushed aside.
func matchSubject(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	for i, lit := range parts[1:] {
		reach := len(s) // how far this star may go
		if n := strings.IndexAny(s, "/@"); n >= 0 {
			reach = n
		}
		if i == len(parts)-2 { // the last literal must end the subject
			n := len(s) - len(lit)
			return n >= 0 && n <= reach && s[n:] == lit
		}
		n := strings.Index(s, lit)
		if n < 0 || n > reach {
			return false
		}
		s = s[n+len(lit):]
	}
	return s == ""
}

// check is the part of Document.Validate about one identity.
func (i Identity) check() error {
	if !slices.Contains(IdentityRoles(), i.Role) {
		return diag.Errorf("role %q is not one that an identity may have", i.Role)
	}
	if i.Name == "" {
		return errors.New("name is empty")
	}
	u, err := url.Parse(i.Issuer)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.ContainsAny(i.Issuer, "* \n") {
		return diag.Errorf("issuer %q is not the URL of an OIDC issuer, which is compared exactly", i.Issuer)
	}
	s, pattern := i.Subject, false
	switch {
	case (i.Subject == "") == (i.SubjectPattern == ""):
		return errors.New("needs either subject or subjectPattern")
	case i.SubjectPattern != "":
		s, pattern = i.SubjectPattern, true
		if err := checkPattern(s); err != nil {
			return err
		}
	}
	if len(s) > maxSubject || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return errors.New("the subject is too long or holds control characters")
	}
	if id := IdentityID(i.Issuer, s, pattern); id != i.ID {
		return diag.Errorf("id %q is not that of issuer and subject, %s", i.ID, id)
	}
	if i.Role != RoleApprover && len(i.ApproverRoles) != 0 {
		return diag.Errorf("approverRoles on an identity of role %s", i.Role)
	}
	return checkScope(i.Scope)
}

// checkPattern refuses patterns that could cover somebody else's names: the host of a URL, the domain of an address, and
// at least one path element after the host stand in them literally.
func checkPattern(p string) error {
	fail := func(why string) error { return diag.Errorf("subject pattern %q %s", p, why) }
	switch {
	case !strings.Contains(p, "*"):
		return fail("has no *: it is a subject")
	case strings.Contains(p, "**"):
		return fail("has ** in it")
	}
	if scheme, rest, ok := strings.Cut(p, "://"); ok {
		host, path, _ := strings.Cut(rest, "/")
		owner, more, _ := strings.Cut(path, "/")
		if strings.Contains(scheme+host, "*") || host == "" {
			return fail("leaves the host open")
		}
		if strings.Contains(owner, "*") || more == "" {
			return fail("leaves the first element of the path open")
		}
		return nil
	}
	at := strings.LastIndex(p, "@")
	if at < 0 {
		if strings.HasPrefix(p, "*") {
			return fail("leaves its beginning open")
		}
		return nil
	}
	if domain := p[at+1:]; domain == "" || strings.Contains(domain, "*") {
		return fail("leaves the domain open")
	}
	return nil
}

func (k Keyless) check() error {
	if _, err := artifact.ParseDigest(string(k.TrustedRoot)); err != nil {
		return diag.Errorf("trustedRoot: %w", err)
	}
	if j := k.TrustedRootJSON; j != "" {
		if len(j) > MaxTrustedRoot {
			return diag.Errorf("trusted root of %d bytes is larger than the limit of %d", len(j), MaxTrustedRoot)
		}
		if got := artifact.DigestOf([]byte(j)); got != k.TrustedRoot {
			return diag.Errorf("trustedRootJSON has digest %s, not %s", got, k.TrustedRoot)
		}
	}
	for _, n := range []int{k.Logs, k.SCTs, k.Timestamps} {
		if n < 0 || n > 8 {
			return diag.Errorf("%d is no number of logs or authorities", n)
		}
	}
	if k.Timestamps == 0 && k.Logs == 0 {
		return errors.New("logs and timestamps are both 0: nothing would say when a certificate was used")
	}
	return nil
}
