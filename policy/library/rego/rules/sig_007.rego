# METADATA
# scope: package
# title: "Nobody signs in two roles"
# description: "No signer of verified evidence appears under two roles: who releases does not evaluate, who evaluates does not approve."
# custom:
#   id: SIG-007
#   category: identity
#   since: "1.0"
#   profiles: {baseline: off, strict: deny, eu-high-risk: deny, edge: off}
#   severity: high
#   remediation: "let another team sign, with a key of its own: waybill trust show"
#   standards:
#     - "NIST AI RMF GOVERN 2.1"
#     - "SLSA two-party review"
#     - "EU AI Act Article 14"
package waybill.rules.sig_007

import data.waybill.lib

names contains a.signer.name if some a in lib.verified

roles(n) := {a.signer.role | some a in lib.verified; a.signer.name == n}

default pass := false

pass if {
	count(names) > 0
	every n in names {
		single(n)
	}
}

single(n) if {
	n != ""
	count(roles(n)) == 1
}

fail contains {"msg": sprintf("%q signs as %s", [n, concat(" and ", sort(roles(n)))]), "evidence": {a.bundle | some a in lib.verified; a.signer.name == n}} if {
	some n in names
	not single(n)
}

fail contains {"msg": "nothing about this digest is signed", "evidence": []} if count(names) == 0
