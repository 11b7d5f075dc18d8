# METADATA
# scope: package
# title: "Required people have approved"
# description: "As many distinct approvers as the environment demands have approved this digest, one for each required role; roles come from the trust document, approvals are in force, and no author counts."
# custom:
#   id: APP-001
#   category: people
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "get the approval: waybill approve REF --role ROLE --reason TEXT --key approver.key"
#   standards:
#     - "EU AI Act Annex IV 2(e)"
#     - "NIST AI RMF GOVERN 2.1"
#     - "SLSA two-party review"
package waybill.rules.app_001

import data.waybill.lib

approvers := {a.signer.keyId | some a in lib.approvals}

default pass := false

pass if {
	count(approvers) >= input.environment.approvals.minimum
	every r in input.environment.approvals.roles {
		filled(r)
	}
}

filled(r) if {
	some a in lib.approvals
	a.role == r
}

fail contains {"msg": sprintf("%d of %d approvals", [count(approvers), input.environment.approvals.minimum]), "evidence": lib.bundles(lib.approvals)} if count(approvers) < input.environment.approvals.minimum

fail contains {"msg": sprintf("no valid approval in role %s", [r]), "evidence": lib.bundles(lib.approvals)} if {
	some r in input.environment.approvals.roles
	not filled(r)
}

# Why an attached approval does not count.
fail contains {"msg": sprintf("an attached approval does not count: %s", [a.reason]), "evidence": [a.bundle]} if {
	not pass
	some a in input.attestations
	endswith(a.predicateType, "/approval/v1")
	a.verified == false
}
