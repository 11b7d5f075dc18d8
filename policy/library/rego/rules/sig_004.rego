# METADATA
# scope: package
# title: "Releases carry a trusted time"
# description: "As many publishers as the environment demands have signed with a time that somebody else vouches for: an RFC 3161 authority or a transparency log. A time that the signer claims proves nothing once a key is lost."
# custom:
#   id: SIG-004
#   category: identity
#   since: "1.0"
#   profiles: {baseline: off, strict: deny, eu-high-risk: deny, edge: off}
#   severity: high
#   remediation: "sign with a timestamp: waybill sign REF --key publisher.key --timestamp-url URL"
#   standards:
#     - "EU AI Act Annex IV 2(g)"
#     - "RFC 3161"
#     - "SLSA Build L2: authentic provenance"
package waybill.rules.sig_004

import data.waybill.lib

timed contains r.signer.keyId if {
	some r in lib.releases
	r.at != ""
	r.timeSource in {"rfc3161", "log"}
}

default pass := false

pass if {
	input.environment.signers >= 1
	count(timed) >= input.environment.signers
}

fail contains {"msg": sprintf("%d of %d release signatures carry a time of an authority or a log", [count(timed), input.environment.signers]), "evidence": lib.bundles(lib.releases)} if not pass
