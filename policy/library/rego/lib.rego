# Helpers of the default rules. A rule negates only a helper, never an expression over input: the negation of an
# undefined expression is true, and a helper that is undefined is simply not proven.
package waybill.lib

ns(t) := time.parse_rfc3339_ns(t)

now := ns(input.context.time)

day := ((24 * 60) * 60) * 1000000000

in_force(x) if {
	ns(x.at) <= now
	now < ns(x.expires)
}

# The files were bundled as they are, and no device is to run them: there is no module, and none is missed.
files_only if {
	input.build.compiled == false
	count(input.build.modules) == 0
	count(input.environment.deviceClasses) == 0
}

# Verified releases of this digest by keys that trust calls publishers.
releases contains s if {
	some s in input.signatures
	s.verified == true
	s.predicateType == "https://sigstore.dev/cosign/sign/v1"
	s.subject == input.artifact.digest
	s.signer.role == "publisher"
	s.signer.keyId != ""
}

publishers contains s.signer.keyId if some s in releases

publisher_names contains s.signer.name if some s in releases

# Verified attestations of this digest.
attested contains a if {
	some a in input.attestations
	a.verified == true
	a.subject == input.artifact.digest
	a.signer.keyId != ""
}

# What was measured for a threshold, on this digest and on the champion.
measured(t) := {m |
	some m in input.metrics
	m.name == t.name
	m.slice == t.slice
}

champion_measured(t) := {m |
	some m in input.champion.metrics
	m.name == t.name
	m.slice == t.slice
}

meets(v, t) if {
	t.direction == "higher"
	v >= t.bound
}

meets(v, t) if {
	t.direction == "lower"
	v <= t.bound
}

at_least := {"higher": "at least", "lower": "at most"}

bundles(xs) := {x.bundle | some x in xs}

on_slice(t) := "" if t.slice == "all"

on_slice(t) := sprintf(" on slice %s", [t.slice]) if t.slice != "all"

# Clocks of two machines may differ by this much.
skew := 10 * 60 * 1000000000

# Not older than that many days, nor from the future; 0 days: no limit, and no time needed.
young(_, days) if days == 0

young(t, days) if {
	days > 0
	t != ""
	ns(t) <= now + skew
	now - ns(t) <= days * day
}

# Everything verified about this digest: releases and the rest.
verified := releases | attested

# Bundles of verified statements of this type, and of any, about this digest.
attested_bundles(type) := {a.bundle | some a in attested; a.predicateType == type}

attested_all := {a.bundle | some a in attested}

# Builds that count: verified provenance of a builder that the environment allows, signed by who may speak for it. Where the
# environment names no builder every verified provenance counts.
builds contains p if {
	count(input.environment.builders) == 0
	some p in input.provenance
}

builds contains p if {
	some p in input.provenance
	some b in input.environment.builders
	by(p, b)
}

# For messages.
builder(p) := p.builder if p.builder != ""

builder(p) := "(not named)" if p.builder == ""

by(p, b) if {
	p.builder == b.id
	speaks(p.signer, b)
}

speaks(_, b) if count(b.signers) == 0

speaks(s, b) if s.name in b.signers

speaks(s, b) if s.keyId in b.signers
