// Package sigstore verifies bundles that are signed with a short-lived certificate, against a trusted root at hand: the
// certificate's chain at a time that a timestamp authority or a log vouches for, log entries, certificate transparency
// and the signature. It opens no connection. It links sigstore-go, and with it megabytes: the CLI always has it,
// waybill-edge with the build tag keyless only.
package sigstore

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/trust"
	check "github.com/waybill-ml/waybill/oci/verify"
)

// Verifier checks certificates for oci/verify. The zero value serves trust documents that carry their trusted root; With
// hands over trusted roots that a document names by digest only. Safe for concurrent use.
type Verifier struct {
	files map[artifact.Digest][]byte
	mu    sync.Mutex
	roots map[artifact.Digest]*root.TrustedRoot // parsed ones
}

// With makes a verifier that has these trusted_root.json files at hand. They count only where a trust document names
// their digest.
func With(files ...[]byte) *Verifier {
	v := &Verifier{files: map[artifact.Digest][]byte{}}
	for _, f := range files {
		v.files[artifact.DigestOf(f)] = f
	}
	return v
}

// ParseRoot reads a trusted_root.json and checks that something can be verified with it.
func ParseRoot(raw []byte) (*root.TrustedRoot, error) {
	if len(raw) > trust.MaxTrustedRoot {
		return nil, fmt.Errorf("trusted root of %d bytes is larger than the limit of %d", len(raw), trust.MaxTrustedRoot)
	}
	r, err := root.NewTrustedRootFromJSON(raw)
	if err != nil {
		return nil, fmt.Errorf("parse trusted root: %w", err)
	}
	if len(r.FulcioCertificateAuthorities()) == 0 {
		return nil, errors.New("trusted root names no certificate authority")
	}
	return r, nil
}

// Certified is what check.Certificates asks for.
func (v *Verifier) Certified(raw []byte, k trust.Keyless) (*check.Certified, error) {
	r, err := v.root(k)
	if err != nil {
		return nil, err
	}
	return checker{}.certified(raw, r, k)
}

