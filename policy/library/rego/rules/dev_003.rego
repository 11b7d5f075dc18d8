# METADATA
# scope: package
# title: "The artifact fits the devices' storage"
# description: "Where a device class limits what an artifact may take, all layers together keep the limit."
# custom:
#   id: DEV-003
#   category: target
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "leave out what devices do not need: waybill pack --without-source"
#   standards:
#     - "EU AI Act Annex IV 1(e)"
#     - "NIST AI RMF MEASURE 2.3"
package waybill.rules.dev_003

limited contains c if {
	some c in input.environment.deviceClasses
	c.storageBytes > 0
}

skip := "no device class limits storage" if count(limited) == 0

default pass := false

pass if {
	count(limited) > 0
	input.artifact.size > 0
	every c in limited {
		fits(c)
	}
}

fits(c) if input.artifact.size <= c.storageBytes

fail contains {"msg": sprintf("the artifact has %d bytes, class %s gives %d", [input.artifact.size, c.name, c.storageBytes]), "evidence": [input.environment.digest]} if {
	some c in limited
	not fits(c)
}
