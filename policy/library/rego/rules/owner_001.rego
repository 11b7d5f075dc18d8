# METADATA
# scope: package
# title: "Somebody answers for the model"
# description: "The bill of materials names an owner who can be reached: by mail or at a web address."
# custom:
#   id: OWNER-001
#   category: people
#   since: "1.0"
#   profiles: {baseline: "off", strict: deny, eu-high-risk: deny, edge: "off"}
#   severity: medium
#   remediation: "name the owner with an address: waybill attest REF --type cyclonedx --predicate bom.json --key publisher.key"
#   standards:
#     - "NIST AI RMF GOVERN 2.1"
#     - "EU AI Act Annex IV 1(a)"
package waybill.rules.owner_001

default pass := false

pass if {
	input.model.declared != ""
	reachable
}

reachable if regex.match(`(^|[\s<:])[^\s@<>:]+@[^\s@<>.]+\.[^\s@<>]+`, input.model.owner)

reachable if regex.match(`https://[^\s/]+\.[^\s/]+`, input.model.owner)

fail contains {"msg": "no verified bill of materials names an owner", "evidence": []} if input.model.declared == ""

fail contains {"msg": sprintf("owner %q has no mail address and no web address", [input.model.owner]), "evidence": [input.model.declared]} if {
	input.model.declared != ""
	not reachable
}