// Stamped is what check.Certificates asks for: it verifies the RFC 3161 timestamps in a bundle that a key signed.
func (v *Verifier) Stamped(raw []byte, k trust.Keyless) (time.Time, check.TimeSource, error) {
	r, err := v.root(k)
	if err != nil {
		return time.Time{}, "", err
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(raw); err != nil {
		return time.Time{}, "", err
	}
	if stamps, err := b.Timestamps(); err != nil || len(stamps) == 0 {
		return time.Time{}, "", err
	}
	times, errs, err := verify.VerifySignedTimestamp(&b, r)
	switch {
	case err != nil:
		return time.Time{}, "", err
	case len(times) < max(k.Timestamps, 1):
		return time.Time{}, "", fmt.Errorf("%d of the %d authorities needed: %w", len(times), max(k.Timestamps, 1), errors.Join(errs...))
	}
	at := times[0].Time
	for _, t := range times[1:] {
		if t.Time.After(at) { // the signature existed at the earliest of them; the latest is what all of them vouch for
			at = t.Time
		}
	}
	return at.UTC(), check.TimeRFC3161, nil
}

// root finds the trusted root that a document names, by digest.
func (v *Verifier) root(k trust.Keyless) (*root.TrustedRoot, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if r := v.roots[k.TrustedRoot]; r != nil {
		return r, nil
	}
	raw, ok := v.files[k.TrustedRoot]
	switch {
	case k.TrustedRootJSON != "":
		raw = []byte(k.TrustedRootJSON)
	case !ok:
		var got []artifact.Digest
		for d := range v.files {
			got = append(got, d)
		}
		return nil, check.Refuse(check.BadTrust, "the trust document wants the trusted root %s, at hand is %v; pass the file with --trusted-root", k.TrustedRoot, got)
	}
	if d := artifact.DigestOf(raw); d != k.TrustedRoot {
		return nil, check.Refuse(check.BadTrust, "trusted root has digest %s, the trust document wants %s", d, k.TrustedRoot)
	}
	r, err := ParseRoot(raw)
	if err != nil {
		return nil, check.Refuse(check.BadTrust, "%w", err)
	}
	if v.roots == nil {
		v.roots = map[artifact.Digest]*root.TrustedRoot{}
	}
	v.roots[k.TrustedRoot] = r
	return r, nil
}

// checker holds what a test changes to leave a check out and see that the attack then succeeds. The zero value checks.
type checker struct {
	names  bool // more than one subject alternative name passes
	weaken func(r root.TrustedMaterial, o []verify.VerifierOption, leaf *x509.Certificate) (root.TrustedMaterial, []verify.VerifierOption)
}

func (c checker) certified(raw []byte, trusted *root.TrustedRoot, k trust.Keyless) (*check.Certified, error) {
	var b bundle.Bundle
	if err := b.UnmarshalJSON(raw); err != nil {
		return nil, check.Refuse(check.BadBundle, "%w", err)
	}
	content, err := b.VerificationContent()
	if err != nil {
		return nil, check.Refuse(check.BadBundle, "%w", err)
	}
	leaf := content.Certificate()
	if leaf == nil {
		return nil, check.Refuse(check.BadBundle, "the bundle holds no certificate")
	}
	if n := names(leaf); n > 1 && !c.names {
		return nil, check.Refuse(check.WrongSigner, "the certificate has %d subject alternative names, not one", n)
	}
	var r root.TrustedMaterial = trusted
	opts := options(k)
	if c.weaken != nil {
		r, opts = c.weaken(r, opts, leaf)
	}
	v, err := verify.NewVerifier(r, opts...)
	if err != nil {
		return nil, check.Refuse(check.BadTrust, "%w", err)
	}
	// Who and what are asked by the caller, with the trust document's rules: identities, predicate type, subject.
	res, err := v.Verify(&b, verify.NewPolicy(verify.WithoutArtifactUnsafe(), verify.WithoutIdentitiesUnsafe()))
	if err != nil {
		return nil, diagnose(v, &b, r, k, err)
	}
	out := &check.Certified{
		Issuer: res.Signature.Certificate.Issuer, Subject: res.Signature.Certificate.SubjectAlternativeName, Public: leaf.PublicKey,
	}
	for _, t := range res.VerifiedTimestamps {
		source := check.TimeRFC3161
		if t.Type == "Tlog" {
			source = check.TimeLog
		}
		out.Times = append(out.Times, check.Time{At: t.Timestamp.UTC(), Source: source, URI: t.URI})
	}
	if out.Issuer == "" {
		return nil, check.Refuse(check.WrongSigner, "the certificate of %s names no issuer", out.Subject)
	}
	if k.Logs > 0 {
		out.Logs = logs(&b, r)
	}
	return out, nil
}

// options turns what the trust document demands into sigstore-go's terms.
func options(k trust.Keyless) []verify.VerifierOption {
	var o []verify.VerifierOption
	if k.Logs > 0 {
		o = append(o, verify.WithTransparencyLog(k.Logs))
	}
	if k.SCTs > 0 {
		o = append(o, verify.WithSignedCertificateTimestamps(k.SCTs))
	}
	if k.Timestamps > 0 {
		return append(o, verify.WithSignedTimestamps(k.Timestamps))
	}
	return append(o, verify.WithObserverTimestamps(1))
}

// names counts the subject alternative names. sigstore-go reports one; a second one must not hide behind it.
func names(c *x509.Certificate) int {
	return len(c.URIs) + len(c.EmailAddresses) + len(c.DNSNames) + len(c.IPAddresses)
}

// logs lists the trusted logs among the entries. Verify has refused a bundle in which one of their proofs is wrong.
func logs(b *bundle.Bundle, r root.TrustedMaterial) []string {
	entries, err := b.TlogEntries()
	if err != nil {
		return nil
	}
	var ids []string
	for _, e := range entries {
		id := hex.EncodeToString([]byte(e.LogKeyID()))
		if _, ok := r.RekorLogs()[id]; ok && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// diagnose finds the reason behind a refusal by asking for the parts one by one, in the order in which Verify asks.
func diagnose(v *verify.Verifier, b *bundle.Bundle, r root.TrustedMaterial, k trust.Keyless, cause error) error {
	logTimes, err := v.VerifyTransparencyLogInclusion(b)
	if err != nil {
		return check.Refuse(check.NotLogged, "%w", cause)
	}
	times, err := v.VerifyObserverTimestamps(b, logTimes)
	if err != nil {
		return check.Refuse(check.NoTime, "%w", cause)
	}
	content, err := b.VerificationContent()
	if err != nil {
		return check.Refuse(check.BadBundle, "%w", cause)
	}
	leaf := content.Certificate()
	for _, t := range times {
		chains, err := verify.VerifyLeafCertificate(t.Timestamp, leaf, r)
		if err == nil {
			if k.SCTs > 0 && verify.VerifySignedCertificateTimestamp(chains, k.SCTs, r) != nil {
				return check.Refuse(check.WrongSigner, "%w", cause)
			}
			continue
		}
		if t.Timestamp.Before(leaf.NotBefore) || t.Timestamp.After(leaf.NotAfter) {
			return check.Refuse(check.Expired, "the certificate was valid from %s to %s and was used on %s", leaf.NotBefore.UTC().Format(time.RFC3339),
				leaf.NotAfter.UTC().Format(time.RFC3339), t.Timestamp.UTC().Format(time.RFC3339))
		}
		return check.Refuse(check.WrongSigner, "the certificate is of no authority in the trusted root: %w", cause)
	}
	return check.Refuse(check.Altered, "%w", cause)
}
