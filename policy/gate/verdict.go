package gate

import (
	"fmt"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/version"

	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/input"
)

// SLSAVersion is the version of SLSA's specification that the verdict's levels are those of.
const SLSAVersion = "1.0"

// VSA gives the predicate of the verdict. It is a function of the outcome alone: equal outcomes give equal bytes.
func (o *Outcome) VSA() (*evidence.VSA, error) {
	env, pol := o.Input.Environment, o.Policy.Bundle()
	meta := pol.Meta()
	v := &evidence.VSA{
		Verifier:           evidence.Verifier{ID: evidence.GateID, Version: map[string]string{"waybill": o.Input.Context.GateVersion, "opa": version.Version}},
		TimeVerified:       o.Input.Context.Time,
		ResourceURI:        o.Input.Artifact.ResourceURI,
		Policy:             evidence.PolicyRef{URI: "waybill:policy/" + nameOr(meta.Name) + "@" + nameOr(meta.Version), Digest: map[string]string{"sha256": pol.Digest().Hex()}},
		InputAttestations:  []evidence.Reference{},
		VerificationResult: evidence.Failed,
		VerifiedLevels:     []string{evidence.Failed},
		SLSAVersion:        SLSAVersion,
		Waybill: evidence.VSAExtension{
			Environment: env.Name, DeviceClasses: []string{}, NotAfter: o.notAfter(), PolicyDigest: pol.Digest(),
			InputDigest: o.InputDigest, DecisionDigest: o.DecisionDigest, Basis: o.Basis,
			Violations: decision.IDs(o.Decision.Violations), Warnings: decision.IDs(o.Decision.Warnings), Exceptions: decision.IDs(o.Decision.Exceptions),
		},
	}
	if hs := o.Chain.Heads; len(hs) > 0 {
		v.Waybill.Prev, v.Waybill.Merges = hs[0], slices.Sorted(slices.Values(hs[1:]))
	}
	v.Waybill.Missing = o.Chain.MissingDigests()
	for _, c := range env.DeviceClasses {
		v.Waybill.DeviceClasses = append(v.Waybill.DeviceClasses, c.Name)
	}
	for _, u := range slices.Compact(slices.Sorted(slices.Values(o.Used))) {
		v.InputAttestations = append(v.InputAttestations, evidence.Reference{Digest: map[string]string{"sha256": u.Hex()}})
	}
	if o.Decision.Allow {
		v.VerificationResult = evidence.Passed
		v.VerifiedLevels = []string{evidence.EnvironmentLevel(env.Name)}
		for _, c := range v.Waybill.DeviceClasses {
			v.VerifiedLevels = append(v.VerifiedLevels, evidence.ClassLevel(c))
		}
		if n := BuildLevel(o.Input); n > 0 {
			v.VerifiedLevels = append(v.VerifiedLevels, fmt.Sprintf("SLSA_BUILD_LEVEL_%d", n))
		}
	}
	return v, nil
}

func nameOr(s string) string {
	if s == "" {
		return "unnamed"
	}
	return s
}

// notAfter is the environment's span from now, cut short by the first applied exception that runs out: what was waived
// until a day must not stay allowed for longer.
func (o *Outcome) notAfter() time.Time {
	now := o.Input.Context.Time
	end := now.AddDate(0, 0, o.Input.Environment.NotAfterDays)
	applied := decision.IDs(o.Decision.Exceptions)
	for _, x := range o.Input.Exceptions {
		if slices.Contains(applied, x.Rule) && x.Expires.After(now) && x.Expires.Before(end) {
			end = x.Expires
		}
	}
	return end
}

// maxBuildLevel is the highest level of the build track in SLSAVersion.
const maxBuildLevel = 3

// BuildLevel is the SLSA build level that the artifact's provenance proves in this environment; 0 when it proves none. A
// level is the platform team's word about a builder and nothing that a statement can claim of itself, so it counts only
// where the environment lists the builder, with whoever may sign for it. With several provenances the lowest counts: each
// says that it made this very digest.
func BuildLevel(in input.Input) int {
	lowest := 0
	for i, p := range in.Provenance {
		n := 0
		for _, b := range in.Environment.Builders {
			if b.ID == p.Builder && mayBuild(b, p.Signer) {
				n = max(n, min(b.Level, maxBuildLevel))
			}
		}
		if i == 0 || n < lowest {
			lowest = n
		}
	}
	return lowest
}

func mayBuild(b input.Builder, s input.Signer) bool {
	return len(b.Signers) == 0 || slices.Contains(b.Signers, s.KeyID) || slices.Contains(b.Signers, s.Name)
}
