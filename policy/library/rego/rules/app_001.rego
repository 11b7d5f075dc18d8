# METADATA
# scope: package
# title: "Required people have approved"
# description: "As many different people as the environment demands have approved this digest, one for each required role. Roles come from the trust document; approvals are for this environment and in force; one person counts once; no author counts."
# custom:
#   id: APP-001
#   category: people
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "get the approval: waybill approve REF --role ROLE --reason TEXT --env ENV --key approver.key; who is missing: waybill approvals REF --env ENV"
#   standards:
#     - "EU AI Act Annex IV 2(e)"
#     - "NIST AI RMF GOVERN 2.1"
#     - "SLSA two-party review"
package waybill.rules.app_001

import data.waybill.lib

default pass := false

pass if lib.suffice(lib.approvals)

fail contains {"msg": sprintf("%d of %d approvals", [lib.persons(lib.approvals), input.environment.approvals.minimum]), "evidence": lib.bundles(lib.approvals)} if lib.persons(lib.approvals) < input.environment.approvals.minimum

fail contains {"msg": sprintf("no valid approval in role %s", [r]), "evidence": lib.bundles(lib.approvals)} if {
	some r in input.environment.approvals.roles
	not lib.filled(lib.approvals, r)
}

# Why an attached approval does not count.
fail contains {"msg": sprintf("an attached approval does not count: %s", [a.reason]), "evidence": [a.bundle]} if {
	not pass
	some a in input.attestations
	endswith(a.predicateType, "/approval/v1")
	a.verified == false
}

fail contains {"msg": sprintf("the approval of %s as %s does not count: %s", [d.name, d.role, d.why]), "evidence": [d.bundle]} if {
	not pass
	some d in lib.discounted
}
